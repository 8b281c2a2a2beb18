/** `GET /v1/origin` and what creating a recording makes of it, over HTTP. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseTrust } from '../../../edge/origin/trust.ts';
import { operator } from '../../helpers/keys.ts';
import { hasRedisServer, startRedis, type TestRedis } from '../../helpers/redis.ts';
import { testEdge, type TestEdge } from '../harness.ts';

let redis: TestRedis;
beforeAll(async () => {
  redis = await startRedis();
});
afterAll(() => redis?.[Symbol.asyncDispose]());

/** A request as it is written, since fetch sets Host by itself. */
async function raw(edge: TestEdge, request: string): Promise<{ status: number; body: any }> {
  const { hostname, port } = new URL(edge.url);
  const socket = connect({ host: hostname, port: Number(port) });
  await once(socket, 'connect');
  socket.write(request.replaceAll('\n', '\r\n'));
  const answer = await text(socket);
  const [head = '', body = ''] = answer.split(/\r\n\r\n(.*)/s);
  return { status: Number(head.split(' ')[1]), body: body.includes('{') ? JSON.parse(body.slice(body.indexOf('{'), body.lastIndexOf('}') + 1)) : body };
}

const get = (headers: string, target = '/v1/origin') =>
  // Node itself refuses HTTP/1.1 without a Host
  `GET ${target} HTTP/${/^ *host:/im.test(headers) ? '1.1' : '1.0'}\n${headers.replaceAll(/^ +/gm, '').trim()}\nAuthorization: ${operator.headers.authorization}\nConnection: close\n\n`;

describe.skipIf(!hasRedisServer)('an edge behind an ingress', () => {
  let edge: TestEdge;
  beforeAll(async () => {
    edge = await testEdge(redis, {}, { keyed: true });
  });
  afterAll(() => edge?.[Symbol.asyncDispose]());

  test('says what it sees, how it came to that, and what a recording would get', async () => {
    const headers = { 'x-forwarded-for': '198.51.100.7, 10.0.0.9', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'rec.example.com:8443' };
    const { status, body, headers: answered } = await edge.api('/v1/origin', { headers });
    expect(status).toBe(200);
    expect(answered.get('cache-control')).toBe('no-store');
    expect(body).toMatchObject({
      scheme: 'https',
      host: 'rec.example.com',
      port: 8443,
      prefix: '',
      websocket: 'wss://rec.example.com:8443',
      source: 'x-forwarded',
      hops: 2,
      peer: expect.stringContaining('127.0.0.1'),
      trusted: true,
    });
    expect(body.steps).toContainEqual({ what: 'X-Forwarded-Proto', value: 'https', use: 'used', why: 'a trusted proxy says https' });
    const created = await edge.post({ url: 'https://example.com/' }, headers);
    expect(created.body.mediaUrl).toBe(`wss://rec.example.com:8443/v1/recordings/${created.body.id}/media`);
    expect(created.body.origin).toEqual({ scheme: 'https', host: 'rec.example.com', port: 8443, source: 'x-forwarded' });
    const job = await edge.control.recordQueue.getJob(created.body.id);
    expect(job?.data.origin).toEqual({ source: 'x-forwarded', hops: 2 });
    expect(edge.logs.some((line) => line.includes('"recording created"') && line.includes('"origin":{"source":"x-forwarded","hops":2}'))).toBe(true);
  });

  test('plain http in a cluster: reading works, creating is refused with what the operator has to mend', async () => {
    const { id } = await edge.create();
    const inside = 'Host: edge.tabreel.svc:8080';
    const read = await raw(edge, get(inside, `/v1/recordings/${id}`));
    expect(read.status).toBe(200);
    expect(read.body.links.self).toBe(`http://edge.tabreel.svc:8080/v1/recordings/${id}`);
    const asked = await raw(edge, get(inside));
    expect(asked.status).toBe(421);
    expect(asked.body).toMatchObject({ code: 'origin_insecure', blame: 'service', retryable: false });
    expect(asked.body.remedy).toMatch(/X-Forwarded-Proto.*PUBLIC_URL.*ALLOW_INSECURE_WS/);
    expect(asked.body.steps.at(-1)).toMatchObject({ what: 'media URL', use: 'refused' });
    const body = '{"url":"https://example.com/"}';
    const posted = await raw(
      edge,
      `POST /v1/recordings HTTP/1.1\n${inside}\nAuthorization: ${operator.headers.authorization}\nContent-Type: application/json\nContent-Length: ${body.length}\nConnection: close\n\n${body}`,
    );
    expect(posted.status).toBe(421);
    expect(posted.body.code).toBe('origin_insecure');
    const logged = edge.logs.find((line) => line.includes('"no origin"') && line.includes('POST'));
    expect(JSON.parse(logged ?? '{}')).toMatchObject({ level: 'warn', code: 'origin_insecure', remedy: expect.stringContaining('X-Forwarded-Proto') });
  });

  test.each([
    ['two Host headers', 'Host: a.example\nHost: a.example', '/v1/origin', 'origin_host_duplicate'],
    ['an absolute-form target of another host', 'Host: a.example\nX-Forwarded-Proto: https', 'http://evil.example/v1/origin', 'origin_target_mismatch'],
    ['no Host, as in HTTP/1.0', 'X-Forwarded-Proto: https', '/v1/origin', 'origin_host_missing'],
    ['a user in the host', 'Host: user:secret@a.example', '/v1/origin', 'origin_host_invalid'],
    ['a header of 8 KB', `Host: a.example\nX-Forwarded-Proto: https\nForwarded: for="${'x'.repeat(8000)}`, '/v1/origin', 'origin_forwarded_invalid'],
  ])('%s: 400, from a real request line', async (_name, headers, target, code) => {
    const { status, body } = await raw(edge, get(headers, target));
    expect({ status, code: body.code }).toEqual({ status: 400, code });
    expect(body.steps.at(-1).use).toBe('refused');
    expect(JSON.stringify(body).length).toBeLessThan(3000);
    expect(JSON.stringify(body)).not.toContain('secret');
  });

  test('health is told to whoever asks, whatever the headers say', async () => {
    expect((await raw(edge, get('Host: a@b\nForwarded: "', '/healthz'))).status).toBe(200);
  });

  test('a loopback media URL is good while a worker of this machine is there', async () => {
    expect((await edge.api('/v1/origin')).body).toMatchObject({ host: '127.0.0.1', websocket: edge.url.replace('http', 'ws') });
  });
});

