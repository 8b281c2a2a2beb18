/**
 * Whether the worker lives, whether it takes recordings, and what it counts. Nothing of a recording is told.
 *
 * It lives if its event loop turns, which the answer itself shows, and the queue is asked for jobs. Redis has no part in that: a
 * worker that was killed because Redis is away would take recordings with it that go on without.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Redis } from 'ioredis';
import { metricText } from '../shared/metrics.ts';
import type { Consumer } from './consumer.ts';
import type { SelfTestState } from './preparation.ts';
import type { RecorderPool } from './recorder-pool.ts';

const PING_MS = 1000;

export type HealthOptions = {
  /** 0 for any free one. */
  port: number;
  slots: number;
  consumer: Pick<Consumer, 'counts' | 'isAlive'>;
  pool: Pick<RecorderPool, 'ready' | 'isFailing'>;
  selfTest(): SelfTestState;
  /** Further metrics, as Prometheus reads them. */
  metrics(): string;
  redis: Redis;
};

type Check = { ok: boolean; code?: string; detail?: string };

/** Listens on all addresses, as probes come from outside of a container. @throws where the port is taken */
export async function startHealthServer(options: HealthOptions): Promise<AsyncDisposable & { port: number }> {
  const { slots, consumer, pool, redis } = options;

  const metrics = () => {
    const { active, begun, draining } = consumer.counts();
    const metric = (name: string, type: 'gauge' | 'counter', help: string, value: number) =>
      metricText(`tabreel_worker_${name}`, type, help, [{ value }]);
    return (
      metric('slots', 'gauge', 'Recordings that may run at once.', slots) +
      metric('recordings', 'gauge', 'Recordings that run now.', active) +
      metric('attempts_total', 'counter', 'Attempts begun.', begun) +
      metric('processes_ready', 'gauge', 'Processes that wait for a recording.', pool.ready()) +
      metric('draining', 'gauge', '1 once the worker takes no more recordings.', draining ? 1 : 0) +
      metric('self_test_passed', 'gauge', '1 once the worker has recorded its own page, or needn\'t.', options.selfTest().passed ? 1 : 0) +
      options.metrics()
    );
  };

  const isReady = async (): Promise<Record<string, Check>> => {
    const { passed, error } = options.selfTest();
    const { draining } = consumer.counts();
    return {
      redis: (await answers(redis)) ? { ok: true } : { ok: false, detail: 'does not answer' },
      browser: passed ? { ok: true } : error === null ? { ok: false, detail: 'is being tried' } : { ok: false, code: error.code, detail: error.message },
      processes: pool.isFailing() ? { ok: false, detail: 'those of recordings do not start' } : { ok: true },
      ...(draining ? { process: { ok: false, detail: 'leaving' } } : {}),
    };
  };

  const server = createServer((request, response) => {
    const answer = (status: number, body: string, type = 'application/json') =>
      response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body);
    const tell = (checks: Record<string, Check>, good: string, bad: string) => {
      const all = Object.values(checks).every(({ ok }) => ok);
      answer(all ? 200 : 503, JSON.stringify({ status: all ? good : bad, checks }));
    };
    const path = request.url?.split('?')[0];
    if (path === '/healthz') tell({ queue: consumer.isAlive() ? { ok: true } : { ok: false, detail: 'is not asked for jobs any more' } }, 'ok', 'broken');
    else if (path === '/metrics') answer(200, metrics(), 'text/plain; version=0.0.4; charset=utf-8');
    else if (path === '/readyz') void isReady().then((checks) => tell(checks, 'ready', 'not ready'));
    else answer(404, '{"status":"there is nothing here"}');
  });
  server.listen(options.port);
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** A patient client would wait for Redis to come back: a probe doesn't. */
async function answers(redis: Redis): Promise<boolean> {
  if (redis.status !== 'ready') return false;
  const ping = redis.ping().then(
    () => true,
    () => false,
  );
  const late = new Promise<boolean>((resolve) => setTimeout(resolve, PING_MS, false).unref());
  return Promise.race([ping, late]);
}
