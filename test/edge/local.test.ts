/** Without API keys this machine alone is served: a proxy on it makes strangers look local. */
import { get } from 'node:http';
import { json } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis);
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

/** Host can't be set with fetch. */
const ask = (path: string, headers: Record<string, string>, at = edge) =>
  new Promise<{ status: number | undefined; body: any }>((resolve, reject) => {
    get(`${at.url}${path}`, { headers }, (answer) => {
      if (answer.headers['content-type']?.includes('json') !== true) {
        answer.resume();
        return resolve({ status: answer.statusCode, body: null });
      }
      return json(answer).then((body) => resolve({ status: answer.statusCode, body }), reject);
    }).on('error', reject);
  });

const strange: Record<string, string>[] = [
  { 'x-forwarded-for': '198.51.100.7' },
  { 'x-forwarded-for': '127.0.0.1' },
  { 'x-forwarded-proto': 'https' },
  { 'x-forwarded-host': 'localhost' },
  { forwarded: 'for=127.0.0.1' },
  { 'x-forwarded_for': '198.51.100.7' },
  { 'x-real-ip': '127.0.0.1' },
  { via: '1.1 varnish' },
  { 'cf-connecting-ip': '198.51.100.7' },
  { host: 'rec.example.com' },
  { host: '192.0.2.7:8080' },
  { host: 'localhost.evil.example' },
  // a name of the caller's own that leads here: DNS rebinding
  { host: 'evil.example:8080' },
  { origin: 'https://evil.example' },
  { origin: 'null' },
];

describe('without API keys', () => {
  test.each(strange)('%j is refused on every route but those for everybody, with what to do', async (headers) => {
    for (const path of ['/v1/recordings', '/v1/recordings/rec_01jd0000000000000000000000/recording.mp4', '/metrics', '/dashboard', '/dashboard/api/queues', '/nothing']) {
      const { status, body } = await ask(path, headers);
      expect([path, status, body.code]).toEqual([path, 401, 'unauthorized']);
      expect(body.detail).toMatch(/API_KEYS.*tabreel key/);
    }
    for (const path of ['/healthz', '/readyz', '/docs', '/openapi.json', '/doctor/page']) expect([path, (await ask(path, headers)).status]).toEqual([path, 200]);
    expect((await ask('/v1/origin', headers)).body.code).not.toBe('unauthorized');
  });

  test.each([{}, { host: 'localhost:8080' }, { host: '[::1]:8080' }, { host: 'tabreel.localhost' }, { origin: 'http://localhost:3000' }])('%j is this machine', async (headers) => {
    expect((await ask('/v1/recordings', headers as Record<string, string>)).status).toBe(200);
  });

  test('a page of anybody’s plays what it has a link to, if it runs here', async () => {
    const { links } = await edge.create();
    const { pathname, search } = new URL(links.live);
    expect((await ask(`${pathname}${search}`, { origin: 'https://player.example' })).body.code).toBe('file_not_ready');
    expect((await ask(`${pathname}${search}`, { 'x-forwarded-for': '198.51.100.7' })).status).toBe(401);
  });

  test('where PUBLIC_URL says that others come, nobody is served', async () => {
    await using own = await testEdge(redis, { publicUrl: 'https://rec.example.com' });
    expect((await ask('/v1/recordings', {}, own)).body.detail).toMatch(/PUBLIC_URL.*rec\.example\.com.*API_KEYS/);
    await using here = await testEdge(redis, { publicUrl: 'https://localhost:8443' });
    expect((await ask('/v1/recordings', {}, here)).status).toBe(200);
  });

  test('CORS_ORIGINS lets pages of those origins read answers, and no others', async () => {
    await using own = await testEdge(redis, { corsOrigins: ['https://app.example'] });
    const from = async (origin: string, init: RequestInit = {}) => {
      const { status, headers } = await own.api('/v1/recordings', { ...init, headers: { origin, ...(init.headers as Record<string, string> | undefined) } });
      return { status, origin: headers.get('access-control-allow-origin'), credentials: headers.get('access-control-allow-credentials') };
    };
    expect(await from('https://app.example')).toEqual({ status: 200, origin: 'https://app.example', credentials: null });
    expect(await from('https://evil.example')).toMatchObject({ status: 401, origin: null });
    const preflight = { method: 'OPTIONS', headers: { 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type' } };
    expect(await from('https://app.example', preflight)).toMatchObject({ status: 204, origin: 'https://app.example' });
    expect(await from('https://evil.example', preflight)).toMatchObject({ origin: null });
    expect((await edge.api('/v1/recordings', { headers: { origin: 'http://localhost:1' } })).headers.get('access-control-allow-origin')).toBeNull();
  });
});
