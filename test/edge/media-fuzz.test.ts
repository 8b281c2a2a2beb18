/** Malformed media, in a short form; `npm run fuzz -- media` sends a hundred thousand messages. */
import { expect, test } from 'vitest';
import { startFuzzedEdge } from '../fuzz/api-edge.ts';
import { fuzzMedia } from '../fuzz/media.ts';
import { hasRedisServer } from '../helpers/redis.ts';
import { newSeed } from '../soak/outcome.ts';

test.skipIf(!hasRedisServer)('malformed media ends its own socket alone', async () => {
  await using edge = await startFuzzedEdge();
  const seed = newSeed();
  const { ends, good } = await fuzzMedia({ ...edge, seed, count: 600, lanes: 3 });
  console.log(`seed ${seed}: ${JSON.stringify(Object.fromEntries(ends))} ${JSON.stringify(good)}`);
  expect(good.whole).toBe(true);
  expect([...ends.keys()]).toEqual(expect.arrayContaining(['close 4400', 'close 1002', 'HTTP 401']));
});
