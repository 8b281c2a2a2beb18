/** The parts of a push that need no server: what goes into packets, what the way bears, and who is sent a packet at all. */
import { createSocket, Socket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpsServer } from 'node:https';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { RTCPeerConnection, useH264, useOPUS } from 'werift';
import { WebSocketServer } from 'ws';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createLog } from '../../shared/log.ts';
import type { Judge } from '../../shared/outbound/policy.ts';
import { createAuthority, hasOpenssl } from '../helpers/certificates.ts';
import { openTo, openToAll } from '../helpers/judges.ts';
import { createGuard } from '../../worker/push/guard.ts';
import { nalUnits, packetize, parameterSets } from '../../worker/push/h264.ts';
import { setUpIce } from '../../worker/push/ice-servers.ts';
import { createPacer } from '../../worker/push/pacer.ts';
import { createPeer } from '../../worker/push/peer.ts';
import { createAntMediaPush, type PushState } from '../../worker/push/push.ts';
import { createRateControl, type PacketFate } from '../../worker/push/rate.ts';
import { createRtpStream, ntpZero } from '../../worker/push/rtp-stream.ts';

const quiet = createLog('error', () => undefined);
const unit = (type: number, length: number) => Buffer.concat([Uint8Array.of(0x60 | type), Buffer.alloc(length - 1, length)]);
const accessUnit = (...units: Uint8Array[]) =>
  Buffer.concat(units.flatMap((each) => [Buffer.from([each.length >> 24, (each.length >> 16) & 255, (each.length >> 8) & 255, each.length & 255]), each]));
const sps = Buffer.from([0x67, 0x42, 0xc0, 0x1f, 1, 2, 3]);
const pps = Buffer.from([0x68, 4, 5]);
const description = Buffer.from([1, 0x42, 0xc0, 0x1f, 0xff, 0xe1, 0, sps.length, ...sps, 1, 0, pps.length, ...pps]);

describe('H.264 in RTP', () => {
  /** As RFC 6184 has it put together again. */
  const receive = (payloads: readonly Buffer[]): Buffer[] => {
    const units: Buffer[] = [];
    for (const payload of payloads) {
      const type = (payload[0] as number) & 0x1f;
      if (type === 24) {
        for (let at = 1; at < payload.length; at += 2 + payload.readUInt16BE(at)) units.push(payload.subarray(at + 2, at + 2 + payload.readUInt16BE(at)));
      } else if (type === 28) {
        const edges = payload[1] as number;
        if (edges & 0x80) units.push(Buffer.from([((payload[0] as number) & 0x60) | (edges & 0x1f)]));
        units.push(Buffer.concat([units.pop() as Buffer, payload.subarray(2)]));
      } else units.push(payload);
    }
    return units;
  };

  test('comes out as it went in, parameter sets before a key frame, no packet too large', () => {
    const sets = parameterSets(description);
    expect(sets).toEqual({ units: [sps, pps], profileLevelId: '42c01f' });
    for (const sizes of [[5], [999], [1000], [1001], [1999, 3], [50_000], [2, 3, 4, 5000, 6]]) {
      const units = sizes.map((size) => unit(5, size));
      const payloads = packetize(accessUnit(unit(9, 2), ...units), sets, 1000);
      expect(receive(payloads), String(sizes)).toEqual([sps, pps, ...units]);
      expect(Math.max(...payloads.map(({ length }) => length))).toBeLessThanOrEqual(1000);
      expect((payloads[0]?.[0] ?? 0) & 0x1f).toBe(24);
      expect(receive(packetize(accessUnit(...units), null, 1000))).toEqual(units);
    }
    // what brings its own has them once
    expect(receive(packetize(accessUnit(sps, pps, unit(5, 10)), sets, 1000))).toEqual([sps, pps, unit(5, 10)]);
  });

  test('refuses what is broken', () => {
    expect(() => nalUnits(Buffer.from([0, 0, 0, 9, 1]))).toThrow(RangeError);
    expect(() => nalUnits(Buffer.from([0, 0, 0]))).toThrow(RangeError);
    expect(() => parameterSets(Buffer.from([1, 66, 0, 31, 0xff, 0xe1, 0, 90, 1]))).toThrow(RangeError);
  });
});

