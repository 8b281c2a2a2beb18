/** MEDIA_URL names another deployment: what that one holds is asked for there. */
import { get } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { operator } from '../helpers/keys.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
let keyed: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis, { mediaUrl: 'wss://media.example.com:8443/base' });
  keyed = await testEdge(redis, { mediaUrl: 'wss://media.example.com:8443/base' }, { keyed: true });
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await keyed[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const ask = (path: string, init: RequestInit = {}) => fetch(`${edge.url}${path}`, { redirect: 'manual', ...init });

describe('where MEDIA_URL points elsewhere', () => {
  test('media and viewers go there, links stay with the origin that was asked', async () => {
    const created = await edge.create();
    expect(created.mediaUrl).toBe(`wss://media.example.com:8443/base/v1/recordings/${created.id}/media`);
    expect(created.links.file).toContain(`${edge.url}/v1/recordings/${created.id}/recording.mp4?token=`);
    for (const link of [created.links.file, created.links.live, created.links.events, created.links.thumbnail]) {
      const { pathname, search } = new URL(link);
      const answer = await ask(`${pathname}${search}`);
      expect(answer.status).toBe(307);
      expect(answer.headers.get('location')).toBe(`https://media.example.com:8443/base${pathname}${search}`);
      // a page of another origin follows a redirect only where it may read it
      expect(answer.headers.get('access-control-allow-origin')).toBe('*');
    }
    expect((await ask(`/v1/recordings/${created.id}/live/1-1-init.mp4`, { method: 'HEAD' })).status).toBe(307);
    expect((await ask(`/v1/recordings/${created.id}`)).status).toBe(200);
  });

  test.each([
    ['/v1/recordings//evil.example/recording.mp4', {}],
    ['/v1/recordings/%2f%2fevil.example%2f/recording.mp4', {}],
    ['/v1/recordings/x%0d%0aset-cookie:a/recording.mp4?a=%0d%0ab', {}],
    ['/v1/recordings/@evil.example/manifest.json?url=https://evil.example', {}],
    ['/v1/recordings/..%5c..%5cevil.example/manifest.json', {}],
    ['/v1/recordings/x/live.m3u8', { 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https' }],
    ['/v1/recordings/x/live.m3u8', { 'x-forwarded-host': 'evil.example, other.example' }],
  ])('%s: sends nobody anywhere else', async (path, headers) => {
    const answer = await keyed.api(path, { headers: headers as Record<string, string>, redirect: 'manual' });
    const location = answer.headers.get('location');
    if (answer.status === 404) return expect(location).toBeNull();
    expect(answer.status).toBe(307);
    expect(location).toMatch(/^https:\/\/media\.example\.com:8443\/base\/v1\/recordings\//);
    expect(new URL(location ?? '').host).toBe('media.example.com:8443');
    return expect(answer.headers.get('set-cookie')).toBeNull();
  });

  test('whoever asks at MEDIA_URL itself is answered', async () => {
    await using itself = await testEdge(redis, { mediaUrl: 'wss://media.example.com:8443' }, { keyed: true });
    const path = '/v1/recordings/rec_00000000000000000000000000/recording.mp4';
    const at = (host: string) => itself.api(path, { redirect: 'manual', headers: { 'x-forwarded-proto': 'https', 'x-forwarded-host': host } });
    expect((await at('media.example.com:8443')).status).toBe(404);
    expect((await at('media.example.com')).status).toBe(307);
  });

  test('also where PUBLIC_URL hides by which name', async () => {
    await using itself = await testEdge(redis, { mediaUrl: 'wss://media.example.com', publicUrl: 'https://rec.example.com' }, { keyed: true });
    const at = (host: string) =>
      new Promise((resolve, reject) => {
        get(`${itself.url}/v1/recordings/rec_00000000000000000000000000/recording.mp4`, { headers: { host, ...operator.headers } }, (answer) => {
          answer.resume();
          resolve(answer.statusCode);
        }).on('error', reject);
      });
    expect(await at('media.example.com')).toBe(404);
    expect(await at('rec.example.com')).toBe(307);
  });
});
