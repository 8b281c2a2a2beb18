/** What is captured goes to an Ant Media Server as well: by the recorder itself, whatever the page, and whatever becomes of the pushes. */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { PushSecrets } from '../../shared/recording.ts';
import { noFaults, startAntMedia, type AntMedia, type Session } from '../antmedia/server.ts';
import { flashBeepOffsets, probe, readBeeps, readFrames, summary, uniqueFrames } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { segmentsOf, startRecorder, type RecorderRun } from '../helpers/recorder.ts';
import { lacks } from '../helpers/service.ts';

const noFfmpeg = await lacks('ffmpeg', 'chromium');
const without = { self: noFfmpeg || (await lacks('headless shell')), tab: noFfmpeg, screencast: noFfmpeg };

/** Of a page that no frame may show, and that lets nobody add a script, a connection or a worker to it. */
const strictHeaders = () => {
  const [, script = ''] = /<script type="module">([^]*?)<\/script>/.exec(readFileSync(new URL('../fixtures/pages/animated.html', import.meta.url), 'utf8')) ?? [];
  const hash = createHash('sha256').update(script).digest('base64');
  return {
    'x-frame-options': 'DENY',
    'content-security-policy': `default-src 'none'; script-src 'self' 'sha256-${hash}'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'`,
  };
};

