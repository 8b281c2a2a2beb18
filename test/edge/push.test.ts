import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pageSecrets } from '../../shared/recording.ts';
import { unseal } from '../../shared/token.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { testEdge, type TestEdge } from './harness.ts';

const url = 'https://example.com/';
const antmedia = (fields: Record<string, unknown> = {}) => ({ url, push: [{ type: 'antmedia', ...fields }] });
const proxied = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'rec.example.com:8443', 'x-forwarded-prefix': '/tabreel' };
const SECRETS = ['push-test-secrets-key-0123'];

let redis: TestRedis;
let edge: TestEdge;
let sealing: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  [edge, sealing] = await Promise.all([testEdge(redis.url), testEdge(redis.url, { secretsKeys: SECRETS })]);
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

  test('takes ws to loopback, and to a network where that is allowed', async () => {
    expect((await edge.post(antmedia({ url: 'ws://127.0.0.1:5080/LiveApp/websocket' }))).status).toBe(202);
    await using lenient = await testEdge(redis.url, { allowInsecureWs: true });
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
