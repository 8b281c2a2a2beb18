import { afterAll, beforeAll, expect, test } from 'vitest';
import { startFinaliser } from '../../edge/finishing.ts';
import { openStorage } from '../../edge/storage/open.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { makeCmaf, type Cmaf } from './cmaf.ts';
import { dial, eventually, testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let cmaf: Cmaf;
beforeAll(async () => {
  redis = await startRedis();
  cmaf = await makeCmaf({ seconds: 2 });
});
afterAll(() => redis[Symbol.asyncDispose]());

async function record(edge: TestEdge): Promise<string> {
  const created = await edge.create({ metadata: { a: 'b' } });
  const worker = await dial(edge, created, await edge.control.run(created.id));
  worker.send(...cmaf.parts);
  await worker.acked(cmaf.parts.length);
  await edge.control.finish(created.id);
  worker.close();
  await eventually(() => edge.get(created.id), ({ state }) => state === 'completed');
  return created.id;
}

/** Keys that name the recording, or hold its id; but for the queues' own logs of events, which are short. */
async function keysAbout({ control: { redis: client }, config }: TestEdge, id: string): Promise<string[]> {
  const found: string[] = [];
  for (const key of await client.keys(`${config.queuePrefix}:*`)) {
    const type = await client.type(key);
    const values: Record<string, () => Promise<unknown>> = {
      string: () => client.get(key),
      hash: () => client.hgetall(key),
      list: () => client.lrange(key, 0, -1),
      set: () => client.smembers(key),
      zset: () => client.zrange(key, '0', '-1'),
    };
    const text = key + JSON.stringify(await values[type]?.());
    if (text.includes(id)) found.push(key);
  }
  return found;
}

test('of a recording that was kept for as long as it is to be nothing is left', async () => {
  await using edge = await testEdge(redis, { retention: 2 });
  const storage = await openStorage(edge.config);
  await using _finaliser = await startFinaliser(edge.config, edge.log, { reconciler: { round: 300 } });
  const id = await record(edge);
  expect((await keysAbout(edge, id)).length).toBeGreaterThan(5);
  expect((await storage.list(`${id}/`)).map(({ key }) => key)).toEqual(expect.arrayContaining([`${id}/recording.mp4`, `${id}/manifest.json`]));
  await eventually(async () => (await edge.api(`/v1/recordings/${id}`)).status, (status) => status === 404, 12_000);
  await eventually(() => keysAbout(edge, id), (keys) => keys.length === 0);
  expect(await storage.list(`${id}/`)).toEqual([]);
}, 30_000);
