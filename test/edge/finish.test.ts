import { createHash } from 'node:crypto';
import { BufferSource, EncodedPacketSink, Input, MP4 } from 'mediabunny';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { finishRecording, giveUp, sweepParts } from '../../edge/finish/finish.ts';
import { diskStorage } from '../../edge/storage/disk.ts';
import { partKey, partName } from '../../edge/storage/part-names.ts';
import type { Storage } from '../../edge/storage/storage.ts';
import { TabreelError } from '../../shared/errors.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { makeCmaf, hasFfmpeg, type Cmaf, type CmafPart } from './cmaf.ts';
import { testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
let cmaf: Cmaf;
let storage: Storage;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis.url);
  storage = diskStorage(edge.directory);
  cmaf = await makeCmaf({ seconds: 3 });
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const never = new AbortController().signal;
const deps = () => ({ store: edge.control.store, storage, log: edge.log });
const finish = (id: string, using: Storage = storage) => finishRecording({ ...deps(), storage: using }, id, never);

async function put(id: string, attempt: number, parts: readonly CmafPart[]) {
  for (const { header, payload } of parts) await storage.put(partKey(id, partName(attempt, header)), payload);
}

/** A recording in `finishing` with these parts, one list for each attempt. */
async function recorded(...attempts: readonly (readonly CmafPart[])[]) {
  const { id } = await edge.create();
  await edge.control.run(id);
  for (const [i, parts] of attempts.entries()) await put(id, i + 1, parts);
  await edge.control.store.change(id, { from: ['recording'], to: 'finishing' });
  return id;
}

const secondsOf = (parts: readonly CmafPart[]) => parts.reduce((sum, { header }) => sum + ('duration' in header ? header.duration : 0), 0) / 1e6;

async function look(id: string) {
  const bytes = (await storage.get(`${id}/recording.mp4`)) ?? new Uint8Array();
  using input = new Input({ formats: [MP4], source: new BufferSource(bytes) });
  const video = await input.getPrimaryVideoTrack();
  const times: number[] = [];
  if (video) for await (const { timestamp } of new EncodedPacketSink(video).packets()) times.push(timestamp);
  return { bytes, times, duration: await input.computeDuration() };
}

describe('finishing', () => {
  test('the last picture stands until the end that the worker told', async () => {
    const told = cmaf.duration + 1.25;
    const end = { header: { ...cmaf.parts.at(-1)!.header, duration: Math.round(told * 1e6) }, payload: new Uint8Array() } as CmafPart;
    const id = await recorded([...cmaf.parts.slice(0, -1), end]);
    expect(await finish(id)).toBe(true);
    const done = await edge.get(id);
    expect([done.state, done.duration]).toEqual(['completed', expect.closeTo(told, 3)]);
    const { duration, times } = await look(id);
    expect(duration).toBeCloseTo(told, 3);
    expect(times).toHaveLength(cmaf.frames);
  });

  test('a worker that was lost leaves what was stored: it ends with the last segment', async () => {
    const id = await recorded(cmaf.parts.slice(0, 3));
    await finish(id);
    expect((await edge.get(id)).duration).toBeCloseTo(secondsOf(cmaf.parts.slice(1, 3)), 1);
  });

  test('attempts follow each other on one timeline', async () => {
    const id = await recorded(cmaf.parts.slice(0, 3), cmaf.parts);
    await finish(id);
    const first = secondsOf(cmaf.parts.slice(1, 3));
    const done = await edge.get(id);
    expect(done).toMatchObject({ state: 'completed', warnings: [] });
    expect(done.duration).toBeCloseTo(first + cmaf.duration, 1);
    const { times } = await look(id);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(times.filter((time) => time >= first - 0.001)).toHaveLength(cmaf.frames);
    const manifest = JSON.parse(Buffer.from((await storage.get(`${id}/manifest.json`)) ?? []).toString());
    expect(manifest.attempts).toMatchObject([{ attempt: 1, start: 0, segments: 2 }, { attempt: 2, start: first }]);
  });

  test.runIf(hasFfmpeg)('an attempt of another shape is left out, with a warning', async () => {
    const other = await makeCmaf({ seconds: 1, size: '160x120' });
    const id = await recorded(cmaf.parts, other.parts);
    await finish(id);
    const done = await edge.get(id);
    expect(done.state).toBe('completed');
    expect(done.warnings[0]).toContain('part of attempt 2');
    expect(done.duration).toBeCloseTo(cmaf.duration, 1);
  });

  test.runIf(hasFfmpeg)('sound may begin late', async () => {
    const silent = await makeCmaf({ seconds: 1, audio: false });
    const id = await recorded(silent.parts, cmaf.parts);
    await finish(id);
    const done = await edge.get(id);
    expect(done).toMatchObject({ state: 'completed', warnings: [] });
    expect(done.duration).toBeCloseTo(1 + cmaf.duration, 1);
    expect((await look(id)).times).toHaveLength(silent.frames + cmaf.frames);
  });

  test.runIf(hasFfmpeg)('works without sound', async () => {
    const silent = await makeCmaf({ seconds: 2, audio: false });
    const id = await recorded(silent.parts);
    await finish(id);
    expect(await edge.get(id)).toMatchObject({ state: 'completed', duration: 2 });
  });

  test('twice, or again after dying in the middle, gives the same', async () => {
    const id = await recorded(cmaf.parts);
    const broken: Storage = {
      ...storage,
      put: (key, bytes) => (key.endsWith('manifest.json') ? Promise.reject(new Error('died')) : storage.put(key, bytes)),
    };
    await expect(finish(id, broken)).rejects.toThrow('died');
    expect((await edge.get(id)).state).toBe('finishing');
    const before = await storage.get(`${id}/recording.mp4`);
    await finish(id);
    const done = await edge.get(id);
    expect(done.state).toBe('completed');
    expect(Buffer.from(before!).equals((await look(id)).bytes)).toBe(true);
    expect(await finish(id)).toBe(true);
    expect(await edge.get(id)).toEqual({ ...done, links: expect.anything() });
    for (const { name, bytes, sha256 } of done.files) {
      const stored = (await storage.get(`${id}/${name}`))!;
      expect([name, stored.length, createHash('sha256').update(stored).digest('hex')]).toEqual([name, bytes, sha256]);
    }
  });

  test('a recording that failed keeps its error and gets its file', async () => {
    const id = await recorded(cmaf.parts);
    await edge.control.store.change(id, { from: ['finishing'], error: new TabreelError('page_crashed', 'the page crashed').toRecordingError() });
    await finish(id);
    expect(await edge.get(id)).toMatchObject({ state: 'failed', error: { code: 'page_crashed', blame: 'target' }, files: [{ name: 'recording.mp4' }, { name: 'manifest.json' }] });
  });

  test('nothing stored: failed, or canceled where that was wanted', async () => {
    const lost = await recorded();
    expect(await finish(lost)).toBe(false);
    expect(await edge.get(lost)).toMatchObject({ state: 'failed', error: { code: 'nothing_recorded' } });
    const onlyInit = await recorded(cmaf.parts.slice(0, 1));
    await finish(onlyInit);
    expect((await edge.get(onlyInit)).state).toBe('failed');

    const { id } = await edge.create();
    await edge.control.store.claim(id);
    await edge.api(`/v1/recordings/${id}/stop`, { method: 'POST' });
    await edge.control.store.change(id, { from: ['starting'], to: 'finishing' });
    await finish(id);
    const canceled = await edge.get(id);
    expect(canceled.state).toBe('canceled');
    expect(canceled.error).toBeUndefined();
  });

  test('a segment that can not be read fails the recording in the end, and keeps what is stored', async () => {
    const id = await recorded([...cmaf.parts.slice(0, 2), { header: { ...cmaf.parts[2]!.header }, payload: new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]) }]);
    const error: unknown = await finish(id).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(Error);
    await giveUp(deps(), id, error);
    expect(await edge.get(id)).toMatchObject({ state: 'failed', error: { code: 'finish_failed', blame: 'service', retryable: true }, files: [] });
    expect(await storage.list(`${id}/`)).toHaveLength(3);
  });

  test('deleted meanwhile: nothing stays', async () => {
    const id = await recorded(cmaf.parts);
    const deleting: Storage = {
      ...storage,
      async put(key, bytes) {
        await storage.remove(`${id}/`);
        await edge.control.store.remove(id);
        await storage.put(key, bytes);
      },
    };
    await finish(id, deleting).catch(() => undefined);
    await finish(id);
    expect(await storage.list(`${id}/`)).toEqual([]);
  });
});

