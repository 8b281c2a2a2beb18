/** The stand-in itself, published to by another Chromium with the messages of Ant Media's SDK. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import { flashBeepOffsets, probe, readBeeps, readFrames, summary, uniqueFrames } from '../helpers/analyse.ts';
import { createAuthority } from '../helpers/certificates.ts';
import { lacks } from '../helpers/service.ts';
import { nginx } from '../proxies/nginx.ts';
import { startProxy } from '../proxies/proxy.ts';
import { startPublishers, type PagePublisher, type Publishers } from './publisher.ts';
import { opusDuration } from './received-file.ts';
import { readSenderReports, startReceiver, type Receiver } from './receiver.ts';
import { errorDefinitions, noFaults, startAntMedia, type AntMedia, type Faults, type Session } from './server.ts';
import type { Message } from './signalling.ts';

const skipped = await lacks('chromium', 'ffmpeg');
const unproxied = await lacks('openssl', 'nginx');

describe.skipIf(skipped)('a stand-in for an Ant Media Server', { timeout: 15_000 }, () => {
  let receiver: Receiver;
  let server: AntMedia;
  let publishers: Publishers;
  /** What a browser offered. */
  let offer: string;
  let gone: Session;
  let count = 0;

  beforeAll(async () => {
    [receiver, publishers] = await Promise.all([startReceiver(), startPublishers()]);
    server = await startAntMedia({ receiver });
    // found out while the others go on
    await publishers.publish(server.websocketUrl, 'gone');
    gone = await server.until('a session', () => server.streams.get('gone')?.sessions[0]);
    await flowing(gone, 5);
    gone.network = { loss: 1 };
  }, 30_000);
  afterAll(async () => {
    await publishers?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
    await receiver?.[Symbol.asyncDispose]();
  });
  afterEach(() => {
    Object.assign(server.faults, noFaults);
  });

  const fault = (faults: Partial<Faults>) => Object.assign(server.faults, faults);
  const fresh = () => `s${(count += 1)}`;
  const publish = async (streamId: string, onEnd = onTestFinished): Promise<{ publisher: PagePublisher; session: Session }> => {
    const publisher = await publishers.publish(`${server.websocketUrl}?target=origin`, streamId);
    onEnd(() => publisher[Symbol.asyncDispose]());
    return { publisher, session: await server.until('a session', () => server.streams.get(streamId)?.sessions.at(-1)) };
  };
  const flowing = (session: Session, more = 15) => {
    const before = session.video.length;
    return server.until(`${more} more frames`, () => session.video.length >= before + more);
  };

  /** A client of words alone. */
  const dial = async (url = server.websocketUrl) => {
    const socket = new WebSocket(url);
    onTestFinished(() => socket.terminate());
    const got: Message[] = [];
    const closed = new Promise<number>((resolve) => socket.on('close', resolve));
    socket.on('error', () => undefined);
    socket.on('message', (data) => got.push(JSON.parse((data as Buffer).toString()) as Message));
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    const say = (message: unknown) => socket.send(typeof message === 'string' ? message : JSON.stringify(message));
    return {
      socket,
      got,
      closed,
      say,
      /** What the server says to it, up to its pong to a ping that is sent after it. */
      async ask(message: unknown): Promise<Message[]> {
        got.length = 0;
        say(message);
        // what it does beside takes it a moment
        await sleep(30);
        say({ command: 'ping' });
        await server.until('pong', () => got.some(({ command }) => command === 'pong'));
        return got.filter(({ command }) => command !== 'pong');
      },
      heard: (word: string) => server.until(word, () => got.find(({ command, definition }) => command === word || definition === word)),
    };
  };
  const started = async (streamId = fresh()) => {
    const client = await dial();
    client.say({ command: 'publish', streamId, video: true, audio: true });
    await client.heard('start');
    return { ...client, streamId };
  };

  describe.concurrent('with a browser for a publisher', () => {
    it('keeps what a browser publishes, in step, and tells it what the real one tells', async ({ onTestFinished: onEnd }) => {
      const streamId = fresh();
      const { publisher, session } = await publish(streamId, onEnd);
      await flowing(session, 40);
      offer = session.offer ?? '';
      const keys = () => session.video.filter(({ key }) => key).length;
      const before = keys();
      await session.askForKeyFrame();
      await server.until('another key frame', () => keys() > before);
      await server.until('reports on both clocks', () => session.timing().audio.by === 'sender reports', 8000);
      expect((await session.stats('video'))?.['framesDecoded']).toBeGreaterThan(0);

      const put = (query: string) => fetch(`${server.url.replace('ws', 'http')}/LiveApp/rest/v2/broadcasts/${streamId}/recording/true${query}`, { method: 'PUT' });
      expect(await (await put('?recordType=mp4')).json()).toMatchObject({ success: true });
      expect(await (await put('?recordType=mp4')).json()).toMatchObject({ success: false, message: "mp4 recording couldn't be started" });
      expect(await (await put('?recordType=flv')).json()).toMatchObject({ success: false });
      expect(server.restCalls.find((call) => call.streamId === streamId)).toMatchObject({ recording: true, recordType: 'mp4' });

      await publisher.send(JSON.stringify({ command: 'stop', streamId }));
      await server.until('the end', () => session.ended);
      expect(session.ended).toBe('stop');
      // the publisher hears of it a moment later
      let said = await publisher.messages();
      for (const until = Date.now() + 5000; said.at(-1)?.definition !== 'publish_finished' && Date.now() < until; said = await publisher.messages()) await sleep(50);
      expect(said.map(({ command, definition }) => definition ?? command).filter((word) => word !== 'takeCandidate')).toEqual([
        'start', 'publish_started', 'takeConfiguration', 'publish_finished',
      ]);
      const candidate = said.find(({ command }) => command === 'takeCandidate');
      expect(candidate).toMatchObject({ label: 0, id: '0', candidate: expect.stringMatching(/^candidate:\d+ 1 udp \d+ 127\.0\.0\.1 \d+ typ host/) });

      const file = await server.received(streamId);
      const { video, audio } = await probe(file);
      // what is sent again may come twice, and late; what is older than the first key frame can't be played
      const zero = session.video[0]?.rtpTimestamp ?? 0;
      const since = ({ rtpTimestamp }: { rtpTimestamp: number }) => (rtpTimestamp - zero) | 0;
      const firstKey = Math.min(...session.video.filter(({ key }) => key).map(since));
      const playable = new Set(session.video.map(since).filter((time) => time >= firstKey));
      expect(video).toMatchObject({ codec: 'h264', width: 640, height: 360, frames: playable.size });
      expect(audio).toMatchObject({ codec: 'opus', sampleRate: 48_000 });
      const frames = await readFrames(file);
      const beeps = await readBeeps(file);
      expect(uniqueFrames(frames)).toMatchObject({ unreadable: 0, backwards: 0 });
      const offsets = flashBeepOffsets(frames, beeps);
      expect(offsets.length).toBeGreaterThanOrEqual(1);
      // a page's beeps come through its audio buffers, a frame is drawn when there is time
      expect(Math.abs(summary(offsets).median)).toBeLessThan(80);
      const { video: picture, audio: sound } = session.timing();
      expect(Math.max(picture.spread, sound.spread)).toBeLessThan(0.02);
      expect(Math.max(Math.abs(picture.lag), Math.abs(sound.lag))).toBeLessThan(2);
    });

    it('asks for a key frame by itself after a gap, as it would if nobody looked at the frames', async ({ onTestFinished: onEnd }) => {
      const { session } = await publish(fresh(), onEnd);
      await flowing(session);
      session.network = { up: { loss: 1 } };
      // longer than senders keep what they may be asked for again
      await sleep(2500);
      const last = session.video.length;
      session.network = null;
      await server.until('a key frame', () => session.video.slice(last).some(({ key }) => key));
      expect((await session.stats('video'))?.['pliCount']).toBeGreaterThanOrEqual(1);
    });

    it('loses, delays and narrows as it is told', async ({ onTestFinished: onEnd }) => {
      const { session, publisher } = await publish(fresh(), onEnd);
      session.network = { loss: 0.05, delay: 20, jitter: 5 };
      await flowing(session, 20);
      const { up, down } = session.relay;
      expect(up.lost / (up.lost + up.passed)).toBeGreaterThan(0.01);
      expect(down.passed).toBeGreaterThan(0);
      expect((await session.stats('video'))?.['nackCount']).toBeGreaterThan(0);
      session.network = { up: { bandwidth: 100_000, queue: 100 } };
      const bytes = up.bytes;
      await sleep(1000);
      expect((up.bytes - bytes) * 8).toBeLessThan(130_000);
      expect((await publisher.stats())['packetsSent']).toBeGreaterThan(0);
    });
  });

  it('never connects where its candidates lead nowhere', async () => {
    fault({ ice: 'dead' });
    const { session } = await publish(fresh());
    await server.until('publish_started', () => server.messages.some(({ message }) => (message as Message)['definition'] === 'publish_started' && (message as Message)['streamId'] === session.streamId));
    await server.until('packets', () => session.relay.up.lost > 3);
    expect(session).toMatchObject({ video: [], relay: { up: { passed: 0 }, down: { passed: 0 } } });
    expect(session.iceStates).not.toContain('connected');
  });

  it('answers what the real one answers, and is silent where that is', async () => {
    const { ask, streamId } = await started();
    expect(await ask({ command: 'getIceServerConfig' })).toEqual([
      { command: 'iceServerConfig', stunServerUri: '', turnServerUsername: '', turnServerCredential: '' },
    ]);
    expect(await ask({ command: 'publish', video: true })).toEqual([{ command: 'error', definition: 'noStreamNameSpecified' }]);
    expect(await ask({ command: 'stop', streamId: '' })).toEqual([{ command: 'error', definition: 'noStreamNameSpecified' }]);
    expect(await ask({ command: 'publish', streamId: 'a b', video: true })).toEqual([{ command: 'error', definition: 'invalidStreamName', streamId: 'a b' }]);
    expect(await ask({ command: 'publish', streamId, video: true })).toEqual([{ command: 'error', definition: 'already_publishing', streamId }]);
    const dropped = [
      'no JSON',
      '[]',
      {},
      { command: 7 },
      { command: 'publish', streamId: 7, video: true },
      { command: 'publish', streamId: 'other', video: 'true' },
      { command: 'stop', streamId: 'other' },
      { command: 'takeConfiguration', streamId: 'other', type: 'offer', sdp: offer },
      { command: 'takeConfiguration', streamId, type: 'offer' },
      { command: 'takeConfiguration', streamId, type: 'offer', sdp: 'v=0' },
      { command: 'takeConfiguration', streamId, type: 'offer', sdp: offer.replaceAll('opus/48000/2', 'opus/48000') },
      { command: 'takeConfiguration', streamId, type: 'offer', sdp: offer.replace(/a=rtpmap:.*\r\n/, '') },
      { command: 'takeConfiguration', streamId, type: 'pranswer', sdp: offer },
      { command: 'takeCandidate', streamId, label: '0', id: '0', candidate: 'candidate:1 1 udp 1 127.0.0.1 9 typ host' },
      `{"command":"takeCandidate","streamId":"${streamId}","label":0.0,"id":"0","candidate":""}`,
    ];
    for (const message of dropped) expect(await ask(message), JSON.stringify(message).slice(0, 150)).toEqual([]);
    const ignored = () => server.messages.filter((message) => message.ignored !== undefined).length;
    await server.until('all to be dropped', () => ignored() >= dropped.length);
    expect(ignored()).toBe(dropped.length);
    expect(await ask({ command: 'takeCandidate', streamId, label: 0, id: '0', candidate: 'candidate:1 1 udp 1 127.0.0.1 9 typ host' })).toEqual([]);
    expect(server.streams.get(streamId)?.sessions[0]?.candidates).toHaveLength(1);
    expect(await ask({ command: 'stop', streamId })).toEqual([{ command: 'notification', definition: 'publish_finished', streamId, subscriberId: '' }]);
  });

  it('lets nobody else publish a stream, for as long as it is told after a socket was lost', async () => {
    fault({ holdsId: 300 });
    const { streamId, socket } = await started();
    const second = await dial();
    const refused = [{ command: 'error', definition: 'streamIdInUse', streamId }];
    expect(await second.ask({ command: 'publish', streamId, video: true })).toEqual(refused);
    socket.terminate();
    await server.until('the end', () => server.streams.get(streamId)?.sessions[0]?.ended === 'socket');
    expect(await second.ask({ command: 'publish', streamId, video: true })).toEqual(refused);
    await sleep(300);
    second.say({ command: 'publish', streamId, video: true });
    await second.heard('start');
  });

  it('refuses with each error, at once and later', async () => {
    const client = await dial();
    for (const definition of errorDefinitions) {
      fault({ publishError: definition });
      client.got.length = 0;
      client.say({ command: 'publish', streamId: 'refused', video: true });
      expect(await client.heard(definition)).toEqual({ command: 'error', definition, streamId: 'refused' });
    }
    expect(server.streams.has('refused')).toBe(false);
    fault({ publishError: null, laterError: { definition: 'encoderBlocked', at: 'start', after: 50 } });
    const later = await started();
    await later.heard('publish_finished');
    expect(later.got.map(({ command, definition }) => definition ?? command)).toEqual(['start', 'encoderBlocked', 'publish_finished']);
    fault({ laterError: null });
    const byHand = await started();
    server.sendError(byHand.streamId, 'highResourceUsage');
    await byHand.heard('highResourceUsage');
  });

  it('starts and answers late, in another order, or never', async () => {
    const words = ({ got }: { got: Message[] }) => got.map(({ command }) => command);
    const offering = async () => {
      const client = await started();
      client.say({ command: 'takeConfiguration', streamId: client.streamId, type: 'offer', sdp: offer });
      await client.heard('publish_started');
      return client;
    };
    fault({ start: 'never', pong: false });
    const mute = await dial();
    mute.say({ command: 'publish', streamId: fresh(), video: true });
    mute.say({ command: 'ping' });
    fault({ start: 'never', answer: 'never' });
    await sleep(150);
    expect(mute.got).toEqual([]);
    fault({ start: 150, pong: true });
    const asked = Date.now();
    const unanswered = await offering();
    expect(Date.now() - asked).toBeGreaterThanOrEqual(150);
    await sleep(150);
    expect(words(unanswered)).toEqual(['start', 'notification']);
    fault({ start: 0, answer: 200 });
    const late = await offering();
    await sleep(100);
    expect(words(late)).not.toContain('takeConfiguration');
    await late.heard('takeCandidate');
    expect(words(late).slice(0, 4)).toEqual(['start', 'notification', 'takeConfiguration', 'takeCandidate']);
    fault({ answer: 0, candidatesFirst: true });
    const other = await offering();
    await other.heard('takeConfiguration');
    expect(words(other).slice(0, 3)).toEqual(['start', 'notification', 'takeCandidate']);
  });

  it('closes sockets when it is told, which ends what they publish', async () => {
    fault({ close: { at: 'start', after: 20, how: 1011 } });
    const closing = await started();
    expect(await closing.closed).toBe(1011);
    await server.until('the end', () => server.streams.get(closing.streamId)?.sessions[0]?.ended === 'socket');
    fault({ close: { at: 'open', how: 'reset' } });
    const reset = await dial().catch((error: Error) => error);
    expect(reset instanceof Error ? 1006 : await reset.closed).toBe(1006);
    fault({ close: null, handshake: 503 });
    await expect(dial()).rejects.toThrow('503');
    fault({ handshake: null });
    await expect(dial(`${server.url}/Other/websocket`)).rejects.toThrow('404');
    expect(server.requests.slice(-2)).toMatchObject([{ status: 503 }, { url: '/Other/websocket', status: 404 }]);
  });

  it('ends a stream whose path is gone, as libwebrtc finds out', async () => {
    await server.until('the end', () => gone.ended, 12_000);
    expect(gone).toMatchObject({ ended: 'ice', iceStates: ['checking', 'connected', 'disconnected'] });
    expect(server.messages.findLast(({ message }) => (message as Message)['streamId'] === 'gone')?.message).toMatchObject({ definition: 'publish_finished' });
  });

  it.skipIf(unproxied)('tells, behind a proxy, which address was dialled, and what the proxy made of it', async () => {
    await using authority = await createAuthority();
    const leaf = await authority.issue(['media.example.com', '127.0.0.1']);
    await using proxy = await startProxy(nginx, leaf, server.port);
    await using own = await startAntMedia({ receiver, tls: leaf, token: 'right' });
    const exchange = (url: string, message: object, headers = {}) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(url, { ca: authority.ca, headers });
        socket.on('error', reject).on('open', () => socket.send(JSON.stringify(message)));
        socket.on('message', (data) => {
          resolve(JSON.parse((data as Buffer).toString()));
          socket.close();
        });
      });
    const ping = { command: 'ping' };
    expect(await exchange(`wss://127.0.0.1:${proxy.ports.single}/LiveApp/websocket?target=origin`, ping, { host: 'media.example.com' })).toEqual({ command: 'pong' });
    expect(server.requests.at(-1)).toMatchObject({
        url: '/LiveApp/websocket?target=origin',
        host: 'media.example.com',
        forwarded: { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'media.example.com', 'x-forwarded-for': '127.0.0.1' },
        status: 101,
    });
    const unauthorized = await exchange(own.websocketUrl, { command: 'publish', streamId: 's', token: 'wrong', video: true });
    expect(unauthorized).toEqual({ command: 'error', definition: 'unauthorized_access', streamId: 's' });
    await expect(new Promise((_resolve, reject) => void new WebSocket(own.websocketUrl).on('error', reject))).rejects.toThrow('certificate');
  });

  it('says that it will stop, goes away, and comes back on the same port', async () => {
    const { session } = await publish(fresh());
    await flowing(session, 5);
    const told = await started();
    const stopping = server.willStop(50);
    await told.heard('server_will_stop');
    expect(await told.closed).toBe(1001);
    await stopping;
    const cut = await started();
    const back = server.restart(200);
    expect(await cut.closed).toBe(1006);
    await expect(dial()).rejects.toThrow('ECONNREFUSED');
    await back;
    expect(await (await started(cut.streamId)).ask({ command: 'ping' })).toEqual([]);
    expect(server.streams.get(cut.streamId)?.sessions).toMatchObject([{ ended: 'server' }, { ended: null }]);
    // what had come before is kept
    await server.received(session.streamId);
  });
});

describe('what arrived', () => {
  it('reads sender reports out of a packet dump', () => {
    const report = '80 c8 00 06 00 00 00 2a ee ae 7b 00 80 00 00 00 00 01 5f 90 00 00 00 05 00 00 01 00';
    expect(readSenderReports(`[1:2:VERBOSE3] I 04:05:06.789 000000 ${report} # RTCP_DUMP`)).toMatchObject([
      { source: 42, ntp: 0xee_ae_7b_00 + 0.5, rtpTimestamp: 90_000, packets: 5, octets: 256 },
    ]);
    expect(readSenderReports(`O 04:05:06.789 000000 ${report} # RTCP_DUMP`)).toEqual([]);
    expect(readSenderReports('I 04:05:06.789 000000 80 6f 00 06 00 00 00 2a # RTP_DUMP')).toEqual([]);
  });

  it('knows how long an Opus packet is', () => {
    expect([0x78, 0x7a, 0x08, 0xf8].map((toc) => opusDuration(new Uint8Array([toc])))).toEqual([0.02, 0.04, 0.02, 0.02]);
    expect(opusDuration(new Uint8Array([0x7b, 3]))).toBeCloseTo(0.06);
  });
});
