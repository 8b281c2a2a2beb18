/** What is acknowledged is in the file, and what is not in the file was never acknowledged: whenever it is made. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { finishRecording, sweepParts } from '../../edge/finish/finish.ts';
import { manifest } from '../../edge/finish/manifest.ts';
import { diskStorage } from '../../edge/storage/disk.ts';
import { isSealed, seal } from '../../edge/storage/seal.ts';
import type { Storage } from '../../edge/storage/storage.ts';
import { closeCodes } from '../../shared/media-protocol.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { makeCmaf, type Cmaf, type CmafPart } from './cmaf.ts';
import { dial, testEdge, type FakeWorker, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
let directory: string;
let storage: Storage;
let cmaf: Cmaf;
/** A disk as slow as a bucket is now and then, so that all meets all. */
const slow = (disk: Storage): Storage => {
  const late = <A extends unknown[], R>(act: (...args: A) => Promise<R>) => async (...args: A): Promise<R> => {
    await sleep(Math.random() * 15);
    const result = await act(...args);
    await sleep(Math.random() * 15);
    return result;
  };
  return { ...disk, put: late(disk.put), stat: late(disk.stat), list: late(disk.list) };
};
beforeAll(async () => {
  redis = await startRedis();
  cmaf = await makeCmaf({ seconds: 60, size: '160x120', audio: false });
  directory = mkdtempSync(join(tmpdir(), 'tabreel-seal-'));
  storage = slow(diskStorage(directory));
  edge = await testEdge(redis, {}, { storage });
});
afterAll(async () => {
  await edge?.[Symbol.asyncDispose]();
  await redis?.[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

const never = new AbortController().signal;
const finish = (id: string) => finishRecording({ store: edge.control.store, storage, log: edge.log }, id, never);
const ackedOf = ({ messages }: FakeWorker) => Math.max(0, ...messages.map((message) => (message.type === 'ack' ? message.seq : 0)));
const manifestOf = async (id: string) => manifest.parse(JSON.parse(Buffer.from((await storage.get(`${id}/manifest.json`)) ?? []).toString()));


/** As of a worker that says that it has ended, and goes on: the header, `end`, then segments. */
const endless = (): CmafPart[] => {
  const [init, ...segments] = cmaf.parts as [CmafPart, ...CmafPart[]];
  const end = segments.pop() as CmafPart;
  const first = segments.shift() as CmafPart;
  return [init, first, end, ...segments].map(({ header, payload }, i) => ({ header: { ...header, seq: i + 1 }, payload }));
};
async function recorded(): Promise<{ id: string; worker: FakeWorker; again(): Promise<FakeWorker> }> {
  const created = await edge.create();
  const attempt = await edge.control.run(created.id);
  const connect = () => dial(edge, created, attempt);
  const worker = await connect();
  return { id: created.id, worker, again: connect };
}
const segmentsAcked = (worker: FakeWorker): number => endless().filter(({ header }) => header.type === 'segment' && header.seq <= ackedOf(worker)).length;

test('whatever moment its file is made at, all that was acknowledged is in it, the worker is told that it is over, and nothing stays behind', async () => {
  const counts: string[] = [];
  const rounds = Array.from({ length: 8 }, async () => {
    const { id, worker } = await recorded();
    const parts = endless();
    worker.send(...parts.slice(0, 3));
    await worker.acked(3);
    let finished = false;
    const sending = (async () => {
      for (const part of parts.slice(3)) {
        worker.send(part);
        await sleep(Math.random() * 120);
        if (finished) break;
      }
    })();
    await sleep(Math.random() * 200);
    await edge.control.store.change(id, { from: ['recording'], to: 'finishing' });
    expect((await finish(id)).outcome).toBe('file');
    expect((await worker.closed).code).toBe(closeCodes.over.code);
    finished = true;
    await sending;
    const { segments, verification } = await manifestOf(id);
    expect(verification.ok).toBe(true);
    expect(segments).toBeGreaterThanOrEqual(segmentsAcked(worker));
    // at most what was stored at that very moment and is in the file all the same
    expect(segments - segmentsAcked(worker)).toBeLessThanOrEqual(1);
    counts.push(`${segmentsAcked(worker)}/${segments}`);
    await sweepParts({ store: edge.control.store, storage, log: edge.log }, id);
    expect((await storage.list(`${id}/`)).map(({ key }) => key.slice(id.length + 1)).toSorted()).toEqual(['manifest.json', 'recording.mp4', 'sealed']);
  });
  await Promise.all(rounds);
  console.log(`segments acknowledged/in the file: ${counts.join(' ')}`);
}, 60_000);

test('once it is sealed no socket gets an acknowledgement or a welcome, and what was stored at that moment goes', async () => {
  const { id, worker, again } = await recorded();
  const parts = endless();
  worker.send(...parts.slice(0, 3));
  await worker.acked(3);
  await edge.control.store.change(id, { from: ['recording'], to: 'finishing' });
  await seal(storage, id);
  expect(await isSealed(storage, id)).toBe(true);
  worker.send(parts[3] as CmafPart);
  expect(await worker.closed).toEqual({ code: closeCodes.over.code, reason: 'the file of the recording is made' });
  expect(ackedOf(worker)).toBe(3);
  const second = await again();
  expect((await second.closed).code).toBe(closeCodes.over.code);
  expect(second.messages).toEqual([]);
  // the finaliser that had sealed it died: another one makes the file of all that is there
  expect((await finish(id)).outcome).toBe('file');
  expect((await manifestOf(id)).segments).toBe(2);
});

test('of a recording without a segment nothing stays', async () => {
  const { id, worker } = await recorded();
  worker.send(...cmaf.parts.slice(0, 1), { header: { type: 'end', seq: 2, duration: 0 }, payload: new Uint8Array() });
  await worker.acked(2);
  await edge.control.store.change(id, { from: ['recording'], to: 'finishing', desired: 'stopped' });
  expect((await finish(id)).outcome).toBe('nothing');
  expect(await edge.get(id)).toMatchObject({ state: 'canceled' });
  expect((await worker.closed).code).toBe(closeCodes.over.code);
  expect((await storage.list(`${id}/`)).map(({ key }) => key.split('/').at(-1))).toEqual(['sealed']);
});
