import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readEvents, type ServerEvent } from '../../bin/events.ts';
import { noStats, pageSecrets, pushStates } from '../../shared/recording.ts';
import type { PushStanding } from '../../shared/recording-store.ts';
import { unseal } from '../../shared/token.ts';
import { operator } from '../helpers/keys.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { eventually, testEdge, type TestEdge } from './harness.ts';

const url = 'https://example.com/';
const antmedia = (fields: Record<string, unknown> = {}) => ({ url, push: [{ type: 'antmedia', ...fields }] });
const proxied = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'rec.example.com:8443', 'x-forwarded-prefix': '/tabreel' };
const SECRETS = ['push-test-secrets-key-0123'];

let redis: TestRedis;
let edge: TestEdge;
let sealing: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  [edge, sealing] = await Promise.all([testEdge(redis, {}, { keyed: true }), testEdge(redis, { secretsKeys: SECRETS }, { keyed: true })]);
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await sealing[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const jobOf = async (on: TestEdge, id: string) => (await on.control.recordQueue.getJob(id))?.data;

describe('a request with pushes', () => {
  test('goes to the Ant Media Server behind the same host where it names none, without our path prefix', async () => {
    const { status, body } = await edge.post(antmedia(), proxied);
    expect(status, JSON.stringify(body)).toBe(202);
    const { spec, sealed } = (await jobOf(edge, body.id)) ?? {};
    expect(spec?.push).toEqual([{ type: 'antmedia', url: 'wss://rec.example.com:8443/LiveApp/websocket', streamId: expect.stringMatching(/^[A-Za-z0-9]{12}\d{13}$/) }]);
    expect(sealed).toBeNull();
    expect(body.mediaUrl).toContain('wss://rec.example.com:8443/tabreel/v1/');
    const other = await edge.post(antmedia({ app: 'live', streamId: 'a.b_c-1' }), proxied);
    expect((await jobOf(edge, other.body.id))?.spec.push[0]).toMatchObject({ url: 'wss://rec.example.com:8443/live/websocket', streamId: 'a.b_c-1' });
  });

  test('does not follow a caller who came in the clear over a network', async () => {
    const { status, body } = await edge.post(antmedia(), { 'x-forwarded-proto': 'http', 'x-forwarded-host': 'rec.example.com' });
    expect([status, body.code]).toEqual([421, 'origin_insecure']);
  });

  test('keeps credentials and the query of a URL sealed, and shows them to nobody', async () => {
    const push = {
      url: 'wss://media.example.com/live/websocket?key=Sesame1',
      streamId: 's1',
      token: 'Sesame2',
      subscriberId: 'me',
      subscriberCode: 'Sesame3',
      iceServers: [{ urls: 'turns:turn.example.com:443', username: 'u', credential: 'Sesame4' }],
      bitrate: 1_000_000,
    };
    const { status, body } = await sealing.post({ ...antmedia(push), headers: { 'X-Key': 'Sesame5' } });
    expect(status, JSON.stringify(body)).toBe(202);
    const job = await jobOf(sealing, body.id);
    expect(job?.spec.push).toEqual([{ type: 'antmedia', url: 'wss://media.example.com/live/websocket', streamId: 's1', subscriberId: 'me' }]);
    expect(job?.spec.videoBitrate).toBe(1_000_000);
    const secrets = pageSecrets.parse(await unseal(SECRETS, body.id, job?.sealed ?? ''));
    const { token, subscriberCode, iceServers } = push;
    expect(secrets).toEqual({ headers: { 'X-Key': 'Sesame5' }, cookies: [], push: [{ query: '?key=Sesame1', token, subscriberCode, iceServers }] });
    const shown = JSON.stringify([body, await sealing.get(body.id), job, sealing.logs, await sealing.control.store.get(body.id)]);
    expect(shown).not.toContain('Sesame');
  });

  test.each([
    [{ token: 't' }, 'push.0.token'],
    [{ subscriberCode: '123' }, 'push.0.subscriberCode'],
    [{ iceServers: [{ urls: 'stun:s.example.com' }] }, 'push.0.iceServers'],
    [{ url: 'wss://a.example.com/x?token=1' }, 'push.0.url'],
  ])('%o is refused where nothing can be sealed', async (fields, path) => {
    const { status, body } = await edge.post(antmedia(fields), proxied);
    expect(status).toBe(400);
    expect(body.errors).toEqual([{ path, message: expect.stringContaining('SECRETS_KEY') }]);
  });

  test.each([
    [antmedia({ url: 'ws://media.example.com/x' }), 'push.0.url', 'must be wss'],
    [antmedia({ url: 'https://media.example.com/x' }), 'push.0.url', 'must be a wss URL'],
    [antmedia({ url: 'wss://u:p@media.example.com/x' }), 'push.0.url', 'user name or password'],
    [antmedia({ url: '/LiveApp/websocket' }), 'push.0.url', 'absolute'],
    [antmedia({ url: 'wss://a.example.com/x', app: 'live' }), 'push.0.app', 'is given'],
    [antmedia({ app: 'a/b' }), 'push.0.app', '64'],
    [antmedia({ streamId: 'a b' }), 'push.0.streamId', 'A-Z'],
    [antmedia({ streamID: 'a' }), 'push.0.streamID', 'no such field'],
    [antmedia({ iceServers: [{ urls: 'https://a' }] }), 'push.0.iceServers.0.urls', 'stun:'],
    [{ url, push: [{ type: 'rtmp' }] }, 'push.0.type', 'antmedia'],
    [{ url, push: Array.from({ length: 5 }, () => ({ type: 'antmedia' })) }, 'push', '4'],
    [{ url, record: false }, 'record', 'needs `push`'],
    [{ url, push: [{ type: 'antmedia', streamId: 's' }, { type: 'antmedia', url: 'wss://rec.example.com:8443/LiveApp/websocket', streamId: 's' }] }, 'push.1.streamId', 'same'],
  ])('%j is refused at %s', async (body, path, message) => {
    const answer = await edge.post(body, proxied);
    expect(answer.status).toBe(400);
    expect(answer.body.errors).toEqual([{ path, message: expect.stringContaining(message) }]);
  });

  test.each([
    [{ url: 'wss://169.254.169.254/live/websocket' }, 'push.0.url', '169.254.169.254'],
    [{ url: 'wss://[fd00:ec2::254]/live/websocket' }, 'push.0.url', '[fd00:ec2::254]'],
    // as a URL's host has it
    [{ url: 'wss://0xa9.0xfe.43518/live/websocket' }, 'push.0.url', '169.254.169.254'],
    [{ url: 'wss://media.example.com/x', iceServers: [{ urls: 'stun:stun.example.com' }, { urls: ['turn:224.0.0.1:3478?transport=tcp'] }] }, 'push.0.iceServers.1.urls', '224.0.0.1'],
    [{ url: 'wss://media.example.com/x', iceServers: [{ urls: 'stun:[fe80::1]:3478' }] }, 'push.0.iceServers.0.urls', '[fe80::1]'],
  ])('%j has an address that no media server has, and is refused', async (push, path, address) => {
    const { status, body } = await sealing.post(antmedia(push), proxied);
    expect(status).toBe(400);
    expect(body.errors).toEqual([{ path, message: `${address} is an address that may not be dialled` }]);
  });

  test('goes to no loopback that no worker shares', async () => {
    await using alone = await testEdge(redis, {}, { workerPresent: false, keyed: true });
    const { status, body } = await alone.post({ ...antmedia(), record: false });
    expect([status, body.code]).toEqual([421, 'origin_loopback']);
    expect((await alone.post({ ...antmedia({ url: 'wss://media.example.com/x' }), record: false })).status).toBe(202);
  });

  test('needs nothing of the engine, which is known only to the worker: without sound, none is pushed', async () => {
    const { status, body } = await edge.post({ ...antmedia({ url: 'wss://media.example.com/x' }), audio: false });
    expect(status).toBe(202);
    expect((await jobOf(edge, body.id))?.spec.audio).toBe(false);
  });

  test('takes ws to loopback, and to a network where that is allowed', async () => {
    expect((await edge.post(antmedia({ url: 'ws://127.0.0.1:5080/LiveApp/websocket' }))).status).toBe(202);
    await using lenient = await testEdge(redis, { allowInsecureWs: true }, { keyed: true });
    expect((await lenient.post(antmedia({ url: 'ws://media.example.com/LiveApp/websocket' }))).status).toBe(202);
  });

  test('needs no place for media where nothing is recorded', async () => {
    const { status, body } = await edge.post({ ...antmedia({ url: 'wss://media.example.com/live/websocket' }), record: false }, { ...proxied, 'x-forwarded-proto': 'http' });
    expect(status, JSON.stringify(body)).toBe(202);
    expect(body.mediaUrl).toBe('wss://media.example.com/live/websocket');
  });

  test('a repeated request is the same one, stream ids that were made up included', async () => {
    const headers = { ...proxied, 'idempotency-key': 'push-1' };
    const [first, second] = [await edge.post(antmedia(), headers), await edge.post(antmedia(), headers)];
    expect([first.status, second.status]).toEqual([202, 200]);
    expect(second.body.id).toBe(first.body.id);
  });
});

describe('how a push stands', () => {
  const two = { url, push: [{ type: 'antmedia', streamId: 'a' }, { type: 'antmedia', streamId: 'b' }] };
  const failed = { code: 'push_unauthorized', message: 'media.example.com: it refuses the token', blame: 'caller', retryable: false } as const;
  const lost = { code: 'push_unreachable', message: 'media.example.com: the socket was lost', blame: 'target', retryable: true } as const;
  const stats = {
    bitrate: 1, targetBitrate: 2, framesSent: 3, framesDropped: 4, packetsSent: 5, packetsResent: 6, packetsLost: 7, roundTrip: null, keyFrameRequests: 8, reconnects: 9,
  };
  const begin = async () => {
    const { id } = await edge.create(two);
    const attempt = await edge.control.run(id);
    const tell = (index: number, standing: PushStanding, of = attempt) => edge.control.store.push(id, index, standing, { url: 'wss://media.example.com/x', streamId: 'ab'[index] ?? '' }, of);
    return { id, attempt, tell, store: edge.control.store, shown: async () => (await edge.get(id)).push.map(({ state, error }) => (error === undefined ? state : [state, error.code])) };
  };

  test('is part of the recording, with its figures', async () => {
    const { id, attempt, tell, store, shown } = await begin();
    expect(await shown()).toEqual(['waiting', 'waiting']);
    await tell(0, { state: 'live' });
    await tell(1, { state: 'failed', error: failed });
    await store.beat(id, attempt, { stats: { ...noStats, frames: 60, push: [stats, { ...stats, framesSent: 0 }] }, duration: 2, stored: true });
    const recording = await edge.get(id);
    expect(recording.push).toEqual([
      { type: 'antmedia', url: expect.stringMatching(/^ws:/), streamId: 'a', state: 'live', stats },
      { type: 'antmedia', url: expect.any(String), streamId: 'b', state: 'failed', error: failed, stats: { ...stats, framesSent: 0 } },
    ]);
    expect(recording.stats).toEqual({ ...noStats, frames: 60 });
  });

  test('is told by those who push now, and by nobody else', async () => {
    const { id, attempt, tell, store, shown } = await begin();
    await tell(0, { state: 'live' });
    await tell(1, { state: 'failed', error: failed });
    // its worker is lost, and another takes it
    await edge.control.redis.zadd(`${edge.config.queuePrefix}:beats`, 0, id);
    const next = (await store.claim(id))?.attempt ?? 0;
    expect(next).toBe(attempt + 1);
    expect(await shown()).toEqual(['waiting', 'waiting']);
    await store.change(id, { from: ['starting'], to: 'recording', attempt: next });
    await tell(0, { state: 'reconnecting', error: lost }, next);
    await tell(1, { state: 'live' }, next);
    await tell(0, { state: 'live' }, attempt);
    await tell(1, { state: 'failed', error: failed }, attempt);
    expect(await shown()).toEqual([['reconnecting', 'push_unreachable'], 'live']);
  });

  test('ends with the recording, whoever was lost before he said so', async () => {
    const { id, attempt, tell, store, shown } = await begin();
    await tell(0, { state: 'live' });
    await tell(1, { state: 'reconnecting', error: lost });
    await store.change(id, { from: ['recording'], to: 'finishing', attempt });
    expect(await shown()).toEqual(['ended', ['ended', 'push_unreachable']]);
    await store.change(id, { from: ['finishing'], to: 'completed' });
    expect(await shown()).toEqual(['ended', ['ended', 'push_unreachable']]);
  });

  test('also one that never began', async () => {
    const { id } = await edge.create(two);
    expect((await edge.api(`/v1/recordings/${id}/stop`, { method: 'POST' })).body).toMatchObject({ state: 'canceled', push: [{ state: 'ended', stats: null }, { state: 'ended', stats: null }] });
  });

  test('is an event for those who watch, each change once', async () => {
    const { id, tell } = await begin();
    await tell(0, { state: 'connecting' });
    await tell(0, { state: 'connecting' });
    await tell(1, { state: 'failed', error: failed });
    const events: ServerEvent[] = [];
    for await (const event of readEvents(`${edge.url}/v1/recordings/${id}/events`, AbortSignal.timeout(20_000), operator.headers)) {
      if (event.type === 'push') events.push(event);
      if (events.length === 2) break;
    }
    expect(events.map(({ data }) => data)).toEqual([
      { index: 0, url: 'wss://media.example.com/x', streamId: 'a', state: 'connecting', at: expect.any(String) },
      { index: 1, url: 'wss://media.example.com/x', streamId: 'b', state: 'failed', error: failed, at: expect.any(String) },
    ]);
  });

  test('of one that is only pushed: no file, and how it ended follows from its error', async () => {
    await using _finaliser = await edge.finaliser();
    for (const error of [undefined, failed]) {
      const { id } = await edge.create({ ...two, record: false });
      await edge.control.run(id);
      if (error !== undefined) await edge.control.store.change(id, { from: ['recording'], error });
      await edge.control.finish(id);
      const over = await eventually(() => edge.get(id), ({ state }) => state === 'completed' || state === 'failed');
      expect(over).toMatchObject({ state: error === undefined ? 'completed' : 'failed', files: [], verification: null });
      expect((await edge.api(`/v1/recordings/${id}/recording.mp4`)).status).toBe(404);
    }
  });

  test('is described', async () => {
    const { body } = await edge.api('/openapi.json');
    const { requestBody, responses } = body.paths['/v1/recordings'].post;
    const request = requestBody.content['application/json'].schema;
    const { push } = (request.properties ?? body.components.schemas[request.$ref.split('/').at(-1)].properties) as Record<string, any>;
    expect(Object.keys(push.items.properties).sort()).toEqual(['app', 'bitrate', 'iceServers', 'streamId', 'subscriberCode', 'subscriberId', 'token', 'type', 'url']);
    const answer = responses['202'].content['application/json'].schema;
    const shown = (answer.properties ?? body.components.schemas[answer.$ref.split('/').at(-1)].properties).push.items;
    expect(Object.keys(shown.properties).sort()).toEqual(['error', 'state', 'stats', 'streamId', 'type', 'url']);
    expect(shown.properties.state.enum).toEqual([...pushStates]);
  });
});
