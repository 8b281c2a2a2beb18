/** Whether the process lives, whether it can serve, and what it counts. */
import { Hono } from 'hono';
import { describeRoute } from 'hono-openapi';
import { TabreelError, type ErrorCode } from '../shared/errors.ts';
import { metricText } from '../shared/metrics.ts';
import { isRefusal } from '../shared/redis-trouble.ts';
import type { AppDeps, AppEnv } from './app.ts';
import { healthDescription, metricsDescription, readyDescription } from './docs/descriptions.ts';
import { mebibytes } from './storage/storage.ts';
import { unsupported } from './unsupported.ts';

type Check = { ok: boolean; code?: ErrorCode; detail?: string };

export function healthRoutes({ config, store, media, metrics, fleet, ping, recordQueue, finishQueue, closing, log }: AppDeps): Hono<AppEnv> {
  const app = new Hono<AppEnv>();

  app.get('/healthz', describeRoute(healthDescription), (c) => c.json({ status: 'ok' }, 200, { 'Cache-Control': 'no-store' }));

  app.get('/readyz', describeRoute(readyDescription), async (c) => {
    const [redis, disk] = await Promise.all([checkRedis(), checkStorage()]);
    const checks = { redis, storage: disk, ...(closing.aborted ? { process: { ok: false, detail: 'leaving' } } : {}) };
    const ready = Object.values(checks).every(({ ok }) => ok);
    return c.json({ status: ready ? 'ready' : 'not ready', checks }, ready ? 200 : 503, { 'Cache-Control': 'no-store' });
  });

  app.get('/metrics', describeRoute(metricsDescription), async (c) => {
    let text = metrics?.text() ?? '';
    // what Redis knows is missing while it is away; what this process counts is not
    try {
      const [recordings, { slots, demand }] = await Promise.all([store.counts(), fleet()]);
      const counts = Object.entries(recordings);
      const { workers, full: _, ...states } = slots;
      text += metricText('tabreel_workers', 'gauge', 'Workers that are there.', [{ value: workers }]);
      text += metricText('tabreel_slots', 'gauge', 'Slots of all workers, by what they do.', Object.entries(states).map(([state, value]) => ({ labels: { state }, value })));
      text += metricText('tabreel_demand', 'gauge', 'Slots that the fleet needs now: waiting, due soon, and running on workers that stay, or of such that have no room left.', [{ value: demand }]);
      text += metricText('tabreel_recordings', 'gauge', 'Recordings in each state.', counts.map(([state, value]) => ({ labels: { state }, value })));
      // queues have the same metrics: only samples may be repeated, not their heads
      const queues = await Promise.all([recordQueue.exportPrometheusMetrics(), finishQueue.exportPrometheusMetrics()]);
      text += [...new Set(queues.flatMap((part) => part.split('\n')).filter((line) => line !== ''))].sort(byMetric).join('\n') + '\n';
    } catch (error) {
      log.debug('metrics without Redis', { error });
    }
    return c.body(text, 200, { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8', 'Cache-Control': 'no-store' });
  });

  async function checkRedis(): Promise<Check> {
    try {
      await ping();
      return { ok: true };
    } catch (error) {
      return { ok: false, detail: isRefusal((error as Error).message) ? 'refuses this service; why is in the log' : 'does not answer' };
    }
  }

  async function checkStorage(): Promise<Check> {
    if (!media) {
      return config.mediaUrl === null
        ? { ok: false, detail: unsupported('create').message }
        : { ok: true, detail: 'none: media goes to MEDIA_URL' };
    }
    try {
      const { freeBytes } = await media.storage.check();
      const needed = await media.storage.minFreeBytes();
      if (freeBytes === null || freeBytes >= needed) return { ok: true };
      return { ok: false, code: 'storage_full', detail: `${mebibytes(freeBytes)} MiB free, ${mebibytes(needed)} needed` };
    } catch (error) {
      log.error('the storage is not writable', { error });
      if (!(error instanceof TabreelError)) return { ok: false, detail: 'not writable' };
      return { ok: false, code: error.code, detail: error.message };
    }
  }

  return app;
}

/** A metric's HELP and TYPE before its samples, metrics together. */
function byMetric(a: string, b: string): number {
  const key = (line: string) => {
    const [, comment, name] = /^(?:# (HELP|TYPE) )?([A-Za-z0-9_:]+)/.exec(line) ?? [];
    return `${name} ${comment === 'HELP' ? 0 : comment === 'TYPE' ? 1 : 2}`;
  };
  return key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0;
}
