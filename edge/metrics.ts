/** Counts of this process as Prometheus text (exposition format 0.0.4). */
import type { MiddlewareHandler } from 'hono';
import { routePath } from 'hono/route';

type Kind = 'counter' | 'gauge' | 'histogram';
type Labels = Readonly<Record<string, string | number>>;

/** Seconds. */
const buckets = [0.005, 0.02, 0.1, 0.5, 1, 2, 5];

const labelText = (labels: Labels): string => {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${String(value).replaceAll(/["\\\n]/g, '_')}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
};

export type Sample = { labels?: Labels; value: number };

/** One metric with its samples, as text. */
export function metricText(name: string, kind: Kind, help: string, samples: readonly (Sample & { suffix?: string })[]): string {
  const lines = samples.map(({ suffix = '', labels = {}, value }) => `${name}${suffix}${labelText(labels)} ${value}`);
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`, ...lines, ''].join('\n');
}

export type EdgeMetrics = ReturnType<typeof createMetrics>;

/** @param media null where this process takes none */
export function createMetrics(media: { openSockets(): number; eventLoopDelay(): number } | null) {
  const requests = new Map<string, { labels: Labels; count: number; sum: number; within: number[] }>();
  const stored = new Map<string, { parts: number; bytes: number }>();

  const middleware: MiddlewareHandler = async (c, next) => {
    const begin = performance.now();
    await next();
    const seconds = (performance.now() - begin) / 1000;
    // the pattern, not the path: ids would make a series for each recording
    const route = routePath(c, -1);
    const labels = { method: c.req.method, route: route.endsWith('*') ? 'none' : route, status: c.res.status };
    const key = labelText(labels);
    const entry = requests.get(key) ?? { labels, count: 0, sum: 0, within: buckets.map(() => 0) };
    requests.set(key, entry);
    entry.count += 1;
    entry.sum += seconds;
    buckets.forEach((limit, i) => {
      if (seconds <= limit) entry.within[i] = (entry.within[i] ?? 0) + 1;
    });
  };

  return {
    middleware,

    stored(kind: string, bytes: number): void {
      const entry = stored.get(kind) ?? { parts: 0, bytes: 0 };
      stored.set(kind, { parts: entry.parts + 1, bytes: entry.bytes + bytes });
    },

    text(): string {
      const latency = [...requests.values()].flatMap(({ labels, count, sum, within }) => [
        ...buckets.map((le, i) => ({ suffix: '_bucket', labels: { ...labels, le }, value: within[i] ?? 0 })),
        { suffix: '_bucket', labels: { ...labels, le: '+Inf' }, value: count },
        { suffix: '_sum', labels, value: sum },
        { suffix: '_count', labels, value: count },
      ]);
      const http = metricText('tabreel_http_request_seconds', 'histogram', 'Time to the head of the answer.', latency);
      if (media === null) return http;
      const kinds = [...stored.entries()];
      return [
        http,
        metricText('tabreel_media_sockets', 'gauge', 'Open media sockets.', [{ value: media.openSockets() }]),
        metricText('tabreel_stored_parts_total', 'counter', 'Parts of recordings stored.', kinds.map(([type, { parts }]) => ({ labels: { type }, value: parts }))),
        metricText('tabreel_stored_bytes_total', 'counter', 'Bytes of recordings stored.', kinds.map(([type, { bytes }]) => ({ labels: { type }, value: bytes }))),
        metricText('tabreel_event_loop_delay_seconds', 'gauge', 'Delay of the event loop, 99th percentile since the last scrape.', [{ value: media.eventLoopDelay() }]),
      ].join('');
    },
  };
}
