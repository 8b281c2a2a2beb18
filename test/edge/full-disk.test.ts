import { readdirSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startFinaliser } from '../../edge/finishing.ts';
import { diskStorage } from '../../edge/storage/disk.ts';
import { partKey, partName } from '../../edge/storage/part-names.ts';
import { closeCodes } from '../../shared/media-protocol.ts';
import type { Recording } from '../../shared/recording.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { lacks } from '../helpers/service.ts';
import { smallDisk, type SmallDisk } from '../helpers/small-disk.ts';
import { makeCmaf, type Cmaf } from './cmaf.ts';
import { dial, eventually, testEdge, type FakeWorker, type TestEdge } from './harness.ts';

describe.skipIf(await lacks('root', 'ffmpeg'))('a disk that fills up', () => {
  let redis: TestRedis;
  let cmaf: Cmaf;
  let bytes: number;
  beforeAll(async () => {
    redis = await startRedis();
    cmaf = await makeCmaf({ seconds: 20, size: '640x360' });
    bytes = cmaf.parts.reduce((sum, { payload }) => sum + payload.length, 0);
  });
  afterAll(() => redis?.[Symbol.asyncDispose]());

  const edgeOn = (disk: SmallDisk) => testEdge(redis, { storageUrl: pathToFileURL(`${disk.path}/recordings`).href });
  const unfinished = (disk: SmallDisk) => readdirSync(disk.path, { recursive: true, encoding: 'utf8' }).filter((path) => path.includes('.new-'));

  async function expectStored(disk: SmallDisk, { id }: Recording, attempt: number, parts: Cmaf['parts']): Promise<void> {
    const storage = diskStorage(`${disk.path}/recordings`);
    for (const { header, payload } of parts) {
      const found = await storage.get(partKey(id, partName(attempt, header)));
      expect(found && Buffer.from(found).equals(payload), `part ${header.seq}`).toBe(true);
    }
  }
  async function recorded(edge: TestEdge): Promise<{ created: Recording; attempt: number }> {
    const created = await edge.create();
    const attempt = await edge.control.run(created.id);
    const worker = await dial(edge, created, attempt);
    worker.send(...cmaf.parts);
    await worker.acked(cmaf.parts.length);
    worker.close();
    return { created, attempt };
  }
  const acked = ({ messages }: FakeWorker): number => Math.max(0, ...messages.map((message) => (message.type === 'ack' ? message.seq : 0)));

  test('keeps what was acknowledged, says that it is full, and takes the rest once there is room', async () => {
    using disk = smallDisk('16m');
    await using edge = await edgeOn(disk);
    const request = [{ url: 'https://example.com/' }, { 'idempotency-key': 'before it was full' }] as const;
    const created = (await edge.post(...request)).body as Recording;
    const attempt = await edge.control.run(created.id);
    const worker = await dial(edge, created, attempt);
    const moment = Math.random() * 150;
    const filling = sleep(moment).then(() => disk.fill());
    for (const part of cmaf.parts) {
      worker.send(part);
      await sleep(10);
    }
    {
      await using _full = await filling;
      // what came before is acknowledged, what did not fit is refused so that the worker keeps it
      const { code } = await Promise.race([worker.closed, sleep(2000, { code: 0 })]);
      console.log(`full after ${moment.toFixed(0)} ms: ${acked(worker)} of ${cmaf.parts.length} parts acknowledged`);
      expect(code).toBe(closeCodes.storageFull.code);
      expect(acked(worker)).toBeLessThan(cmaf.parts.length);
      await expectStored(disk, created, attempt, cmaf.parts.slice(0, acked(worker)));
      expect(unfinished(disk)).toEqual([]);
      for (const key of [{}, { 'idempotency-key': 'another' }] as Record<string, string>[]) {
        expect(await edge.post(request[0], key)).toMatchObject({ status: 507, body: { code: 'storage_full', retryable: true } });
      }
      // what exists takes no more room
      expect(await edge.post(...request)).toMatchObject({ status: 200, body: { id: created.id } });
      expect(await edge.post({ url: 'https://example.com/other' }, request[1])).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } });
      expect(await edge.api('/readyz')).toMatchObject({ status: 503, body: { checks: { storage: { ok: false, code: 'storage_full' } } } });
      expect((await edge.api('/healthz')).status).toBe(200);
    }
    expect((await edge.api('/readyz')).status).toBe(200);
    const again = await dial(edge, created, attempt);
    expect(await again.welcome).toBe(acked(worker));
    again.send(...cmaf.parts.slice(acked(worker)));
    await again.acked(cmaf.parts.length);
    again.close();
    await edge.control.finish(created.id);
    await using _finaliser = await edge.finaliser();
    const done = await eventually(() => edge.get(created.id), ({ state }) => state === 'completed');
    expect(done.duration).toBeCloseTo(cmaf.duration, 1);
    expect(done.warnings).toEqual([]);
  }, 20_000);

  test.concurrent.each([
    ['is said to be missing before it is written', true],
    ['runs out while it is written', false],
  ])('of a file whose room %s the parts stay, and it is made once there is room', async (_what, looked) => {
    using disk = smallDisk('16m');
    await using edge = await edgeOn(disk);
    const { created, attempt } = await recorded(edge);
    const storage = diskStorage(`${disk.path}/recordings`);
    const full = await disk.fill(bytes / 2);
    await using _finaliser = await startFinaliser(edge.config, edge.log, looked ? {} : { storage: { ...storage, freeBytes: async () => null } });
    await edge.control.finish(created.id);
    const waiting = await eventually(() => edge.get(created.id), ({ warnings }) => warnings.length > 0);
    expect(waiting).toMatchObject({ state: 'finishing', warnings: [expect.stringMatching(/storage was full when the file was to be made \(.*made as soon as there is room/)] });
    expect(waiting.error).toBeUndefined();
    expect(unfinished(disk)).toEqual([]);
    await expectStored(disk, created, attempt, cmaf.parts);
    // it is tried again and again, and none counts as a failed try
    await eventually(async () => edge.logs.filter((line) => line.includes('the storage is waited for')).length, (tries) => tries >= 2);
    expect((await edge.control.finishQueue.getJob(`${created.id}-finish`))?.attemptsMade).toBe(0);
    expect((await edge.get(created.id)).state).toBe('finishing');
    await full[Symbol.asyncDispose]();
    const done = await eventually(() => edge.get(created.id), ({ state }) => state === 'completed', 12_000);
    expect(done.error).toBeUndefined();
    expect(done.files.map(({ name }) => name)).toContain('recording.mp4');
    expect(unfinished(disk)).toEqual([]);
  }, 25_000);
});
