/** Counts of this process as Prometheus text (exposition format 0.0.4). */
import type { MiddlewareHandler } from 'hono';
import { routePath } from 'hono/route';
import { closeCodes } from '../shared/media-protocol.ts';
import { labelText, metricText, type Labels } from '../shared/metrics.ts';

/** Seconds. */
const buckets = [0.005, 0.02, 0.1, 0.5, 1, 2, 5];

const ownCodes: readonly number[] = Object.values(closeCodes).map(({ code }) => code);

export type EdgeMetrics = ReturnType<typeof createMetrics>;

/** @param media null where this process takes none */
export function createMetrics(media: { openSockets(): number; eventLoopDelay(): number } | null) {
  const requests = new Map<string, { labels: Labels; count: number; sum: number; within: number[] }>();
  const stored = new Map<string, { parts: number; bytes: number }>();
  const opened = { first: 0, again: 0 };
  const closed = new Map<string, number>();

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

    /** @param again parts of the same attempt had come over another socket before */
    opened(again: boolean): void {
      opened[again ? 'again' : 'first'] += 1;
    },

    closed(code: number): void {
      // the other side may say what it likes
      const label = ownCodes.includes(code) || (code >= 1000 && code <= 1015) ? String(code) : 'other';
      closed.set(label, (closed.get(label) ?? 0) + 1);
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
        metricText('tabreel_media_sockets_opened_total', 'counter', 'Media sockets opened: the first of an attempt, or again.', Object.entries(opened).map(([socket, value]) => ({ labels: { socket }, value }))),
        metricText('tabreel_media_sockets_closed_total', 'counter', 'Media sockets closed, by close code; 1006 is a cut.', [...closed].map(([code, value]) => ({ labels: { code }, value }))),
        metricText('tabreel_stored_parts_total', 'counter', 'Parts of recordings stored.', kinds.map(([type, { parts }]) => ({ labels: { type }, value: parts }))),
        metricText('tabreel_stored_bytes_total', 'counter', 'Bytes of recordings stored.', kinds.map(([type, { bytes }]) => ({ labels: { type }, value: bytes }))),
        metricText('tabreel_event_loop_delay_seconds', 'gauge', 'Delay of the event loop, 99th percentile since the last scrape.', [{ value: media.eventLoopDelay() }]),
      ].join('');
    },
  };
}
