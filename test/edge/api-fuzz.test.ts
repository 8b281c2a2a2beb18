/** Generated requests to every route, in a short form; `npm run fuzz -- api` makes a million. */
import { expect, test } from 'vitest';
import { fuzzApi } from '../fuzz/api.ts';
import { startFuzzedEdge } from '../fuzz/api-edge.ts';
import { hasRedisServer } from '../helpers/redis.ts';
import { newSeed } from '../soak/outcome.ts';

test.skipIf(!hasRedisServer)('every route answers whatever comes, in time, as openapi.json has it', async () => {
  await using edge = await startFuzzedEdge();
  const seed = newSeed();
  const statuses = await fuzzApi(edge.target, { seed, count: 3000, lanes: 4 });
  console.log(`seed ${seed}: ${JSON.stringify(Object.fromEntries(statuses))}`);
  expect([...statuses.keys()]).toEqual(expect.arrayContaining(['200', '400', '401', '403', '404', '405']));
});
