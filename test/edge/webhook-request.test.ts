import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { signedHeaders } from '../../edge/webhooks/message.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { testEdge, type TestEdge } from './harness.ts';
import { startReceiver } from './receiver.ts';
import { contents, sealingEdge, secret, tell } from './webhook-harness.ts';

let redis: TestRedis;
let edge: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  edge = await sealingEdge(redis);
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

describe('URL and secret of a webhook', () => {
  test('are nowhere in clear: not in Redis, logs, answers, nor the dashboard', async () => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver(secret, () => 500);
    const idempotency = { 'idempotency-key': crypto.randomUUID() };
    const body = { url: 'https://example.com/', webhook: { url: receiver.url, secret } };
    const created = await own.post(body, idempotency);
    const again = await own.post(body, idempotency);
    expect([created.status, again.status, again.body.id]).toEqual([202, 200, created.body.id]);
    await using finaliser = await tell(own);
    void finaliser;
    await receiver.until(2);
    const stored = await contents(own.control.redis, own.config.queuePrefix);
    expect(stored[`${own.config.queuePrefix}:r:${created.body.id}`]).toContain('sealed');
    const { id } = created.body;
    const answers = await Promise.all(['/v1/recordings', `/v1/recordings/${id}`, '/dashboard/api/queues?activeQueue=record'].map((path) => own.api(path)));
    const everything = JSON.stringify([stored, own.logs, created.body, again.body, answers.map((answer) => answer.body)]);
    for (const word of [secret, secret.slice(6), Buffer.from(secret.slice(6), 'base64').toString('hex'), 'url-secret', '/hook']) expect(everything).not.toContain(word);
  });

  const url = 'https://example.com/';
  test.each([
    [{ webhook: { url: 'ftp://example.com/', secret } }, 'webhook.url', 'must be an http or https URL'],
    [{ webhook: { url: 'hook', secret } }, 'webhook.url', 'must be an absolute http or https URL'],
    [{ webhook: { url: 'https://user:pass@example.com/', secret } }, 'webhook.url', 'must not carry a user name or password'],
    [{ webhook: { url: `https://example.com/${'x'.repeat(2040)}`, secret } }, 'webhook.url', '2048'],
    [{ webhook: { url, secret: 'short' } }, 'webhook.secret', '16'],
    [{ webhook: { url, secret: 'x'.repeat(257) } }, 'webhook.secret', '256'],
    [{ webhook: { url, secret: 'sixteen and more\n' } }, 'webhook.secret', 'printable'],
    [{ webhook: { url, secret: 'whsec_this is not base64' } }, 'webhook.secret', 'base64'],
    [{ webhook: { url, secret: 'whsec_c2hvcnQgb25l' } }, 'webhook.secret', 'at least 16 bytes'],
    [{ webhook: { url } }, 'webhook.secret', 'expected string'],
    [{ webhook: { url, secret, events: ['completed'] } }, 'webhook.events', 'there is no such field'],
    [{ record: false }, 'record', 'false needs `push`: there would be nothing'],
    [{ record: 'yes' }, 'record', 'expected boolean'],
  ])('%j is refused, naming the field', async (more, path, message) => {
    const { status, body } = await edge.post({ url, ...more });
    expect([status, body.code, body.errors.map((issue: { path: string }) => issue.path)]).toEqual([400, 'invalid_request', [path]]);
    expect(body.detail).toContain(`${path}: `);
    expect(body.detail).toContain(message);
    expect(body.detail).not.toContain('pass@');
  });

  test('are taken where they are good, and refused without SECRETS_KEY', async () => {
    expect((await edge.post({ url, record: true, webhook: { url: 'http://example.com/?a=1', secret: 'sixteen letters!' } })).status).toBe(202);
    await using unsealed = await testEdge(redis);
    const { status, body } = await unsealed.post({ url, webhook: { url, secret } });
    expect([status, body.errors]).toEqual([400, [{ path: 'webhook', message: expect.stringContaining('SECRETS_KEY') }]]);
  });

  test('sign as the Standard Webhooks libraries do', () => {
    const headers = signedHeaders(secret, 'msg_p5jXN8AQM9LWM0D4loKWxJek', '{"test": 2432232314}', 1_614_265_330_000);
    expect(headers['webhook-signature']).toBe('v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=');
  });
});
