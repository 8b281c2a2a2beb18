/** Whether the worker lives, whether it takes recordings, and what it counts. Nothing of a recording is told. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Redis } from 'ioredis';
import { metricText } from '../shared/metrics.ts';
import type { ConsumerCounts } from './consumer.ts';

const PING_MS = 1000;

export type HealthOptions = {
  /** 0 for any free one. */
  port: number;
  slots: number;
  counts(): ConsumerCounts;
  /** Processes that wait for a recording. */
  ready(): number;
  /** Further metrics, as Prometheus reads them. */
  media(): string;
  redis: Redis;
};

/** Listens on all addresses, as probes come from outside of a container. @throws where the port is taken */
export async function startHealthServer(options: HealthOptions): Promise<AsyncDisposable & { port: number }> {
  const { slots, counts, redis } = options;

  const metrics = () => {
    const { active, begun, draining } = counts();
    const metric = (name: string, type: 'gauge' | 'counter', help: string, value: number) =>
      metricText(`tabreel_worker_${name}`, type, help, [{ value }]);
    return (
      metric('slots', 'gauge', 'Recordings that may run at once.', slots) +
      metric('recordings', 'gauge', 'Recordings that run now.', active) +
      metric('attempts_total', 'counter', 'Attempts begun.', begun) +
      metric('processes_ready', 'gauge', 'Processes that wait for a recording.', options.ready()) +
      metric('draining', 'gauge', '1 once the worker takes no more recordings.', draining ? 1 : 0) +
      options.media()
    );
  };

  const server = createServer((request, response) => {
    const answer = (status: number, body: string, type = 'application/json') =>
      response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body);
    const path = request.url?.split('?')[0];
    if (path === '/healthz') answer(200, '{"status":"ok"}');
    else if (path === '/metrics') answer(200, metrics(), 'text/plain; version=0.0.4; charset=utf-8');
    else if (path === '/readyz') {
      void answers(redis).then((reachable) => {
        const { draining } = counts();
        const ready = reachable && !draining;
        answer(ready ? 200 : 503, JSON.stringify({ status: ready ? 'ready' : 'not ready', redis: reachable, draining }));
      });
    } else answer(404, '{"status":"there is nothing here"}');
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