describe('files', () => {
  test('are served whole, in ranges, and unchanged', async () => {
    const id = await recorded(cmaf.parts);
    await finish(id);
    const { bytes } = await look(id);
    const path = `${edge.url}/v1/recordings/${id}/recording.mp4`;
    const range = (value: string, more: Record<string, string> = {}) => fetch(path, { headers: { range: value, ...more } });
    const head = await fetch(path, { method: 'HEAD' });
    expect([head.status, head.headers.get('content-length'), head.headers.get('accept-ranges')]).toEqual([200, String(bytes.length), 'bytes']);
    const etag = head.headers.get('etag') ?? '';

    const part = await range('bytes=100-199');
    expect([part.status, part.headers.get('content-range'), part.headers.get('content-length')]).toEqual([206, `bytes 100-199/${bytes.length}`, '100']);
    expect(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(100, 200))).toBe(true);
    const suffix = await range('bytes=-10');
    expect(Buffer.from(await suffix.arrayBuffer()).equals(bytes.subarray(-10))).toBe(true);
    const beyond = await range(`bytes=${bytes.length}-`);
    expect([beyond.status, beyond.headers.get('content-range'), ((await beyond.json()) as any).code]).toEqual([416, `bytes */${bytes.length}`, 'range_not_satisfiable']);
    const both = await range('bytes=0-1,5-6');
    expect(both.status).toBe(200);
    await both.arrayBuffer();
    const same = await range('bytes=0-9', { 'if-range': etag });
    expect(same.status).toBe(206);
    await same.arrayBuffer();
    const other = await range('bytes=0-9', { 'if-range': '"other"' });
    expect([other.status, (await other.arrayBuffer()).byteLength]).toEqual([200, bytes.length]);
    expect((await fetch(path, { headers: { 'if-none-match': etag } })).status).toBe(304);
  });

  test('the live stream stays until it is swept, then it is over', async () => {
    const id = await recorded(cmaf.parts);
    await sweepParts(deps(), id);
    await finish(id);
    expect((await edge.api(`/v1/recordings/${id}/live.m3u8`)).body).toContain('#EXT-X-ENDLIST');
    await sweepParts(deps(), id);
    expect((await storage.list(`${id}/`)).map(({ key }) => key.split('/')[1])).toEqual(['manifest.json', 'recording.mp4']);
    await new Promise((resolve) => setTimeout(resolve, 1100));
    expect(await edge.api(`/v1/recordings/${id}/live.m3u8`)).toMatchObject({ status: 410, body: { code: 'live_over' } });
  });
});
