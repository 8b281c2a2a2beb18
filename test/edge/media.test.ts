import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { BufferSource, EncodedPacketSink, Input, MP4 } from 'mediabunny';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startFinaliser } from '../../edge/finishing.ts';
import { openStorage } from '../../edge/storage/open.ts';
import type { Storage } from '../../edge/storage/storage.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { s3Server } from '../helpers/s3-server.ts';
import { lacks } from '../helpers/service.ts';
import { hasFfmpeg, makeCmaf, type Cmaf } from './cmaf.ts';
import { dial, eventually, testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let cmaf: Cmaf;

beforeAll(async () => {
  redis = await startRedis();
  cmaf = await makeCmaf({ seconds: 4 });
});
afterAll(() => redis[Symbol.asyncDispose]());

const withThumbnail = (parts: Cmaf['parts']): Cmaf['parts'] => {
  const jpeg = { header: { type: 'thumbnail' as const, seq: 2 }, payload: new Uint8Array([0xff, 0xd8, 0xff, 0xd9]) };
  return [parts[0]!, jpeg, ...parts.slice(1).map(({ header, payload }) => ({ header: { ...header, seq: header.seq + 1 }, payload }))];
};

/** Pictures that a decoder gets out of it. */
async function framesOf(input: string): Promise<number> {
  const what = ['-v', 'error', '-count_frames', '-select_streams', 'v', '-show_entries', 'stream=nb_read_frames', '-of', 'csv=p=0'];
  const { stdout } = await promisify(execFile)('ffprobe', [...what, input]);
  return Number.parseInt(stdout, 10);
}

const ended = (edge: TestEdge, id: string) => eventually(() => edge.get(id), ({ state }) => ['completed', 'failed', 'canceled'].includes(state));

const storages = [
  { place: 'on a disk', missing: false },
  { place: 'in S3', missing: await lacks('versitygw') },
];

describe.each(storages)('a recording $place, from the first part to its file', ({ place, missing }) => {
  if (missing) return test.skip('needs an S3 server');
  const stack = new AsyncDisposableStack();
  let edge: TestEdge;
  beforeAll(async () => {
    const server = place === 'in S3' ? stack.use(await s3Server()) : null;
    await server?.start();
    const config = server === null ? {} : { storageUrl: 's3://recordings/a/b', s3: server.settings };
    edge = stack.use(await testEdge(redis, config));
  });
  afterAll(() => stack[Symbol.asyncDispose]());

  test('is acknowledged part by part, playable live, and finished into one MP4', async () => {
    await using _finaliser = await edge.finaliser();
    const created = await edge.create();
    const attempt = await edge.control.run(created.id);
    const parts = withThumbnail(cmaf.parts);
    const segments = parts.filter(({ header }) => header.type === 'segment').length;
    const worker = await dial(edge, created, attempt);
    expect(await worker.welcome).toBe(0);
    expect((await edge.api(`/v1/recordings/${created.id}/live.m3u8`)).body).toMatchObject({ code: 'file_not_ready' });

    worker.send(...parts.slice(0, 4));
    await worker.acked(4);
    const token = new URL(created.links.live).searchParams.get('token') ?? '';
    const live = await edge.api(created.links.live);
    expect(live.headers.get('content-type')).toBe('application/vnd.apple.mpegurl');
    expect(live.body).toContain('#EXT-X-PLAYLIST-TYPE:EVENT');
    expect(live.body).toMatch(/#EXTINF:[12]\.000000,/);
    expect(live.body).not.toContain('#EXT-X-ENDLIST');
    const uris = String(live.body).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    expect(uris).toHaveLength(2);
    const segment = await fetch(new URL(uris[0]!, created.links.live));
    expect(segment.status).toBe(200);
    expect(uris[0]).toContain(`?token=${token}`);
    expect(segment.headers.get('cache-control')).toContain('immutable');
    expect(Buffer.from(await segment.arrayBuffer()).equals(parts[2]!.payload)).toBe(true);
    const map = /#EXT-X-MAP:URI="([^"]+)"/.exec(String(live.body))?.[1] ?? '';
    expect(Buffer.from(await (await fetch(new URL(map, created.links.live))).arrayBuffer()).equals(parts[0]!.payload)).toBe(true);
    expect((await edge.api(created.links.thumbnail)).status).toBe(200);
    expect((await edge.api(created.links.file)).body).toMatchObject({ code: 'file_not_ready', status: 404 });

    worker.send(...parts.slice(4));
    await worker.acked(parts.length);
    // another attempt could follow
    expect((await edge.api(created.links.live)).body).not.toContain('#EXT-X-ENDLIST');
    await edge.control.store.change(created.id, { from: ['recording'], to: 'finishing' });
    expect((await edge.api(created.links.live)).body).toContain('#EXT-X-ENDLIST');
    if (hasFfmpeg) expect(await framesOf(created.links.live)).toBe(cmaf.frames);
    worker.close();
    await edge.control.finish(created.id);
    const done = await ended(edge, created.id);
    expect(done).toMatchObject({ state: 'completed', width: 1280, engine: 'tab', attempts: 1 });
    expect(done.duration).toBeCloseTo(cmaf.duration, 2);
    expect(done.files.map(({ name }) => name)).toEqual(['recording.mp4', 'thumbnail.jpg', 'manifest.json']);

    const response = await fetch(done.links.file);
    expect(response.headers.get('content-type')).toBe('video/mp4');
    const bytes = Buffer.from(await response.arrayBuffer());
    const [file] = done.files;
    expect(bytes.length).toBe(file?.bytes);
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(file?.sha256);
    for (const [range, part] of [['bytes=0-99', bytes.subarray(0, 100)], ['bytes=1000-', bytes.subarray(1000)], ['bytes=-10', bytes.subarray(-10)]] as const) {
      const answer = await fetch(done.links.file, { headers: { range } });
      expect(answer.status).toBe(206);
      expect(Buffer.from(await answer.arrayBuffer()).equals(part)).toBe(true);
    }
    expect((await edge.api(done.links.file, { headers: { range: `bytes=${bytes.length}-` } })).body).toMatchObject({ code: 'range_not_satisfiable' });
    expect(bytes.indexOf('moov')).toBeLessThan(bytes.indexOf('mdat'));
    expect(bytes.includes('moof')).toBe(false);
    using input = new Input({ formats: [MP4], source: new BufferSource(bytes) });
    expect(await input.computeDuration()).toBeCloseTo(cmaf.duration, 2);
    const video = await input.getPrimaryVideoTrack();
    let frames = 0;
    for await (const _packet of new EncodedPacketSink(video!).packets()) frames += 1;
    expect(frames).toBe(cmaf.frames);
    expect((await input.getPrimaryAudioTrack()) !== null).toBe(cmaf.audio);

    const { body: manifest } = await edge.api(`/v1/recordings/${done.id}/manifest.json`);
    expect(manifest).toMatchObject({ id: done.id, url: 'https://example.com/page', frames: cmaf.frames, segments, width: cmaf.width });
    expect(manifest.files).toEqual(done.files.slice(0, 2));

    if (hasFfmpeg) {
      const path = join(edge.directory, 'check.mp4');
      writeFileSync(path, bytes);
      const probe = JSON.parse(
        execFileSync('ffprobe', ['-v', 'error', '-show_format', '-of', 'json', path], { encoding: 'utf8' }),
      );
      expect(await framesOf(path)).toBe(cmaf.frames);
      expect(Number(probe.format.duration)).toBeCloseTo(cmaf.duration, 2);
      expect(execFileSync('ffmpeg', ['-v', 'error', '-i', path, '-f', 'null', '-'], { encoding: 'utf8' })).toBe('');
    }
  });

  test('is finished by the next finaliser where one leaves in the middle', async () => {
    const storage = await openStorage(edge.config);
    const reached = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const slow: Storage = {
      ...storage,
      async create(key) {
        reached.resolve();
        await gate.promise;
        return storage.create(key);
      },
    };
    const created = await edge.create();
    const attempt = await edge.control.run(created.id);
    const worker = await dial(edge, created, attempt);
    worker.send(...cmaf.parts);
    await worker.acked(cmaf.parts.length);
    await edge.control.finish(created.id);
    const leaving = await startFinaliser(edge.config, edge.log, { storage: slow });
    await reached.promise;
    const left = leaving[Symbol.asyncDispose]();
    gate.resolve();
    await left;
    expect((await edge.get(created.id)).state).toBe('finishing');
    await using _next = await edge.finaliser();
    expect((await ended(edge, created.id)).state).toBe('completed');
    await eventually(async () => (await edge.control.finishQueue.getJob(`${created.id}-finish`))?.attemptsMade, (made) => made === 1);
    expect(await (await edge.control.finishQueue.getJob(`${created.id}-sweep`))?.getState()).toBe('delayed');
    expect((await storage.list(`${created.id}/`)).length).toBeGreaterThan(cmaf.parts.length);
    expect((await edge.api(`/v1/recordings/${created.id}`, { method: 'DELETE' })).status).toBe(204);
    await eventually(() => storage.list(`${created.id}/`), (left) => left.length === 0);
  });
});
