/** Every field of a request, by what it does to the recording. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { probe, readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { lacks, startService, type Problem, type Service } from '../helpers/service.ts';

const run = promisify(execFile);

describe.skipIf(await lacks('ffmpeg', 'headless shell'))('a request', () => {
  let service: Service;
  let pages: Pages;
  let elsewhere: Pages;
  beforeAll(async () => {
    pages = await startPages();
    elsewhere = await startPages();
    service = await startService({ slots: 2 });
  });
  afterAll(async () => {
    await service?.[Symbol.asyncDispose]();
    await pages?.close();
    await elsewhere?.close();
  });

  const failing = async (body: Record<string, unknown>): Promise<Recording> => {
    const { id } = await service.create(body);
    return service.waitFor(id, 'failed');
  };
  const bitrateOf = async (path: string, stream: string): Promise<number> => {
    const { stdout } = await run('ffprobe', ['-v', 'error', '-select_streams', stream, '-show_entries', 'stream=bit_rate', '-of', 'csv=p=0', path]);
    return Number(stdout);
  };

  it('sets size, frame rate, length and bitrates', async () => {
    const url = pages.url('/animated.html?video=1&videoSound=1');
    const [small, large] = await Promise.all([
      service.record({ url, width: 640, height: 360, frameRate: 15, maxDuration: 5, videoBitrate: 100_000, audioBitrate: 32_000 }),
      service.record({ url, width: 640, height: 360, frameRate: 15, maxDuration: 5, videoBitrate: 1_500_000, audioBitrate: 192_000 }),
    ]);
    expect(small).toMatchObject({ width: 640, height: 360, frameRate: 15 });
    for (const { path } of [small, large]) {
      const found = await probe(path);
      expect(found.video).toMatchObject({ width: 640, height: 360 });
      expect(Math.abs(found.duration - 5)).toBeLessThanOrEqual(0.3);
    }
    const { perSecond } = uniqueFrames(await readFrames(large.path));
    expect(perSecond).toBeGreaterThan(6);
    expect(perSecond).toBeLessThan(16);
    const [video, sound] = [await bitrateOf(small.path, 'v:0'), await bitrateOf(small.path, 'a:0')];
    const [largeVideo, largeSound] = [await bitrateOf(large.path, 'v:0'), await bitrateOf(large.path, 'a:0')];
    console.log(`bits a second: picture ${video} and ${largeVideo}, sound ${sound} and ${largeSound}`);
    expect(video).toBeLessThan(200_000);
    expect(largeVideo).toBeGreaterThan(3 * video);
    expect(largeVideo).toBeLessThan(2_500_000);
    expect(sound).toBeLessThan(50_000);
    expect(largeSound).toBeGreaterThan(2 * sound);
    expect(small.files.find(({ name }) => name === 'recording.mp4')?.bytes).toBeLessThan(
      (large.files.find(({ name }) => name === 'recording.mp4')?.bytes ?? 0) / 2,
    );
  });

  it('leaves out the sound track, and keeps what the caller notes', async () => {
    const metadata = { room: 'blue', 'Ünïcode': '✓' };
    const recording = await service.record({ url: pages.url('/animated.html'), audio: false, maxDuration: 2, metadata, webrtc: 'direct', priority: 3 });
    expect(recording.metadata).toEqual(metadata);
    expect(await probe(recording.path)).toMatchObject({ video: { codec: 'h264' }, audio: null });
    expect(await service.manifest(recording.id)).toMatchObject({ audio: null, width: 1280, height: 720 });
  });

  it('begins and ends by the page’s signals', async () => {
    const recording = await service.record({ url: pages.url('/animated.html?signal=1&signalEnd=4'), start: { when: 'signal' }, width: 640, height: 360 });
    // what the page drew in the 1.5 s before is not in it
    const { first } = uniqueFrames(await readFrames(recording.path));
    expect(first).toBeGreaterThan(15);
    expect(Math.abs(recording.duration - 4)).toBeLessThanOrEqual(1.4);
    expect(Math.abs((await probe(recording.path)).duration - recording.duration)).toBeLessThanOrEqual(0.1);
  });

  it('begins when an element is there', async () => {
    const start = { when: 'selector', selector: '#ready' };
    const recording = await service.record({ url: pages.url('/animated.html?selectorAt=2'), start, maxDuration: 2, width: 640, height: 360 });
    expect(uniqueFrames(await readFrames(recording.path)).first).toBeGreaterThan(20);
    expect(recording.duration).toBeCloseTo(2, 1);
  });

  it('names a start that does not come, and one that can not', async () => {
    const url = pages.url('/static.html');
    const [selector, signal, wrong] = await Promise.all([
      failing({ url, start: { when: 'selector', selector: '#never', timeout: 2 } }),
      failing({ url, start: { when: 'signal', timeout: 2 } }),
      failing({ url, start: { when: 'selector', selector: 'div[', timeout: 5 } }),
    ]);
    expect(selector.error).toMatchObject({ code: 'start_timeout', blame: 'target', message: expect.stringContaining('#never') });
    expect(signal.error).toMatchObject({ code: 'start_timeout', blame: 'target', message: expect.stringContaining('START_RECORDING') });
    expect(wrong.error).toMatchObject({ code: 'start_selector_invalid', blame: 'caller', message: expect.stringContaining('div[') });
    for (const { files } of [selector, signal, wrong]) expect(files).toEqual([]);
  });

  it('waits for its time', async () => {
    const startAt = new Date(Date.now() + 4000).toISOString();
    // a length that is no whole number of microseconds
    const { id, state } = await service.create({ url: pages.url('/static.html?startAt'), startAt, maxDuration: 8 / 7 });
    expect(state).toBe('queued');
    await service.waitFor(id, 'starting');
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(startAt));
    const recording = await service.waitFor(id, 'completed');
    const late = Date.parse(recording.startedAt ?? '') - Date.parse(startAt);
    console.log(`its first picture came ${late} ms after its time`);
    expect(late).toBeGreaterThanOrEqual(0);
    expect(late).toBeLessThan(15_000);
  });

  it('shows headers and cookies to the page’s origin alone', async () => {
    const secret = { headers: { 'X-Secret': 'for the page', Authorization: 'Bearer 123' }, cookies: [{ name: 'session', value: 'abc' }] };
    // by another name, since a cookie is a host's on all its ports
    const foreign = elsewhere.url('').replace('127.0.0.1', 'localhost').replace(/\/$/, '');
    await service.record({ url: pages.url(`/media.html?secret&src=${encodeURIComponent(`${foreign}/media/beeps.webm`)}`), maxDuration: 2, ...secret });
    const moved = await service.record({ url: pages.url(`/redirect?to=${encodeURIComponent(`${foreign}/headers?moved`)}`), maxDuration: 1, ...secret });
    expect(moved.state).toBe('completed');

    const own = pages.requests.filter(({ url }) => url.includes('secret') || url.startsWith('/redirect'));
    expect(own.length).toBeGreaterThanOrEqual(2);
    for (const { headers } of own) expect(headers).toMatchObject({ 'x-secret': 'for the page', authorization: 'Bearer 123', cookie: 'session=abc' });
    // what the page itself loads from its origin gets them too
    const script = pages.requests.findLast(({ url }) => url.includes('barcode.js'));
    expect(script?.headers).toMatchObject({ 'x-secret': 'for the page', cookie: 'session=abc' });
    expect(elsewhere.requests.map(({ url }) => url)).toEqual(expect.arrayContaining(['/media/beeps.webm', '/headers?moved']));
    for (const { headers } of elsewhere.requests) {
      expect(headers['x-secret']).toBeUndefined();
      expect(headers.authorization).toBeUndefined();
      expect(headers.cookie).toBeUndefined();
    }
    expect(service.lines.join('\n')).not.toContain('for the page');
  });

  it('is carried out once for each Idempotency-Key', async () => {
    const body = { url: pages.url('/static.html'), startAt: new Date(Date.now() + 3_600_000).toISOString() };
    const post = (content: object) =>
      service.api<Recording & Problem>('/v1/recordings', {
        method: 'POST',
        body: JSON.stringify(content),
        headers: { 'content-type': 'application/json', 'idempotency-key': 'once' },
      });
    const [first, again] = [await post(body), await post(body)];
    expect([first.status, again.status]).toEqual([202, 200]);
    expect(again.body.id).toBe(first.body.id);
    const other = await post({ ...body, width: 640 });
    expect(other).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } });
    expect((await service.stop(first.body.id)).state).toBe('canceled');
  });

  it('that is wrong is refused with every field that is', async () => {
    const { status, body } = await service.api('/v1/recordings', {
      method: 'POST',
      body: JSON.stringify({ url: 'file:///etc/passwd', width: 641, frameRate: 0, start: { when: 'never' }, colour: 'red' }),
      headers: { 'content-type': 'application/json' },
    });
    expect(status).toBe(400);
    expect(body.code).toBe('invalid_request');
    expect(body.errors?.map(({ path }) => path)).toEqual(expect.arrayContaining(['url', 'width', 'frameRate', 'start.when', 'colour']));
  });
});
