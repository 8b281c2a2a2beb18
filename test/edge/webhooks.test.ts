import { setTimeout as sleep } from 'node:timers/promises';
import { createRedisMock } from 'js-redis-server';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startFinaliser } from '../../edge/finishing.ts';
import { diskStorage } from '../../edge/storage/disk.ts';
import { partKey, partName } from '../../edge/storage/part-names.ts';
import { freePort } from '../../bin/local-redis.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { makeCmaf, type Cmaf } from './cmaf.ts';
import { eventually, type TestEdge } from './harness.ts';
import { startReceiver } from './receiver.ts';
import { contents, quick, sealingEdge, secret, tell, waiting } from './webhook-harness.ts';

let redis: TestRedis;
let cmaf: Cmaf;
beforeAll(async () => {
  redis = await startRedis();
  cmaf = await makeCmaf({ seconds: 1 });
});
afterAll(async () => {
  await redis[Symbol.asyncDispose]();
});

/** From queued to finishing, with media; a finaliser completes it. */
async function runThrough(of: TestEdge, id: string) {
  const attempt = await of.control.run(id);
  for (const { header, payload } of cmaf.parts) await diskStorage(of.directory).put(partKey(id, partName(attempt, header)), payload);
  await of.control.finish(id);
}
const allStates = ['queued', 'starting', 'recording', 'finishing', 'completed'];