describe.skipIf(!hasRedisServer)('loopback without a worker on this machine', () => {
  test('creating is refused before anything is queued, with what to do; MEDIA_URL needs no worker here', async () => {
    await using edge = await testEdge(redis, {}, { workerPresent: false });
    const { status, body } = await edge.post({ url: 'https://example.com/' });
    expect(status).toBe(421);
    expect(body).toMatchObject({ code: 'origin_loopback', blame: 'service', retryable: true });
    expect(body.detail).toMatch(/ingress.*try again/s);
    expect(body.remedy).toMatch(/ingress.*PUBLIC_URL.*MEDIA_URL/s);
    expect((await edge.api('/v1/recordings')).body.recordings).toEqual([]);
    expect(await edge.control.recordQueue.count()).toBe(0);
    expect((await edge.api('/v1/origin')).body.code).toBe('origin_loopback');
    // the same with TLS in front of it on this machine
    expect((await edge.api('/v1/origin', { headers: { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'localhost:8443' } })).body.code).toBe('origin_loopback');
    expect((await edge.api('/v1/origin', { headers: { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'rec.example.com' } })).status).toBe(200);

    const beat = await edge.control.announce();
    expect((await edge.post({ url: 'https://example.com/' })).status).toBe(202);
    clearInterval(beat);

    await using elsewhere = await testEdge(redis, { mediaUrl: 'wss://media.example.com' }, { workerPresent: false });
    const created = await elsewhere.post({ url: 'https://example.com/' });
    expect(created.status).toBe(202);
    expect(created.body.mediaUrl).toMatch(/^wss:\/\/media\.example\.com\/v1\//);
    expect(created.body.links.self).toMatch(new RegExp(`^${elsewhere.url}/`));
  });
});

describe.skipIf(!hasRedisServer)('policy', () => {
  test('a peer that is not trusted is asked for nothing, and is told so', async () => {
    await using edge = await testEdge(redis, { trust: parseTrust(['10.0.0.0/8']) });
    const { body } = await edge.api('/v1/origin', { headers: { 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https' } });
    expect(body).toMatchObject({ scheme: 'http', host: '127.0.0.1', trusted: false, source: 'socket', hops: 0 });
    expect(body.steps).toContainEqual({ what: 'X-Forwarded-Host', value: 'evil.example', use: 'ignored', why: expect.stringContaining('TRUSTED_PROXIES') });
  });

  test('ALLOWED_HOSTS: another name is a misdirected request; unset, that is said at start', async () => {
    await using edge = await testEdge(redis, { allowedHosts: ['rec.example.com'] });
    expect(edge.logs.some((line) => line.includes('ALLOWED_HOSTS'))).toBe(false);
    expect((await edge.api('/v1/origin')).body).toMatchObject({ status: 421, code: 'origin_host_not_allowed' });
    const headers = { 'x-forwarded-host': 'rec.example.com', 'x-forwarded-proto': 'https' };
    expect((await edge.api('/v1/origin', { headers })).status).toBe(200);
    await using open = await testEdge(redis);
    expect(open.logs.some((line) => line.includes('ALLOWED_HOSTS') && line.includes('"warn"'))).toBe(true);
  });
});
