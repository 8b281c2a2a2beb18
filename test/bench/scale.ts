/**
 * `npm run bench:scale -- [disk|memory|redis]`: what one edge, with its parts on a disk or in memory, and one Redis bear. Media sockets at 3 Mb/s into one edge's process: what they
 * cost it, and how late what they send is acknowledged. What grows with the number of recordings and of workers in Redis. Who sends, and who
 * asks, runs on the same machine and takes its share of it.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { WebSocket } from 'ws';
import { newRecordingId, noStats } from '../../shared/recording.ts';
import { ATTEMPT_HEADER, encodePart, ingestMessage, MEDIA_SUBPROTOCOL } from '../../shared/media-protocol.ts';
import { networkIdentity } from '../../shared/network-identity.ts';
import { createPresence, PRESENCE_BEAT_MS } from '../../shared/presence.ts';
import { queueRecording } from '../../shared/queue.ts';
import { testEdge } from '../edge/harness.ts';
import { QUEUE_PREFIX, startFleet } from '../helpers/fleet.ts';
import { startRedis } from '../helpers/redis.ts';
import { someJob } from '../shared/some-job.ts';

const [which] = process.argv.slice(2);
const [processor] = cpus();
console.log(`${cpus().length} x ${processor?.model.trim()}; Node ${process.version}`);

const sorted = (values: readonly number[]) => values.toSorted((a, b) => a - b);
const at = (values: readonly number[], share: number) => values[Math.min(values.length - 1, Math.floor(values.length * share))] ?? NaN;
const row = (cells: readonly (string | number)[], widths: readonly number[]) => console.log(`| ${cells.map((cell, i) => String(cell).padStart(widths[i] ?? 8)).join(' | ')} |`);
const head = (cells: readonly string[]) => {
  row(cells, cells.map(({ length }) => length));
  console.log(`|${cells.map(({ length }) => `${'-'.repeat(length + 1)}:`).join('|')}|`);
  return cells.map(({ length }) => length);
};

if (which === undefined || which === 'disk') await ingest(tmpdir());
if (which === undefined || which === 'memory') await ingest('/dev/shm');
if (which === undefined || which === 'redis') await redisCosts();

/** Parts of two seconds at 3 Mb/s, as a worker sends them. */
async function ingest(place: string): Promise<void> {
  const SEGMENT_SECONDS = 2;
  const BYTES = (3_000_000 / 8) * SEGMENT_SECONDS;
  const SECONDS = 10;
  const directory = mkdtempSync(join(place, 'tabreel-bench-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  const fleet = stack.use(await startFleet({ workers: 0, storage: join(directory, 'storage'), tap: join(directory, 'tap') }));
  const redis = new Redis(fleet.redisUrl);
  const presence = createPresence(redis, QUEUE_PREFIX);
  // loopback media is for workers on this machine
  const beat = () => presence.beat(networkIdentity(), 'the bench').catch(() => undefined);
  await beat();
  const beats = setInterval(() => void beat(), PRESENCE_BEAT_MS);
  const pid = Number(/"pid":(\d+)/.exec(fleet.lines.find((line) => line.startsWith('edge-1|{"fleet":"started"')) ?? '')?.[1]);
  const used = () => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  };
  const resident = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
  const payload = new Uint8Array(BYTES).fill(7);

  const open = async (): Promise<{ run(until: number): Promise<number[]>; close(): void }> => {
    const created = await fleet.create({ url: 'https://example.com/', maxDuration: 3600 });
    const { attempt } = (await fleet.store.claim(created.id)) as { attempt: number };
    await fleet.store.change(created.id, { from: ['starting'], to: 'recording', attempt, engine: 'self', startedAt: Date.now() });
    const credential = (await fleet.store.get(created.id))?.job.credential ?? '';
    const ws = new WebSocket(created.mediaUrl, MEDIA_SUBPROTOCOL, { headers: { authorization: `Bearer ${credential}`, [ATTEMPT_HEADER]: String(attempt) }, perMessageDeflate: false });
    const sent = new Map<number, number>();
    const late: number[] = [];
    ws.on('message', (data) => {
      const message = ingestMessage.parse(JSON.parse(String(data)));
      if (message.type !== 'ack') return;
      const since = sent.get(message.seq);
      if (since !== undefined) late.push(performance.now() - since);
      sent.delete(message.seq);
    });
    await new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject));
    ws.send(Buffer.concat(encodePart({ header: { type: 'init', seq: 1 }, payload: new Uint8Array([1]) })));
    let seq = 1;
    return {
      async run(until) {
        await sleep(Math.random() * SEGMENT_SECONDS * 1000);
        for (let next = performance.now(); next < until; next += SEGMENT_SECONDS * 1000) {
          await sleep(Math.max(0, next - performance.now()));
          seq += 1;
          sent.set(seq, performance.now());
          const start = (seq - 2) * SEGMENT_SECONDS * 1e6;
          for (const part of encodePart({ header: { type: 'segment', seq, start, duration: SEGMENT_SECONDS * 1e6, frames: 60 }, payload })) ws.send(part, { fin: part === payload });
        }
        while (sent.size > 0 && ws.readyState === ws.OPEN && performance.now() < until + 10_000) await sleep(20);
        // what never came was late by all of that
        for (const since of sent.values()) late.push(performance.now() - since);
        return late.splice(0);
      },
      close: () => ws.close(),
    };
  };

  console.log(`\nMedia sockets at 3 Mb/s, one edge process, parts to ${place}\n`);
  const widths = head(['sockets', 'Mb/s', 'edge, cores', 'a socket, cores', 'sender, cores', 'acknowledged after p50, ms', 'p99, ms', 'edge, MiB']);
  const sockets: Awaited<ReturnType<typeof open>>[] = [];
  for (const count of [25, 50, 100, 200, 300, 400, 500]) {
    while (sockets.length < count) sockets.push(...(await Promise.all(Array.from({ length: Math.min(10, count - sockets.length) }, open))));
    await sleep(500);
    const [before, own, began] = [used(), process.cpuUsage(), performance.now()];
    const until = began + SECONDS * 1000;
    const running = Promise.all(sockets.map((socket) => socket.run(until)));
    await sleep(SECONDS * 1000);
    const cores = ((used() - before) / (performance.now() - began)) * 1000;
    const { user, system } = process.cpuUsage(own);
    const sender = (user + system) / 1000 / (performance.now() - began);
    const memory = resident();
    const late = sorted((await running).flat());
    row([count, count * 3, cores.toFixed(2), (cores / count).toFixed(4), sender.toFixed(2), at(late, 0.5).toFixed(0), at(late, 0.99).toFixed(0), memory.toFixed(0)], widths);
    if (at(late, 0.99) > 2 * SEGMENT_SECONDS * 1000) break;
  }
  for (const socket of sockets) socket.close();
  clearInterval(beats);
  redis.disconnect();
}

