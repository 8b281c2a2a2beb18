/** Whether the finaliser lives, whether it can work, and what it counts. Nothing of a recording is told. */
import { Hono } from 'hono';
import type { Redis } from 'ioredis';
import { metricText, type Labels } from '../../shared/metrics.ts';
import type { Storage } from '../storage/storage.ts';

const PING_MS = 1000;

export type FinaliserHealth = {
  redis: Redis;
  storage: Storage;
  /** Jobs that are under way. */
  active(): number;
  /** Jobs that ended, by action and outcome. */
  jobs(): readonly { labels: Labels; value: number }[];
  leaving: AbortSignal;
};

export function finaliserHealth({ redis, storage, active, jobs, leaving }: FinaliserHealth): Hono {
  const app = new Hono();
  const headers = { 'Cache-Control': 'no-store' };
  app.get('/healthz', (c) => c.json({ status: 'ok' }, 200, headers));
  app.get('/readyz', async (c) => {
    const [isRedis, isStorage] = await Promise.all([answers(redis), works(storage)]);
    const checks = {
      redis: isRedis ? { ok: true } : { ok: false, detail: 'does not answer' },
      storage: isStorage ? { ok: true } : { ok: false, detail: 'not writable' },
      ...(leaving.aborted ? { process: { ok: false, detail: 'leaving' } } : {}),
    };
    const ready = Object.values(checks).every(({ ok }) => ok);
    return c.json({ status: ready ? 'ready' : 'not ready', checks }, ready ? 200 : 503, headers);
  });
  app.get('/metrics', (c) => {
    const text =
      metricText('tabreel_finaliser_jobs', 'gauge', 'Finish jobs under way.', [{ value: active() }]) +
      metricText('tabreel_finaliser_jobs_total', 'counter', 'Finish jobs that ended, by what was to be done and how it went; one that is tried again ends again.', jobs());
    return c.body(text, 200, { ...headers, 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' });
  });
  return app;
}

/** The client waits for Redis to come back: a probe doesn't. */
function answers(redis: Redis): Promise<boolean> {
  if (redis.status !== 'ready') return Promise.resolve(false);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const late = setTimeout(resolve, PING_MS, false);
  redis.ping().then(() => resolve(true), () => resolve(false));
  return promise.finally(() => clearTimeout(late));
}

const works = (storage: Storage): Promise<boolean> =>
  storage.check().then(
    () => true,
    () => false,
  );