describe.concurrent('a webhook', () => {
  test('is told each state once, in order, signed, with the recording as it was in that state', async () => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver(secret);
    await using finaliser = await tell(own);
    void finaliser;
    const created = await own.create({ webhook: { url: receiver.url, secret }, metadata: { a: 'b' } });
    await runThrough(own, created.id);
    await receiver.until(5);
    await eventually(() => waiting(own), (keys) => keys.length === 0);
    await sleep(300);
    expect(receiver.deliveries.map(({ state, signed }) => [state, signed])).toEqual(allStates.map((state) => [state, true]));
    expect(new Set(receiver.deliveries.map(({ id }) => id)).size).toBe(5);
    for (const { headers, body, id } of receiver.deliveries) {
      expect(headers).toMatchObject({ 'content-type': 'application/json', 'user-agent': 'Tabreel-Webhooks/1' });
      expect(id).toMatch(/^rec_[0-9a-z]{26}_\d+-\d+$/);
      expect(body).toMatchObject({ type: 'recording.state', data: { id: created.id, url: created.url, metadata: { a: 'b' } } });
      expect(JSON.stringify(body)).not.toContain('webhook');
    }
    const times = receiver.deliveries.map(({ body }) => Date.parse(body.timestamp));
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    const { data } = receiver.deliveries.at(-1)!.body;
    const { links: _links, ...known } = await own.get(created.id);
    expect(data).toMatchObject(known);
    expect(data.links.self).toBe(created.links.self);
    expect((await own.api(data.links.file)).status).toBe(200);
  });

  test.each([
    ['behind a proxy, with a prefix: links lead there', { publicUrl: 'https://rec.example.com:8443/tabreel' }, /^https:\/\/rec\.example\.com:8443\/tabreel\/v1\/recordings\/rec_.*token=/],
    ['without TOKEN_SECRET: there are no links', { tokenSecrets: null }, undefined],
  ])('%s', async (_name, config, link) => {
    await using own = await sealingEdge(redis, config, { keyed: 'publicUrl' in config });
    await using receiver = await startReceiver(secret);
    await using finaliser = await tell(own);
    void finaliser;
    await own.create({ webhook: { url: receiver.url, secret } });
    await receiver.until(1);
    const { links } = receiver.deliveries[0]!.body.data;
    if (link === undefined) expect(links).toBeUndefined();
    else expect(links.live).toMatch(link);
  });

  test('hears of a cancellation, of a failure and its error, and what was removed meanwhile', async () => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver('a plain secret, with ü');
    const webhook = { url: receiver.url, secret: 'a plain secret, with ü' };
    const canceled = await own.create({ webhook });
    await own.api(`/v1/recordings/${canceled.id}/stop`, { method: 'POST' });
    const failed = await own.create({ webhook });
    await own.control.store.change(failed.id, { from: ['queued'], to: 'failed', error: { code: 'target_dns', message: 'no such host', blame: 'target', retryable: false } });
    const deleted = await own.create({ webhook, metadata: { private: 'matter' } });
    await own.api(`/v1/recordings/${deleted.id}`, { method: 'DELETE' });
    await own.control.store.remove(deleted.id);
    expect(await own.control.store.get(deleted.id)).toBeNull();
    await using finaliser = await tell(own);
    void finaliser;
    await receiver.until(6);
    const of = (id: string) => receiver.deliveries.filter(({ body }) => body.data.id === id).map(({ body }) => [body.data.state, body.data.error?.code]);
    expect(of(canceled.id)).toEqual([['queued', undefined], ['canceled', undefined]]);
    expect(of(failed.id)).toEqual([['queued', undefined], ['failed', 'target_dns']]);
    expect(of(deleted.id)).toEqual([['queued', undefined], ['canceled', undefined]]);
    expect(receiver.deliveries.every(({ signed }) => signed)).toBe(true);
    await eventually(() => waiting(own), (keys) => keys.length === 0);
    expect(Object.entries(await contents(own.control.redis, own.config.queuePrefix)).filter(([key, value]) => !key.includes(':finish:') && value.includes('matter'))).toEqual([]);
  });

  test('that is down for a while gets all of it in order once it is back, under the same ids', async () => {
    await using own = await sealingEdge(redis);
    const port = await freePort();
    await using finaliser = await tell(own);
    void finaliser;
    const { id } = await own.create({ webhook: { url: `http://127.0.0.1:${port}/`, secret } });
    await eventually(async () => own.logs, (lines) => lines.some((line) => line.includes('ECONNREFUSED')));
    await runThrough(own, id);
    const refusing = await startReceiver(secret, () => 503, port);
    await refusing.until(2);
    await refusing[Symbol.asyncDispose]();
    await using receiver = await startReceiver(secret, () => 200, port);
    await receiver.until(5);
    expect(receiver.taken()).toEqual(allStates);
    const ids = new Set(refusing.deliveries.map((delivery) => delivery.id));
    expect([...ids]).toEqual([receiver.deliveries[0]!.id]);
    expect(refusing.deliveries.every(({ signed }) => signed)).toBe(true);
  });

  test.each([
    ['errors', 500],
    ['redirects, which are not followed', 302],
    ['no answer at all', null],
  ])('that answers with %s is told again', async (_name, status) => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver(secret, (_delivery, { length }) => (length <= 2 ? status : 200));
    await using finaliser = await tell(own, { timeout: 300 });
    void finaliser;
    const { id } = await own.create({ webhook: { url: receiver.url, secret } });
    await own.control.run(id);
    await eventually(async () => receiver.taken(), (taken) => taken.length === 3);
    expect(receiver.deliveries.map(({ state, status: answered }) => [state, answered])).toEqual([['queued', status], ['queued', status], ['queued', 200], ['starting', 200], ['recording', 200]]);
    expect(new Set(receiver.deliveries.slice(0, 3).map((delivery) => delivery.id)).size).toBe(1);
    const failures = own.logs.filter((line) => line.includes('webhook failed')).map((line) => JSON.parse(line));
    expect(failures).toMatchObject([
      { recording: id, webhookId: receiver.deliveries[0]!.id, state: 'queued', try: 1, host: new URL(receiver.url).host },
      { try: 2 },
    ]);
  });

  test('that is gone (410) is told nothing more, also of what comes later', async () => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver(secret, () => 410);
    await using finaliser = await tell(own);
    void finaliser;
    const { id } = await own.create({ webhook: { url: receiver.url, secret } });
    await receiver.until(1);
    await eventually(() => waiting(own), (keys) => keys.length === 0);
    await own.control.run(id);
    expect(await waiting(own)).toEqual([]);
    await sleep(200);
    expect(receiver.deliveries).toHaveLength(1);
  });

  test('is given up an event after long enough, and told the next', async () => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver(secret, ({ state }) => (state === 'queued' ? 500 : 200));
    await using finaliser = await tell(own, { firstRetry: 1, lastRetry: 5, keep: 0 });
    void finaliser;
    const { id } = await own.create({ webhook: { url: receiver.url, secret } });
    await own.control.run(id);
    await eventually(async () => receiver.taken(), (taken) => taken.length === 2);
    expect(receiver.deliveries.filter(({ state }) => state === 'queued')).toHaveLength(12);
    expect(own.logs.filter((line) => line.includes('given up'))).toHaveLength(1);
  });

  test('that is slow holds up no other recording', async () => {
    await using own = await sealingEdge(redis);
    const slow = Promise.withResolvers<void>();
    await using hanging = await startReceiver(secret, () => slow.promise.then(() => 200));
    await using receiver = await startReceiver(secret);
    await using finaliser = await tell(own);
    void finaliser;
    const first = await own.create({ webhook: { url: hanging.url, secret } });
    await own.control.run(first.id);
    await eventually(async () => hanging.deliveries.length, (length) => length === 1);
    const others = await Promise.all(Array.from({ length: 10 }, () => own.create({ webhook: { url: receiver.url, secret } })));
    for (const { id } of others) await own.control.run(id);
    await receiver.until(30);
    for (const { id } of others) expect(receiver.deliveries.filter(({ body }) => body.data.id === id).map(({ state }) => state)).toEqual(allStates.slice(0, 3));
    expect(hanging.deliveries.map(({ status }) => status)).toEqual([null]);
    slow.resolve();
    await hanging.until(3);
    expect(hanging.taken()).toEqual(allStates.slice(0, 3));
  });

  test('is told once by two finalisers together, in order', async () => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver(secret, () => sleep(Math.random() * 20).then(() => 200));
    await using one = await tell(own);
    await using two = await tell(own);
    void [one, two];
    const created = await Promise.all(Array.from({ length: 10 }, () => own.create({ webhook: { url: receiver.url, secret } })));
    await Promise.all(created.map(({ id }) => own.control.run(id)));
    await receiver.until(30);
    await eventually(() => waiting(own), (keys) => keys.length === 0);
    for (const { id } of created) expect(receiver.deliveries.filter(({ body }) => body.data.id === id).map(({ state }) => state)).toEqual(allStates.slice(0, 3));
  });

  test('is told at once, and again when a retry is due, however seldom the finaliser looks by itself', async () => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver(secret, (_delivery, { length }) => (length === 2 ? 500 : 200));
    await using finaliser = await tell(own, { look: 60_000 });
    void finaliser;
    const { id } = await own.create({ webhook: { url: receiver.url, secret } });
    await receiver.until(1);
    await own.control.run(id);
    await receiver.until(4);
    expect(receiver.taken()).toEqual(['queued', 'starting', 'recording']);
    const lateness = receiver.deliveries.map(({ at, body }) => at - Date.parse(body.timestamp));
    expect(Math.max(...lateness)).toBeLessThan(1000);
  });

  test('waits for a finaliser that has the key', async () => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver(secret);
    await own.create({ webhook: { url: receiver.url, secret } });
    await using blind = await startFinaliser({ ...own.config, secretsKeys: null }, own.log, { webhooks: { times: quick } });
    void blind;
    expect(own.logs.some((line) => line.includes('SECRETS_KEY is not set'))).toBe(true);
    await sleep(200);
    expect(receiver.deliveries).toEqual([]);
    await using finaliser = await tell(own);
    void finaliser;
    await receiver.until(1);
  });

  test('works on the embedded Redis', async () => {
    const mock = await createRedisMock();
    try {
      await using own = await sealingEdge(`redis://127.0.0.1:${mock.addresses()[0]?.port}`);
      await using receiver = await startReceiver(secret, (_delivery, { length }) => (length === 2 ? 500 : 200));
      await using finaliser = await tell(own);
      void finaliser;
      const { id } = await own.create({ webhook: { url: receiver.url, secret } });
      await runThrough(own, id);
      await receiver.until(6);
      expect(receiver.taken()).toEqual(allStates);
      await own.api(`/v1/recordings/${id}`, { method: 'DELETE' });
      await eventually(() => waiting(own), (keys) => keys.length === 0);
    } finally {
      await mock.close();
    }
  });
});