describe('an RTP stream', () => {
  test('maps both kinds to one clock, keeps packets, and knows the round trip', () => {
    const now = 5_000_000;
    const zero = ntpZero(now, Date.UTC(2026, 10, 23));
    const stream = createRtpStream({ ssrc: 7, payloadType: 96, clockRate: 90_000, rtx: { ssrc: 8, payloadType: 97 }, cname: 'x', ntpZero: zero, history: 16 });
    const out: { payload: Buffer; sequence: number; timestamp: number; ssrc: number; type: number }[] = [];
    const write = (payload: Buffer, { sequenceNumber, timestamp, ssrc, payloadType }: { sequenceNumber: number; timestamp: number; ssrc: number; payloadType: number }) =>
      out.push({ payload, sequence: sequenceNumber, timestamp, ssrc, type: payloadType });
    for (let i = 0; i < 20; i += 1) stream.send(Buffer.from([i]), now + i * 100_000, true, write);
    expect((((out[1]?.timestamp ?? 0) - (out[0]?.timestamp ?? 0)) + 2 ** 32) % 2 ** 32).toBe(9000);
    const [report] = stream.report(now + 1_000_000);
    expect((report.senderInfo.rtpTimestamp - (out[0]?.timestamp ?? 0) + 2 ** 32) % 2 ** 32).toBe(90_000);
    expect(Number(report.senderInfo.ntpTimestamp >> 32n)).toBe((Date.UTC(2026, 10, 23) - Date.UTC(1900, 0, 1)) / 1000 + 1);
    const lsr = Number((report.senderInfo.ntpTimestamp >> 16n) & 0xffffffffn);
    const info = { ssrc: 7, lsr, dlsr: 32_768, packetsLost: 3, fractionLost: 0, highestSequence: 0, jitter: 0 };
    expect(stream.reported(info as never, now + 1_600_000)).toBeCloseTo(0.1, 3);
    expect(stream.reported({ ...info, lsr: 1 } as never, now)).toBeNull();
    // the last 16 are kept
    const last = out[19]?.sequence ?? 0;
    expect(stream.resend(out[3]?.sequence ?? 0, write)).toBe(false);
    expect(stream.resend(last, write)).toBe(true);
    const again = out.at(-1);
    expect(again).toMatchObject({ ssrc: 8, type: 97, timestamp: out[19]?.timestamp });
    expect(again?.payload).toEqual(Buffer.from([last >> 8, last & 255, 19]));
  });
});

describe('pacing', () => {
  test('spreads a key frame, lets sound through, and drops what is told', async () => {
    const pacer = createPacer(() => 800_000);
    onTestFinished(() => pacer.close());
    const left: string[] = [];
    const packet = (name: string) => ({ bytes: 1000, send: () => void left.push(name) });
    pacer.picture(Array.from({ length: 100 }, (_, i) => packet(`v${i}`)));
    expect(left.length).toBeLessThan(10);
    pacer.sound(packet('a'));
    expect(left.at(-1)).toBe('a');
    await sleep(60);
    pacer.again(packet('again'));
    await sleep(60);
    // 100 bytes a millisecond: a second for all of it
    expect(left.length).toBeLessThan(90);
    expect(left).toContain('again');
    expect(pacer.waited()).toBeGreaterThan(100);
    expect(pacer.dropPictures()).toBe(1);
    expect(pacer.waited()).toBe(0);
  });
});

describe('the bit rate', () => {
  /** Feeds feedback each 50 ms of a way that loses a share, and whose queue grows by so much. */
  const simulate = (seconds: number, way: (at: number) => { loss: number; delay: number }, packets = 20) => {
    const told: number[] = [];
    const rate = createRateControl({ most: 3e6, least: 1e5, changed: (to) => told.push(to) });
    for (let at = 0; at < seconds * 1000; at += 50) {
      const { loss, delay } = way(at);
      const fates: PacketFate[] = Array.from({ length: packets }, (_, i) => ({ sentAt: at, bytes: 1000, receivedAt: i < loss * packets ? null : at + 777_000 + delay }));
      rate.fates(fates, at + 100);
    }
    return { told, target: rate.target() };
  };

  test('stays where nothing or little is lost', () => {
    expect(simulate(10, () => ({ loss: 0, delay: 50 }))).toEqual({ told: [], target: 3e6 });
    expect(simulate(10, () => ({ loss: 0.05, delay: 50 }))).toEqual({ told: [], target: 3e6 });
  });

  test('falls with losses and with a queue that fills, and comes back', () => {
    expect(simulate(5, () => ({ loss: 0.3, delay: 50 })).target).toBeLessThan(1.5e6);
    expect(simulate(5, (at) => ({ loss: 0, delay: 50 + at / 10 }), 8).target).toBeLessThan(2e6);
    const { told, target } = simulate(60, (at) => ({ loss: at < 3000 ? 0.3 : 0, delay: 50 }));
    expect(Math.min(...told)).toBeLessThan(2.5e6);
    expect(target).toBe(3e6);
    expect(told.at(-1)).toBe(3e6);
  });
});

