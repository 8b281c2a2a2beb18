/**
 * What Redis has to do: commands and bytes of each part of the service, and the memory of a recording's keys. `npm run bench:redis`
 * prints the tables of docs/redis.md. Counted, not timed: of the server's own counters, less what was there before.
 */
import { Redis } from 'ioredis';
import { setTimeout as sleep } from 'node:timers/promises';
import { startPages } from '../helpers/pages.ts';
import { startRedis } from '../helpers/redis.ts';
import { startService, type Service } from '../helpers/service.ts';

const SECONDS = 20;
const BURST = 100;

type Counters = { commands: number; scripts: number; read: number; written: number };

await using redis = await startRedis();
const admin = new Redis(redis.admin.redisUrl);

async function counters(): Promise<Counters> {
  const text = await admin.info('all');
  const of = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  const calls = [...text.matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)].map(([, name = '', count]) => [name, Number(count)] as const);
  const sum = (which: (name: string) => boolean) => calls.filter(([name]) => which(name)).reduce((total, [, count]) => total + count, 0);
  // what the counting itself asks is no part of it
  return { commands: sum((name) => name !== 'info'), scripts: sum((name) => name.startsWith('eval')), read: of('total_net_input_bytes'), written: of('total_net_output_bytes') };
}

async function during(work: () => Promise<unknown>): Promise<Counters> {
  const before = await counters();
  await work();
  const after = await counters();
  return Object.fromEntries(Object.entries(after).map(([name, value]) => [name, value - before[name as keyof Counters]])) as Counters;
}

const less = (all: Counters, rest: Counters): Counters =>
  Object.fromEntries(Object.entries(all).map(([name, value]) => [name, Math.max(0, value - rest[name as keyof Counters])])) as Counters;
const row = (what: string, { commands, scripts, read, written }: Counters, by: number) =>
  console.log(`| ${what} | ${(commands / by).toFixed(1)} | ${(scripts / by).toFixed(1)} | ${(read / by / 1024).toFixed(2)} | ${(written / by / 1024).toFixed(2)} |`);

/** Bytes of all keys whose name has the text, and how many they are. */
async function memoryOf(part: string): Promise<{ keys: number; bytes: number }> {
  const keys = await admin.keys(`*${part}*`);
  const sizes = await Promise.all(keys.map((key) => admin.memory('USAGE', key, 'SAMPLES', 0)));
  return { keys: keys.length, bytes: sizes.reduce((sum: number, size) => sum + (size ?? 0), 0) };
}

await using pages = await startPages();
const still = pages.url('/static.html');

async function whole(service: Service): Promise<void> {
  console.log(`| in a second | commands, those of scripts included | scripts | KiB to Redis | KiB from it |\n|---|---|---|---|---|`);
  await sleep(3000);
  const idle = await during(() => sleep(SECONDS * 1000));
  row('an edge, a finaliser and a worker that do nothing', idle, SECONDS);

  const recording = await service.create({ url: still, maxDuration: 600 });
  await service.waitFor(recording.id, 'recording');
  await sleep(3000);
  const one = await during(() => sleep(SECONDS * 1000));
  row('a recording that runs', less(one, idle), SECONDS);

  const ended = new AbortController();
  const watching = (async () => {
    for await (const event of service.events(recording.id, ended.signal)) void event;
  })().catch(() => undefined);
  await sleep(2000);
  const watched = await during(() => sleep(SECONDS * 1000));
  row('one who watches its events', less(watched, one), SECONDS);
  ended.abort();
  await watching;

  console.log('\n| each | commands | scripts | KiB to Redis | KiB from it |\n|---|---|---|---|---|');
  const scrapes = await during(async () => {
    for (let i = 0; i < 10; i += 1) await (await fetch(`${service.url}/metrics`)).text();
  });
  row("a look at the edge's `/metrics`", scrapes, 10);
  const life = await during(async () => {
    await service.record({ url: still, maxDuration: 5 });
  });
  row('a recording of 5 s from request to file, those that run beside it included', life, 1);
  const ids: string[] = [];
  const burst = await during(async () => {
    ids.push(...(await Promise.all(Array.from({ length: BURST }, () => service.create({ url: still, startAt: new Date(Date.now() + 3600_000).toISOString() })))).map(({ id }) => id));
  });
  row(`a request to record, of ${BURST} at once`, burst, BURST);

  console.log('\n| a recording | keys | KiB |\n|---|---|---|');
  const tell = async (what: string, id: string) => {
    const { keys, bytes } = await memoryOf(id);
    console.log(`| ${what} | ${keys} | ${(bytes / 1024).toFixed(1)} |`);
  };
  await tell('that waits', ids[0] ?? '');
  await tell('that runs, for a minute', recording.id);
  for (let i = 0; i < 100; i += 1) {
    const body = JSON.stringify({ label: `marker ${i}` });
    await service.api(`/v1/recordings/${recording.id}/markers`, { method: 'POST', body, headers: { 'content-type': 'application/json' } });
  }
  await tell('that runs, with a hundred markers', recording.id);
  await service.stop(recording.id);
  await service.waitFor(recording.id, 'completed');
  await tell('that is completed', recording.id);
}

await using service = await startService({ redis, slots: 2 });
await whole(service);
admin.disconnect();
