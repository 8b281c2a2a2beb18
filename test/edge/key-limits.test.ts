/** What a key may do at most, whichever edge it asks: counted in Redis, by what is there. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { keySetting, testKey, type TestKey } from '../helpers/keys.ts';
import { redisServers, type TestRedis } from '../helpers/redis.ts';
import { testEdge, type TestEdge } from './harness.ts';

const page = 'https://example.com/';
const few = await testKey('few', ['record', 'read'], { concurrent: 3 });
const same = await testKey('few', ['record'], { concurrent: 3 });
const slow = await testKey('slow', ['record'], { perMinute: 4 });
const short = await testKey('short', ['record'], { maxDuration: 60 });
const free = await testKey('free', ['record']);

describe.for(redisServers.filter(({ there }) => there))('two edges on $server', ({ start }) => {
  let redis: TestRedis;
  let edges: [TestEdge, TestEdge];
  beforeAll(async () => {
    redis = await start();
    const config = { apiKeys: keySetting(few, same, slow, short, free), queuePrefix: 'tabreel-limits' };
    edges = await Promise.all([testEdge(redis, config), testEdge(redis, config)]);
  });
  afterAll(async () => {
    for (const edge of edges ?? []) await edge[Symbol.asyncDispose]();
    await redis?.[Symbol.asyncDispose]();
  });
  const post = (i: number, key: TestKey, body: Record<string, unknown> = {}, headers: Record<string, string> = {}) =>
    (edges[i % 2] as TestEdge).post({ url: page, ...body }, { ...key.headers, ...headers });
  const of = async (key: TestKey, requests: number) => {
    const answers = await Promise.all(Array.from({ length: requests }, (_, i) => post(i, key)));
    return { made: answers.filter(({ status }) => status === 202), refused: answers.filter(({ status }) => status !== 202) };
  };

  test('concurrent: no more than that are made by requests at one time; room is made by an end, however it comes', async () => {
    const { made, refused } = await of(few, 12);
    expect(made).toHaveLength(3);
    for (const { status, body, headers } of refused) {
      expect({ status, code: body.code, blame: body.blame, retryable: body.retryable, after: Number(headers.get('retry-after')) > 0 }).toEqual({ status: 429, code: 'too_many_recordings', blame: 'caller', retryable: true, after: true });
    }
    // of the name, not of one of its keys; and nobody else's
    expect((await post(0, same)).status).toBe(429);
    expect((await post(1, free)).status).toBe(202);
    const [first, second, third] = made.map(({ body }) => body.id as string);
    await edges[0].api(`/v1/recordings/${first}/stop`, { method: 'POST', headers: few.headers });
    expect((await post(1, few)).status).toBe(202);
    expect((await post(0, few)).status).toBe(429);
    // a worker that died: what the reconciler does with its recording
    await edges[0].control.run(second as string);
    expect((await post(0, few)).status).toBe(429);
    await edges[0].control.redis.zadd('tabreel-limits:beats', 1, second as string);
    await edges[0].control.store.orphan(second as string, 1, null);
    expect((await post(0, few)).status).toBe(202);
    expect((await post(1, few)).status).toBe(429);
    await edges[1].api(`/v1/recordings/${third}`, { method: 'DELETE', headers: few.headers });
    expect((await post(1, few)).status).toBe(202);
  });

  test('perMinute: no more than that in any minute, and when there will be room is said; a repeated request is none', async () => {
    const again = { 'idempotency-key': 'slow-1' };
    const first = await post(0, slow, {}, again);
    const { made, refused } = await of(slow, 8);
    expect([first.status, made.length]).toEqual([202, 3]);
    for (const { status, body, headers } of refused) {
      expect([status, body.code]).toEqual([429, 'too_many_requests']);
      const seconds = Number(headers.get('retry-after'));
      expect(seconds).toBeGreaterThan(0);
      expect(seconds).toBeLessThanOrEqual(60);
      expect(body.detail).toContain(`the next in ${seconds} s`);
    }
    expect(await post(1, slow, {}, again)).toMatchObject({ status: 200, body: { id: first.body.id } });
    // a minute later
    for (const id of await edges[0].control.redis.zrange('tabreel-limits:owned:slow:recent', 0, '-1')) await edges[0].control.redis.zincrby('tabreel-limits:owned:slow:recent', -60_001, id);
    expect((await of(slow, 6)).made).toHaveLength(4);
  });

  test('maxDuration: the default, and the most', async () => {
    const { body } = await post(0, short);
    expect((await edges[0].control.store.get(body.id))?.job.spec.maxDuration).toBe(60);
    expect(await post(1, short, { maxDuration: 61 })).toMatchObject({ status: 400, body: { code: 'invalid_request', errors: [{ path: 'maxDuration', message: expect.stringContaining("at most 60 (the API key's)") }] } });
    expect((await post(1, short, { maxDuration: 10 })).status).toBe(202);
  });
});
