/** What tests of webhooks share: finalisers that are quick to try again, and a look at all that Redis keeps. */
import type { Redis } from 'ioredis';
import { startFinaliser } from '../../edge/finishing.ts';
import type { WebhookTimes } from '../../edge/webhooks/deliver.ts';
import type { EdgeConfig } from '../../edge/config.ts';
import { testEdge, type TestEdge, type TestEdgeOptions } from './harness.ts';

export const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
export const quick: Partial<WebhookTimes> = { firstRetry: 100, lastRetry: 200 };

/** An edge that takes webhooks, under a prefix of its own: what its finalisers do is one test's only. */
export const sealingEdge = (redis: Parameters<typeof testEdge>[0], config: Partial<EdgeConfig> = {}, options: TestEdgeOptions = {}) =>
  testEdge(redis, { secretsKeys: ['webhook-test-secrets-key'], ...config }, options);
export const tell = (of: TestEdge, times: Partial<WebhookTimes> = {}) => startFinaliser(of.config, of.log, { webhooks: { times: { ...quick, ...times } } });

/** Every key below the prefix, with all that it holds. */
export async function contents(client: Redis, prefix: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const key of await client.keys(`${prefix}:*`)) {
    const type: string = await client.type(key);
    const value =
      type === 'hash' ? await client.hgetall(key)
      : type === 'list' ? await client.lrange(key, 0, -1)
      : type === 'zset' ? await client.zrange(key, '0', '-1')
      : type === 'set' ? await client.smembers(key)
      : type === 'stream' ? await client.xrange(key, '-', '+')
      : await client.get(key);
    found[key] = JSON.stringify(value);
  }
  return found;
}
/** What is kept for webhooks: nothing once all is told. */
export const waiting = async (of: TestEdge) => Object.keys(await contents(of.control.redis, of.config.queuePrefix)).filter((key) => /:(webhooks|w:.*|wr:.*)$/.test(key));
