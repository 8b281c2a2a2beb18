import { describe, expect, test } from 'vitest';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasRedisServer, realRedis } from '../helpers/redis.ts';
import { silencablePath } from '../helpers/silencable-path.ts';
import { dial, eventually, testEdge, type TestEdge } from './harness.ts';

const url = 'https://example.com/';
const recovers = (edge: TestEdge) => eventually(() => edge.post({ url }), ({ status }) => status === 202, 6000);

/** Every way in answers 503 as a problem, each within two seconds. */
async function refusesFast(edge: TestEdge, id: string) {
  const path = `/v1/recordings/${id}`;
  const timed = async (name: string, call: Promise<{ status: number; body: any; headers: Headers }>) => {
    const begin = Date.now();
    const { status, body, headers } = await call;
    return { name, status, code: body.code, type: headers.get('content-type'), retry: headers.get('retry-after'), fast: Date.now() - begin < 8000 };
  };
  const answers = await Promise.all([
    timed('create', edge.post({ url }, { 'idempotency-key': 'k' })),
    timed('list', edge.api('/v1/recordings')),
    timed('get', edge.api(path)),
    timed('stop', edge.api(`${path}/stop`, { method: 'POST' })),
    timed('delete', edge.api(path, { method: 'DELETE' })),
    timed('events', edge.api(`${path}/events`)),
    timed('live', edge.api(`${path}/live.m3u8`)),
    timed('file', edge.api(`${path}/recording.mp4`)),
    timed('dashboard', edge.api('/dashboard/api/queues')),
  ]);
  for (const answer of answers) {
    expect(answer).toEqual({ name: answer.name, status: 503, code: 'redis_unavailable', type: 'application/problem+json', retry: '1', fast: true });
  }
  const begin = Date.now();
  expect(await edge.api('/readyz')).toMatchObject({ status: 503, body: { checks: { redis: { ok: false }, storage: { ok: true } } } });
  expect((await edge.api('/healthz')).status).toBe(200);
  expect((await edge.api('/metrics')).body).toContain('tabreel_media_sockets');
  expect(Date.now() - begin).toBeLessThan(15_000);
}

describe.skipIf(!hasRedisServer).concurrent('while Redis is away requests are refused within two seconds, and served again once it is back', { timeout: 15_000 }, () => {
  test('killed and started again', async () => {
    await using own = await realRedis();
    await own.start();
    await using edge = await testEdge(own);
    const { id } = await edge.create();
    await own.kill();
    await refusesFast(edge, id);
    await own.start();
    await recovers(edge);
    expect((await edge.get(id)).state).toBe('queued');
  });

  test('frozen and thawed', async () => {
    await using own = await realRedis();
    await own.start();
    await using edge = await testEdge(own);
    const { id } = await edge.create();
    own.freeze();
    await refusesFast(edge, id);
    own.thaw();
    await recovers(edge);
  });

  test('a connection that goes silent, as where a node or a NAT on the way forgets it', async () => {
    await using own = await realRedis();
    await own.start();
    await using path = await silencablePath(Number(new URL(own.url).port));
    await using edge = await testEdge({ ...own, redisUrl: own.url.replace(/:\d+$/, `:${path.port}`) });
    await edge.create();
    path.silence();
    const begin = Date.now();
    expect(await edge.post({ url })).toMatchObject({ status: 503, body: { code: 'redis_unavailable' } });
    expect(Date.now() - begin).toBeLessThan(10_000);
    await recovers(edge);
  });

  test('down when the edge starts', async () => {
    await using own = await realRedis();
    await using edge = await testEdge(own);
    await refusesFast(edge, 'rec_00000000000000000000000000');
    await own.start();
    await recovers(edge);
  });

  test('frozen when the edge starts', async () => {
    await using own = await realRedis();
    await own.start();
    own.freeze();
    await using edge = await testEdge(own);
    await refusesFast(edge, 'rec_00000000000000000000000000');
    own.thaw();
    await recovers(edge);
  });

  test('open media sockets go on, and watchers are told what they missed', async () => {
    await using own = await realRedis();
    await own.start();
    await using edge = await testEdge(own);
    const created = await edge.create();
    const attempt = await edge.control.run(created.id);
    const worker = await dial(edge, created, attempt);
    await worker.welcome;
    const watcher = await fetch(created.links.events);
    const reader = watcher.body!.pipeThrough(new TextDecoderStream() as any).getReader() as ReadableStreamDefaultReader<string>;
    let seen = '';
    const until = async (text: string) => {
      while (!seen.includes(text)) {
        const { value, done } = await reader.read();
        if (done) throw new Error(`the stream ended before ${text}`);
        seen += value;
      }
    };
    await until('"recording"');
    await own.kill();
    worker.send({ header: { type: 'init', seq: 1 }, payload: new Uint8Array([1]) });
    await worker.acked(1);
    await sleep(300);
    await own.start();
    worker.send({ header: { type: 'segment', seq: 2, start: 0, duration: 1e6, frames: 1 }, payload: new Uint8Array([1]) });
    await worker.acked(2);
    await eventually(
      () => edge.control.store.log(created.id, 'back again').then(() => true, () => false),
      (done) => done,
    );
    await until('back again');
    await eventually(
      () => edge.control.store.change(created.id, { from: ['recording'], to: 'failed' }).then(() => true, () => false),
      (done) => done,
    );
    await until('"failed"');
    expect((await worker.closed).code).toBe(4410);
  });

  test('the finaliser goes on once it is back', async () => {
    await using own = await realRedis();
    await using edge = await testEdge(own);
    await using finaliser = await edge.finaliser();
    void finaliser;
    await own.start();
    const created = await recovers(edge);
    await own.kill();
    await sleep(300);
    await own.start();
    await recovers(edge);
    const { id } = created.body;
    await edge.control.run(id);
    await edge.control.finish(id);
    await eventually(() => edge.get(id), ({ state }) => state === 'failed', 12_000);
  }, 25_000);
});