describe('what may not be dialled', () => {
  const canary = async () => {
    const socket = createSocket('udp4');
    const got: string[] = [];
    socket.on('message', (_data, { port }) => got.push(String(port)));
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    onTestFinished(() => void socket.close());
    return { socket, port: socket.address().port, got };
  };

  /** A peer that has its answer, and is told of these candidates. */
  const peerTold = async (candidates: readonly string[], mayDial: (address: string, port: number) => boolean) => {
    const peer = await createPeer({
      ice: { servers: [], stun: false, tls: null, open: [], additionalHosts: ['127.0.0.1'] },
      guard: createGuard('server.test', openTo(mayDial)),
      profileLevelId: '42e01f',
      audio: true,
      log: quiet,
      events: { candidate() {}, connected() {}, lost() {}, keyFrameWanted() {}, missing() {}, fates() {}, report() {}, estimate() {} },
    });
    const other = new RTCPeerConnection({ iceServers: [], codecs: { video: [useH264()], audio: [useOPUS()] } });
    onTestFinished(async () => {
      await peer.close();
      await other.close();
    });
    await other.setRemoteDescription({ type: 'offer', sdp: await peer.offer() });
    const { sdp } = await other.createAnswer();
    // in the description, and after it
    const [inside, ...later] = candidates;
    await peer.answer(`${sdp.replaceAll(/a=candidate:.*\r?\n/g, '').replace(/^(a=mid:0\r?\n)/m, `$1a=${inside}\r\n`)}`);
    for (const candidate of later) await peer.candidate(candidate, 0, '0');
    await sleep(700);
  };
  test('nobody else is asked, and who asks us is answered only where that is allowed', async () => {
    const [allowed, refused] = [await canary(), await canary()];
    const sent: string[] = [];
    const { send } = Socket.prototype;
    Socket.prototype.send = function (this: Socket, ...args: unknown[]) {
      sent.push(String(args.find((arg) => typeof arg === 'string')));
      return (send as (...all: unknown[]) => void).apply(this, args);
    } as never;
    onTestFinished(() => void (Socket.prototype.send = send));
    const found: string[] = [];
    const peer = await createPeer({
      ice: { servers: [], stun: false, tls: null, open: [], additionalHosts: ['127.0.0.1'] },
      guard: createGuard('server.test', openTo((_address, port) => port === allowed.port)),
      profileLevelId: '42e01f',
      audio: true,
      log: quiet,
      events: { candidate: ({ candidate }) => found.push(candidate), connected() {}, lost() {}, keyFrameWanted() {}, missing() {}, fates() {}, report() {}, estimate() {} },
    });
    onTestFinished(() => peer.close());
    await peer.offer();
    await expect.poll(() => found.some((each) => each.includes(' 127.0.0.1 '))).toBe(true);
    await sleep(200);
    expect(sent).toEqual([]);
    const port = Number(/ 127\.0\.0\.1 (\d+) /.exec(found.join('\n'))?.[1]);
    // a binding request (RFC 8489) with a user's name
    const request = Buffer.from('000100082112a442000102030405060708090a0b00060004613a6262', 'hex');
    refused.socket.send(request, port, '127.0.0.1');
    await sleep(100);
    // the first finds a judge who has not heard of it: whoever means it asks again
    await expect
      .poll(() => {
        allowed.socket.send(request, port, '127.0.0.1');
        return allowed.got.length;
      })
      .toBeGreaterThan(0);
    expect(refused.got).toEqual([]);
  });

  const candidate = (host: string, port: number) => `candidate:${port} 1 udp 2122260223 ${host} ${port} typ host`;

  test('a candidate that is refused gets no packet; one that is allowed does', async () => {
    const [allowed, refused, inDescription] = [await canary(), await canary(), await canary()];
    await peerTold(
      [candidate('127.0.0.1', inDescription.port), candidate('127.0.0.1', refused.port), candidate('localhost', refused.port), candidate('abc.local', refused.port), candidate('127.0.0.1', allowed.port)],
      (address, port) => address === '127.0.0.1' && port === allowed.port,
    );
    expect(allowed.got.length).toBeGreaterThan(0);
    expect(refused.got).toEqual([]);
    expect(inDescription.got).toEqual([]);
  });

  test('an ICE server that is refused is not asked; all addresses of its name have to be allowed', async () => {
    const refused = await canary();
    const lookup = async (name: string) => (name === 'mixed.test' ? ['192.0.2.1', '127.0.0.1'] : ['192.0.2.1']);
    const { setup, problems } = await setUpIce(
      [{ urls: [`stun:127.0.0.1:${refused.port}`, 'stun:mixed.test', 'stun:good.test:3479', 'turn:good.test?transport=tcp', 'http://x'], username: 'u', credential: 'c' }],
      openTo((address) => address !== '127.0.0.1'),
      [],
      lookup,
    );
    expect(setup.servers).toEqual([
      { urls: 'stun:192.0.2.1:3479', username: 'u', credential: 'c' },
      { urls: 'turn:192.0.2.1:3478?transport=tcp', username: 'u', credential: 'c' },
    ]);
    expect(problems.map(({ denied }) => denied)).toEqual([true, true, false]);
    expect(refused.got).toEqual([]);
  });

  test.each([
    ['an address', (port: number) => `ws://127.0.0.1:${port}/app/websocket`],
    ['an address in disguise', (port: number) => `ws://0x7f.1:${port}/app/websocket`],
    ['a name', (port: number) => `ws://server.test:${port}/app/websocket`],
  ])('a server is not dialled by %s', async (_what, urlOf) => {
    let connections = 0;
    const server = createServer((socket) => {
      connections += 1;
      socket.destroy();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const attempt = async (judge: Judge) => {
      const states: [PushState, string | undefined][] = [];
      const push = createAntMediaPush(
        { type: 'antmedia', url: urlOf(port), streamId: 's' },
        { ca: null, codec: 'avc1.42001f', bitrate: 1e6, audio: true, log: quiet, onState: (state, error) => states.push([state, error?.code]), onKeyFrameWanted() {}, onBitrate() {}, judge, lookup: async () => ['127.0.0.1'] },
      );
      await expect.poll(() => states.length).toBeGreaterThan(1);
      await push.stop();
      return states[1];
    };
    expect(await attempt(openTo((address) => address !== '127.0.0.1'))).toEqual(['failed', 'push_forbidden']);
    expect(connections).toBe(0);
    expect(await attempt(openToAll)).toEqual(['reconnecting', 'push_unreachable']);
    expect(connections).toBe(1);
  });
});

test.skipIf(!hasOpenssl)('the certificate of the server is verified, by the authority that is given too', async () => {
  await using authority = await createAuthority();
  await using stranger = await createAuthority('somebody else');
  const leaf = await authority.issue(['127.0.0.1']);
  const server = createHttpsServer(leaf).listen(0, '127.0.0.1');
  const sockets = new WebSocketServer({ server });
  const heard: string[] = [];
  sockets.on('connection', (socket) => socket.on('message', (data) => heard.push((JSON.parse((data as Buffer).toString()) as { command: string }).command)));
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets.clients) socket.terminate();
    server.close();
  });
  const attempt = async (ca: string | null) => {
    const states: [PushState, string | undefined][] = [];
    const push = createAntMediaPush(
      { type: 'antmedia', url: `wss://127.0.0.1:${(server.address() as AddressInfo).port}/app/websocket`, streamId: 's', iceServers: [] },
      { ca, codec: 'avc1.42001f', bitrate: 1e6, audio: true, log: quiet, onState: (state, error) => states.push([state, error?.code]), onKeyFrameWanted() {}, onBitrate() {}, judge: openToAll, times: { stop: 50 } },
    );
    await expect.poll(() => states.length > 1 || heard.length > 0).toBe(true);
    await push.stop();
    return states[1];
  };
  expect(await attempt(null)).toEqual(['failed', 'push_tls']);
  expect(await attempt(stranger.ca)).toEqual(['failed', 'push_tls']);
  expect(heard).toEqual([]);
  expect(await attempt(authority.ca)).toEqual(['ended', undefined]);
  expect(heard[0]).toBe('publish');
});