async function redisCosts(): Promise<void> {
  await using server = await startRedis();
  await using edge = await testEdge(server.url);
  const { control, config } = edge;
  const { redis, store } = control;
  const prefix = config.queuePrefix;
  const ids: string[] = [];
  const fill = async (count: number) => {
    while (ids.length < count) {
      const batch = Array.from({ length: Math.min(200, count - ids.length) }, () => newRecordingId());
      await Promise.all(
        batch.map(async (id) => {
          const job = someJob(id);
          await store.create({ job, origin: { scheme: 'https', host: 'rec.example.com', port: null, source: 'socket' }, metadata: {}, priority: 0, startAt: null, idempotency: null, now: Date.now() });
          // the queue has as many that wait for their time
          await queueRecording(control.recordQueue, { id, job, priority: 0, startAt: new Date(Date.now() + 3600_000).toISOString() }, Date.now());
          await store.claim(id);
          await store.change(id, { from: ['starting'], to: 'recording', attempt: 1, engine: 'self', startedAt: Date.now() });
        }),
      );
      ids.push(...batch);
    }
  };
  const busy = async () => {
    const info = await redis.info('cpu');
    return Number(/used_cpu_user:([\d.]+)/.exec(info)?.[1]) + Number(/used_cpu_sys:([\d.]+)/.exec(info)?.[1]);
  };
  /** Milliseconds for whoever asks, and of the processor for Redis. */
  const measure = async (calls: number, act: () => Promise<unknown>): Promise<{ asked: number; redis: number }> => {
    for (let i = 0; i < 3; i += 1) await act();
    const times: number[] = [];
    const before = await busy();
    for (let i = 0; i < calls; i += 1) {
      const began = performance.now();
      await act();
      times.push(performance.now() - began);
    }
    return { asked: at(sorted(times), 0.5), redis: (((await busy()) - before) / calls) * 1000 };
  };
  const asks: Record<string, [number, () => Promise<unknown>]> = {
    'counts of all states': [200, () => store.counts()],
    'a page of 100 of the list': [100, () => store.list({ limit: 100 })],
    'a page of 100, from the middle': [100, () => store.list({ limit: 100, cursor: ids[Math.floor(ids.length / 2)] as string })],
    'who is overdue (each worker, each second)': [500, () => store.deadlines()],
    'a round of the reconciler': [100, () => Promise.all([store.since('jobless', 5000, 100), store.since('removing', 20_000, 100), store.someIn('finishing', 100), store.since('ended', 1e9, 100)])],
    'a beat (each recording, each second)': [500, () => store.beat(ids[Math.floor(Math.random() * ids.length)] as string, 1, { stats: { ...noStats, frames: 1000 }, duration: 5, stored: true })],
    'metrics of an edge': [50, () => fetch(`${edge.url}/metrics`).then((answer) => answer.text())],
  };
  const keep = async () => {
    // nobody is overdue while it measures
    const pipeline = redis.pipeline();
    for (const id of ids) pipeline.zadd(`${prefix}:beats`, Date.now() + 3600_000, id);
    await pipeline.exec();
  };

  console.log('\nBy the number of recordings that run: milliseconds for who asks, and of the processor for Redis\n');
  const sizes = [100, 1000, 10_000];
  const found = new Map<string, string[]>();
  for (const size of sizes) {
    await fill(size);
    await keep();
    for (const [name, [calls, act]] of Object.entries(asks)) {
      const { asked, redis: ofRedis } = await measure(calls, act);
      found.set(name, [...(found.get(name) ?? []), `${asked.toFixed(2)}, ${ofRedis.toFixed(2)}`]);
    }
  }
  const widths = head(['what                                     ', ...sizes.map((size) => ` ${size.toLocaleString('en').padStart(10)}`)]);
  for (const [name, cells] of found) row([name.padEnd(widths[0] ?? 0), ...cells], widths);

  console.log('\nThe fleet of the metrics, by the number of workers\n');
  const fleetWidths = head(['workers', 'asked, ms', 'Redis, ms']);
  const presence = createPresence(redis, prefix);
  for (const [i, size] of [10, 100, 1000, 5000].entries()) {
    for (let worker = i === 0 ? 0 : ([10, 100, 1000, 5000][i - 1] ?? 0); worker < size; worker += 1) await presence.beat('there', `w${worker}`, { slots: 2, running: 1, room: 1, leaving: false });
    // their word is to hold for as long as this takes
    const pipeline = redis.pipeline();
    for (let worker = 0; worker < size; worker += 1) pipeline.hset(`${prefix}:fleet`, `w${worker}`, `${Date.now() + 3600_000} 2 1 1 0`);
    await pipeline.exec();
    const { asked, redis: ofRedis } = await measure(50, () => presence.fleet());
    row([size, asked.toFixed(2), ofRedis.toFixed(2)], fleetWidths);
  }

  console.log('\nAs many at once as Redis takes\n');
  const manyWidths = head(['what                                     ', 'a second', 'cores of Redis']);
  for (const name of ['a beat (each recording, each second)', 'who is overdue (each worker, each second)'] as const) {
    const [, act] = asks[name] as [number, () => Promise<unknown>];
    const [before, began] = [await busy(), performance.now()];
    let done = 0;
    const lane = async () => {
      while (performance.now() - began < 4000) {
        await act();
        done += 1;
      }
    };
    await Promise.all(Array.from({ length: 100 }, lane));
    const passed = (performance.now() - began) / 1000;
    row([name.padEnd(manyWidths[0] ?? 0), Math.round(done / passed), (((await busy()) - before) / passed).toFixed(2)], manyWidths);
  }
}
