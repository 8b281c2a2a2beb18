import { afterAll, beforeAll, expect, test } from 'vitest';
import { noStats } from '../../shared/recording.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis);
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

type Sse = { id: string; event: string; data: any };

/** Collects events until the stream ends. */
async function watchEvents(url: string, lastEventId?: string) {
  const abort = new AbortController();
  const response = await fetch(url, { signal: abort.signal, headers: lastEventId === undefined ? {} : { 'last-event-id': lastEventId } });
  const events: Sse[] = [];
  const waiters = new Set<() => void>();
  const ended = (async () => {
    let rest = '';
    for await (const chunk of (response.body ?? new ReadableStream<Uint8Array>()).pipeThrough(new TextDecoderStream() as any) as unknown as AsyncIterable<string>) {
      const blocks = (rest + chunk).split('\n\n');
      rest = blocks.pop() ?? '';
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]));
        if (fields['id']) events.push({ id: fields['id'], event: fields['event'] ?? '', data: JSON.parse(fields['data'] ?? 'null') });
      }
      for (const waiter of waiters) waiter();
    }
  })().catch(() => undefined);
  return {
    status: response.status,
    type: response.headers.get('content-type'),
    events,
    ended,
    abort: () => abort.abort(),
    async until(holds: (events: Sse[]) => boolean) {
      while (!holds(events)) await new Promise<void>((resolve) => waiters.add(resolve));
    },
  };
}

test('tells each state, progress and line, and ends with the recording', async () => {
  const { id, links } = await edge.create();
  const stream = await watchEvents(links.events);
  expect(stream).toMatchObject({ status: 200, type: 'text/event-stream' });
  const attempt = await edge.control.run(id);
  await edge.control.store.beat(id, attempt, { stats: { ...noStats, frames: 30 }, duration: 1, stored: true });
  await edge.control.store.log(id, 'hello');
  await stream.until((events) => events.length >= 5);
  expect(stream.events.map(({ event, data }) => [event, data.state ?? data.frames ?? data.message])).toEqual([
    ['state', 'queued'],
    ['state', 'starting'],
    ['state', 'recording'],
    ['stats', 30],
    ['log', 'hello'],
  ]);

  // a watcher that was cut off goes on behind what it saw
  const resumed = await watchEvents(links.events, stream.events[3]?.id);
  await resumed.until((events) => events.length >= 1);
  expect(resumed.events[0]?.data.message).toBe('hello');

  await edge.control.store.change(id, { from: ['recording'], to: 'finishing' });
  await edge.control.store.change(id, { from: ['finishing'], to: 'completed' });
  await stream.ended;
  await resumed.ended;
  expect(stream.events.at(-1)?.data.state).toBe('completed');
  expect(resumed.events.at(-1)?.data.state).toBe('completed');
  expect((await watchEvents(links.events, stream.events.at(-1)?.id)).status).toBe(204);
  const late = await watchEvents(links.events);
  await late.ended;
  expect(late.events.at(-1)?.data.state).toBe('completed');
});

test('tells of pauses and markers', async () => {
  const { id, links } = await edge.create();
  const stream = await watchEvents(links.events);
  const attempt = await edge.control.run(id);
  const marked = await edge.api(links.markers, { method: 'POST', body: JSON.stringify({ label: 'Questions' }), headers: { 'content-type': 'application/json' } });
  expect(marked).toMatchObject({ status: 200, body: { markers: [{ label: 'Questions' }] } });
  await edge.api(links.pause, { method: 'POST' });
  await edge.control.store.change(id, { from: ['recording'], to: 'paused', attempt, pausedAt: Date.now() });
  await edge.api(links.resume, { method: 'POST' });
  await edge.control.store.change(id, { from: ['paused'], to: 'recording', attempt, pausedAt: null });
  await edge.api(links.cancel, { method: 'POST' });
  await edge.control.store.change(id, { from: ['recording'], to: 'canceled', attempt });
  await stream.ended;
  expect(stream.events.map(({ event, data }) => [event, data.state ?? data.message])).toEqual([
    ['state', 'queued'],
    ['state', 'starting'],
    ['state', 'recording'],
    ['log', 'marker: Questions'],
    ['state', 'paused'],
    ['state', 'recording'],
    ['state', 'canceled'],
  ]);
});

test('many watchers share one connection to Redis', async () => {
  const all = await Promise.all(Array.from({ length: 10 }, () => edge.create()));
  const before = Number(/connected_clients:(\d+)/.exec(String(await edge.control.redis.info('clients')))?.[1] ?? 0);
  const streams = await Promise.all(all.map(({ links }) => watchEvents(links.events)));
  await Promise.all(streams.map((stream) => stream.until((events) => events.length === 1)));
  const after = Number(/connected_clients:(\d+)/.exec(String(await edge.control.redis.info('clients')))?.[1] ?? 0);
  expect(after).toBe(before);
  await Promise.all(all.map(({ id }) => edge.api(`/v1/recordings/${id}/stop`, { method: 'POST' })));
  await Promise.all(streams.map(({ ended }) => ended));
  expect(streams.map(({ events }) => events.at(-1)?.data.state)).toEqual(all.map(() => 'canceled'));
});

test('ends when the recording is deleted, and when the edge leaves', async () => {
  const deleted = await edge.create();
  const first = await watchEvents(deleted.links.events);
  await first.until((events) => events.length === 1);
  await edge.api(`/v1/recordings/${deleted.id}`, { method: 'DELETE' });
  await first.ended;

  const leaving = await testEdge(redis);
  const { links } = await leaving.create();
  const second = await watchEvents(links.events);
  await second.until((events) => events.length === 1);
  const begin = Date.now();
  await leaving[Symbol.asyncDispose]();
  await second.ended;
  expect(Date.now() - begin).toBeLessThan(10_000);
});
