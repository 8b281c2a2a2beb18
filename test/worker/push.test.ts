/** Publishing to an Ant Media Server's stand-in: what arrives, what is done where something goes wrong. */
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { errorKinds } from '../../shared/errors.ts';
import { createLog } from '../../shared/log.ts';
import { definitionError, definitions } from '../../worker/push/definitions.ts';
import { createAntMediaPush, type PushOptions, type PushState } from '../../worker/push/push.ts';
import type { PushTarget } from '../../worker/push/session.ts';
import { noFaults, startAntMedia, type AntMedia, type Session } from '../antmedia/server.ts';
import { errorDefinitions } from '../antmedia/signalling.ts';
import { flashBeepOffsets, readBeeps, readFrames, summary, uniqueFrames } from '../helpers/analyse.ts';
import { eventually } from '../edge/harness.ts';
import { lacks } from '../helpers/service.ts';
import { openToAll } from '../helpers/judges.ts';
import { makeSource, play, RATE, type Source } from './push-source.ts';

const skipped = await lacks('chromium', 'ffmpeg');

describe.skipIf(skipped)('a push to an Ant Media Server', () => {
  let server: AntMedia;
  let source: Source;
  let count = 0;
  beforeAll(async () => {
    [server, source] = await Promise.all([startAntMedia(), makeSource()]);
  }, 60_000);
  afterAll(async () => {
    source?.dispose();
    await server?.[Symbol.asyncDispose]();
  });
  afterEach(() => {
    Object.assign(server.faults, noFaults);
  });

  type Change = { state: PushState; code: string | null; message: string; at: number };

  /** Publishes the source until the test is over. */
  const publish = (target: Partial<PushTarget> = {}, options: Partial<PushOptions> = {}) => {
    const streamId = `push${(count += 1)}`;
    const states: Change[] = [];
    const lines: string[] = [];
    const bitrates: number[] = [];
    let wanted = 0;
    const push = createAntMediaPush(
      { type: 'antmedia', url: server.websocketUrl, streamId, ...target },
      {
        ca: null,
        codec: source.codec,
        bitrate: source.bitrate,
        audio: true,
        log: createLog('debug', (line) => lines.push(line)),
        onState: (state, error) => states.push({ state, code: error?.code ?? null, message: error?.message ?? '', at: performance.now() }),
        onKeyFrameWanted() {
          wanted += 1;
          playing.skipToKeyFrame();
        },
        onBitrate: (bitrate) => bitrates.push(bitrate),
        judge: openToAll,
        ...options,
      },
    );
    const playing = play(source, push);
    onTestFinished(async () => {
      playing.stop();
      await push.stop();
    });
    return {
      push,
      streamId,
      states,
      lines,
      bitrates,
      playing,
      wanted: () => wanted,
      names: () => states.map(({ state }) => state),
      session: () => server.streams.get(streamId)?.sessions.at(-1) as Session,
      is: (state: PushState, milliseconds = 15_000) => server.until(`state ${state}`, () => states.at(-1)?.state === state, milliseconds),
      frames: (session: Session, many: number) => server.until(`${many} frames`, () => session.video.length >= many, 20_000),
    };
  };

  test('arrives whole, in step and in order', async () => {
    const { push, streamId, names, session, is, frames, playing, lines } = publish({ token: 'secret-token', subscriberId: 'me', subscriberCode: 'secret-code' }, { onKeyFrameWanted: () => undefined });
    await is('live');
    await frames(session(), 3 * RATE);
    playing.stop();
    await push.stop();
    expect(names()).toEqual(['connecting', 'publishing', 'live', 'ended']);
    const arrived = session();
    expect(arrived.ended).toBe('stop');
    expect(arrived.publish).toMatchObject({ streamId, token: 'secret-token', subscriberId: 'me', subscriberCode: 'secret-code', video: true, audio: true });
    expect(server.requests.at(-1)?.url).toBe('/LiveApp/websocket?target=origin');
    expect(arrived.video[0]?.key).toBe(true);
    const stats = push.stats();
    await eventually(async () => arrived.video.length, (count) => count === stats.framesSent);
    expect(stats).toMatchObject({ packetsLost: 0, reconnects: 0 });
    expect(stats.roundTrip).toBeLessThan(5);
    // every one of the source's pictures from its first on, to the bit
    const given = new Set(source.video.map(({ data }) => Buffer.from(data.subarray(-64)).toString('base64')));
    expect(arrived.video.every(({ data }) => given.has(Buffer.from(data.subarray(-64)).toString('base64')))).toBe(true);
    const steps = arrived.video.slice(1).map(({ rtpTimestamp }, i) => (rtpTimestamp - (arrived.video[i]?.rtpTimestamp ?? 0) + 2 ** 32) % 2 ** 32);
    expect(Math.max(...steps)).toBeLessThanOrEqual(3001);

    const file = await server.received(streamId);
    const pictures = await readFrames(file);
    expect(uniqueFrames(pictures)).toMatchObject({ missing: 0 });
    const { median } = summary(flashBeepOffsets(pictures, await readBeeps(file)));
    expect(Math.abs(median)).toBeLessThan(40);
    for (const secret of ['secret-token', 'secret-code']) expect(lines.join('\n')).not.toContain(secret);
  }, 40_000);

  test('gives a key frame where the receiver asks for one, and keeps to the bit rate of a narrow way', async () => {
    const { push, session, is, frames, wanted, bitrates } = publish();
    await is('live');
    // the one that it began with is behind it
    await frames(session(), RATE);
    const [before, keys] = [wanted(), session().video.filter(({ key }) => key).length];
    await session().askForKeyFrame();
    await server.until('the request', () => push.stats().keyFrameRequests > 0 && wanted() > before);
    await server.until('a key frame', () => session().video.filter(({ key }) => key).length > keys);

    Object.assign(server.faults, { network: { up: { bandwidth: 900_000, queue: 300 } } });
    await server.until('a lower bit rate', () => (bitrates.at(-1) ?? Infinity) < 900_000, 20_000);
    // the source doesn't obey, so pictures are left out; the others arrive
    await server.until('pictures left out', () => push.stats().framesDropped > 0, 20_000);
    await frames(session(), session().video.length + 10);
  }, 50_000);

  test('bears losses of 5 % on a way of 100 ms', async () => {
    Object.assign(server.faults, { network: { loss: 0.05, delay: 100 } });
    const { push, session, is, playing } = publish();
    await is('live');
    const from = playing.given();
    await server.until('four seconds', () => playing.given() - from > 4 * RATE, 30_000);
    playing.stop();
    await server.until('the last of them', () => session().video.length >= 0.8 * 4 * RATE);
    const { video } = session();
    const times = video.map(({ arrived }) => arrived);
    const gaps = times.slice(1).map((time, i) => time - (times[i] as number));
    expect(Math.max(...gaps)).toBeLessThan(2000);
    expect(push.stats().packetsResent).toBeGreaterThan(10);
    expect(push.stats().roundTrip).toBeGreaterThan(0.19);
  }, 60_000);

  test('knows every error of the server, and goes on where that may help', async () => {
    expect([...definitions].sort()).toEqual([...errorDefinitions].sort());
    for (const definition of definitions) {
      server.faults.publishError = definition as (typeof errorDefinitions)[number];
      const { states, push } = publish({ iceServers: [] }, { times: { firstRetry: 60_000, lastRetry: 60_000 } });
      await server.until('its end', () => ['failed', 'reconnecting'].includes(states.at(-1)?.state ?? ''));
      const { code } = definitionError(definition, 'x');
      expect(states.at(-1), definition).toMatchObject({ code, state: errorKinds[code].retryable ? 'reconnecting' : 'failed' });
      expect(states.at(-1)?.message).toContain(definition);
      await push.stop();
    }
    expect(definitionError('unauthorized_access', 'x').kind).toMatchObject({ blame: 'caller', retryable: false });
    expect(definitionError('highResourceUsage', 'x').kind).toMatchObject({ blame: 'target', retryable: true });
    expect(definitionError('somethingNew', 'x')).toMatchObject({ code: 'push_server_failed' });
    expect(definitionError('toString', 'x')).toMatchObject({ code: 'push_server_failed' });
  }, 60_000);

  test('comes back after the server was restarted, with a key frame, also where its stream id is still in use for a while', async () => {
    const { push, streamId, states, is, frames, session } = publish();
    await is('live');
    await frames(session(), 10);
    const cut = performance.now();
    await server.restart(1000);
    await is('live');
    expect(performance.now() - cut).toBeLessThan(10_000);
    await frames(session(), 10);
    expect(session().video[0]?.key).toBe(true);
    expect(states.map(({ state }) => state)).toEqual(expect.arrayContaining(['reconnecting', 'live']));

    server.faults.holdsId = 1500;
    server.closeSockets('reset');
    await server.until('that it is in use', () => states.some(({ code }) => code === 'push_stream_in_use'));
    await is('live');
    expect(push.stats().reconnects).toBe(2);
    expect(server.streams.get(streamId)?.sessions.length).toBeGreaterThanOrEqual(3);
    await push.stop();
    expect(states.at(-1)).toMatchObject({ state: 'ended', code: null });
  }, 60_000);

  test('believes nobody who only says that it is published: it publishes anew until media flows', async () => {
    server.faults.ice = 'dead';
    const { names, is, streamId, lines } = publish({}, { times: { ice: 700 } });
    await server.until('a second publish', () => (server.streams.get(streamId)?.sessions.length ?? 0) >= 2);
    expect(lines.some((line) => line.includes('publish_started'))).toBe(true);
    expect(names()).toEqual(['connecting']);
    Object.assign(server.faults, { ice: 'works' });
    await is('live');
  }, 40_000);

  test('takes a socket that answers no ping for dead', async () => {
    server.faults.pong = false;
    const { states, is } = publish({}, { times: { ping: 150, firstRetry: 50 } });
    await server.until('the loss', () => states.some(({ code, message }) => code === 'push_unreachable' && message.includes('silent')));
    server.faults.pong = true;
    await is('live');
  }, 40_000);

  test('is stopped at any time', async () => {
    const early = publish();
    await early.push.stop();
    expect(early.names()).toEqual(['connecting', 'ended']);
    server.faults.start = 'never';
    const asked = publish();
    await server.until('its publish', () => server.messages.some(({ message }) => typeof message === 'object' && message.command === 'publish' && message.streamId === asked.streamId));
    await asked.push.stop();
    expect(asked.names()).toEqual(['connecting', 'ended']);
  }, 20_000);
});