describe.skipIf(noFfmpeg)('the recorder pushes', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-push-'));
  let pages: Pages;
  let strict: Pages;
  let server: AntMedia;
  beforeAll(async () => {
    [pages, strict, server] = await Promise.all([startPages(), startPages({ headers: strictHeaders() }), startAntMedia()]);
  }, 60_000);
  afterAll(async () => {
    await pages?.close();
    await strict?.close();
    await server?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  });
  afterEach(() => Object.assign(server.faults, noFaults));

  const to = (streamId: string) => ({ type: 'antmedia' as const, url: server.websocketUrl, streamId });
  const sessionsOf = (streamId: string) => server.streams.get(streamId)?.sessions ?? [];
  const sessionOf = (streamId: string) => sessionsOf(streamId).at(-1) as Session;
  const statesOf = (run: RecorderRun, index = 0) =>
    run.reports.flatMap(({ message }) => (message.type === 'push' && message.index === index ? [message.state] : []));
  const isLive = (run: RecorderRun, index = 0) => server.until(`push ${index} live`, () => statesOf(run, index).at(-1) === 'live', 30_000);
  const framesOf = (session: Session, many: number) => server.until(`${many} frames`, () => session.video.length >= many, 30_000);
  /** Milliseconds between pictures at the far end, at most. */
  const longestWait = ({ video }: Session) => Math.max(...video.slice(1).map(({ arrived }, i) => arrived - (video[i]?.arrived ?? 0)));
  /** Seconds of a timeline without a hole. */
  const whole = (run: RecorderRun) => {
    let next = 0;
    for (const { start, duration } of segmentsOf(run)) {
      expect(start).toBe(next);
      next = start + duration;
    }
    return next / 1e6;
  };

  it.for(['self', 'tab', 'screencast'] as const)('a page on plain http that forbids frames and foreign scripts, by %s', async (engine, { skip }) => {
    skip(without[engine]);
    const streamId = `strict-${engine}`;
    const run = await startRecorder({ engine, request: { url: strict.url('/animated.html') }, push: [to(streamId)] });
    await isLive(run);
    await framesOf(sessionOf(streamId), engine === 'screencast' ? 30 : 90);
    run.stop();
    const ended = await run.ended;
    expect(ended.error).toBeNull();
    expect(statesOf(run)).toEqual(['connecting', 'publishing', 'live', 'ended']);
    expect(ended.stats.push).toMatchObject([{ framesDropped: 0, reconnects: 0 }]);
    const session = sessionOf(streamId);
    expect(session.ended).toBe('stop');
    expect(session.publish).toMatchObject({ video: true, audio: engine !== 'screencast' });
    const arrived = await server.received(streamId);
    const frames = await readFrames(arrived);
    expect(uniqueFrames(frames).unique).toBeGreaterThan(10);
    expect(uniqueFrames(frames).backwards).toBe(0);
    if (engine !== 'screencast') {
      const beeps = await readBeeps(arrived);
      expect(beeps.length).toBeGreaterThanOrEqual(2);
      expect(Math.abs(summary(flashBeepOffsets(frames, beeps)).median)).toBeLessThanOrEqual(120);
    }
    expect(whole(run)).toBeCloseTo(ended.duration, 1);
    expect((await probe(await run.save(directory))).video?.codec).toBe('h264');
  });

  it('on when the server was restarted, twice: each time it is live again soon, and the recording has no gap', async () => {
    const streamId = 'restarted';
    const run = await startRecorder({ engine: 'self', request: { url: pages.url('/animated.html') }, push: [to(streamId)] });
    await isLive(run);
    const took: number[] = [];
    for (let count = 1; count <= 2; count += 1) {
      const before = sessionOf(streamId);
      await framesOf(before, 30);
      const cut = performance.now();
      await server.restart(1000);
      await server.until('another session with pictures', () => sessionOf(streamId) !== before && sessionOf(streamId).video.length > 0, 30_000);
      took.push((performance.now() - cut) / 1000);
      expect(sessionOf(streamId).video[0]?.key).toBe(true);
      await isLive(run);
    }
    await framesOf(sessionOf(streamId), 30);
    run.stop();
    const ended = await run.ended;
    console.log(`pictures again ${took.map((seconds) => seconds.toFixed(1)).join(' and ')} s after the server was ended`);
    expect(Math.max(...took)).toBeLessThan(10);
    expect(ended).toMatchObject({ error: null, stats: { push: [{ reconnects: 2 }] } });
    expect(whole(run)).toBeCloseTo(ended.duration, 1);
    const { backwards, longestGap } = uniqueFrames(await readFrames(await run.save(directory)));
    expect(backwards).toBe(0);
    // the server was away for longer each time
    expect(longestGap).toBeLessThan(Math.min(...took));
  });

  it('what stands still, so that whoever comes late has a picture; key frames as they are asked for', async () => {
    const streamId = 'still';
    const run = await startRecorder({ engine: 'self', request: { url: pages.url('/static.html') }, push: [to(streamId)] });
    await isLive(run);
    const session = sessionOf(streamId);
    await framesOf(session, 2);
    const keys = () => session.video.filter(({ key }) => key).length;
    const before = keys();
    await session.askForKeyFrame();
    await server.until('a key frame', () => keys() > before, 20_000);
    await sleep(5000);
    run.stop();
    const ended = await run.ended;
    expect(ended.error).toBeNull();
    expect(longestWait(session)).toBeLessThan(5000);
    expect(whole(run)).toBeCloseTo(ended.duration, 1);
  });

  it('the last picture while it is paused, in one session, and goes on after that', async () => {
    const streamId = 'paused';
    const run = await startRecorder({ engine: 'self', request: { url: pages.url('/animated.html') }, push: [to(streamId)] });
    await isLive(run);
    const session = sessionOf(streamId);
    await framesOf(session, 30);
    run.pause();
    await run.report('paused');
    await sleep(500);
    const from = session.video.length;
    await server.until('pictures in the pause', () => session.video.length >= from + 2, 20_000);
    expect(session.video.slice(from).every(({ key }) => key)).toBe(true);
    const sounds = session.audio.length;
    await server.until('silence in the pause', () => session.audio.length > sounds + 20, 20_000);
    run.resume();
    await run.report('resumed');
    await framesOf(session, session.video.length + 40);
    run.stop();
    expect((await run.ended).error).toBeNull();
    expect(sessionsOf(streamId)).toHaveLength(1);
    expect(statesOf(run)).toEqual(['connecting', 'publishing', 'live', 'ended']);
    const { unique, backwards } = uniqueFrames(await readFrames(await server.received(streamId)));
    expect(unique).toBeGreaterThan(20);
    expect(backwards).toBe(0);
  });

  it('without a file as long as a push is left', async () => {
    server.faults.publishError = 'unauthorized_access';
    const run = await startRecorder({ engine: 'self', request: { url: pages.url('/animated.html'), record: false }, push: [to('one'), to('two')] });
    const ended = await run.ended;
    expect(ended).toMatchObject({ error: { code: 'push_unauthorized', blame: 'caller', retryable: false } });
    expect([statesOf(run, 0).at(-1), statesOf(run, 1).at(-1)]).toEqual(['failed', 'failed']);
  });

  it('to no address that is closed: neither the server’s, nor its ICE server’s', async () => {
    const { host } = new URL(pages.url('/'));
    const { length } = server.requests;
    const stun = createSocket('udp4');
    let asked = 0;
    stun.on('message', () => (asked += 1)).bind(0, '127.0.0.1');
    await once(stun, 'listening');
    const iceServers = [{ urls: `stun:127.0.0.1:${stun.address().port}` }];
    const attempt = async (allow: string[], pushSecrets: PushSecrets[] = []) => {
      const settings = { outbound: { allow: [host, ...allow], own: [] } };
      const run = await startRecorder({ engine: 'self', request: { url: pages.url('/animated.html'), record: false }, push: [to('closed')], pushSecrets, settings });
      return (await run.ended).error;
    };
    expect(await attempt([])).toMatchObject({ code: 'push_forbidden', blame: 'caller', retryable: false, message: expect.stringContaining('a loopback address') });
    expect([server.requests.length - length, sessionsOf('closed').length]).toEqual([0, 0]);
    expect(await attempt([`127.0.0.1:${server.port}`], [{ query: '', iceServers }])).toMatchObject({ code: 'push_forbidden', message: expect.stringContaining('stun:127.0.0.1') });
    expect([asked, sessionsOf('closed').flatMap(({ video }) => video).length]).toEqual([0, 0]);
    stun.close();
  });
});
