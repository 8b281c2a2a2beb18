/**
 * `npm run soak -- [scenario ...] [--seed N] [--count N]`: months of trouble in minutes. Real processes, real kills; prints what was
 * measured, and exits with 1 where something is not as it should be. Without a name: all scenarios, and a table of them at the end.
 * `--count`: of kills, cuts, stops, pauses, recordings.
 */
import { parseArgs } from 'node:util';
import { lacks } from '../helpers/service.ts';
import { newSeed, seconds, type Outcome } from './outcome.ts';
import { killCreates } from '../system/create-killed.ts';
import { burst } from './burst.ts';
import { cuts } from './cuts.ts';
import { fullDisk } from './full-disk.ts';
import { hostile, hostileDeeds } from './hostile.ts';
import { kills, killsOf } from './kills.ts';
import { many } from './many.ts';
import { pauses } from './pauses.ts';
import { redisAway } from './redis-away.ts';
import { stops } from './stops.ts';

const scenarios: Readonly<Record<string, (seed: number, count?: number) => Promise<Outcome>>> = {
  kills: (seed, count = 20) => kills({ seed, length: count * 6, kills: killsOf(seed, count), settle: 60_000 }),
  cuts: (seed, count = 30) => cuts({ seed, count, length: count * 5, stalls: Math.round(count / 15), stall: 20 }),
  'create-killed': async (seed, count = 50) => {
    const { took, ...found } = await killCreates(count);
    const good = found.kills === count && found.doubled === 0 && found.recordings === count && found.unqueued === 0 && found.jobs === count && found.left === 0;
    return { seed, figures: { ...found, 'last job queued after, s': seconds(took * 1000) }, failures: good ? [] : ['a recording is lost, there twice, or was answered for without a job'] };
  },
  stops: (seed, count = 50) => stops({ seed, count, latest: 8, lanes: 2, amid: Math.round(count / 5) }),
  pauses: (seed, count = 3) => pauses({ seed, count, length: count * 20 }),
  'full-disk': (seed) => fullDisk({ seed, length: 25, full: 8, stop: false }),
  'full-disk-at-the-end': (seed) => fullDisk({ seed, length: 15, full: 12, stop: true }),
  many: (seed, count = 200) => many({ seed, count, length: 5, workers: 2, slots: 3, apart: [5, 12], patience: 60 + count * 5 }),
  burst: (seed, count = 30) => burst({ seed, count, slots: 2, most: 6, faster: 30, webinars: 2, patience: 200 }),
  hostile: () => hostile({ engine: 'self', length: 14, deeds: Object.keys(hostileDeeds) as (keyof typeof hostileDeeds)[] }),
  'hostile-tab': () => hostile({ engine: 'tab', length: 14, deeds: Object.keys(hostileDeeds) as (keyof typeof hostileDeeds)[] }),
  'redis-away': (seed) => redisAway({ seed, away: 60, after: 12 }),
};

const { values, positionals } = parseArgs({ allowPositionals: true, options: { seed: { type: 'string' }, count: { type: 'string' } } });
const unknown = positionals.filter((name) => scenarios[name] === undefined);
if (unknown.length > 0) {
  console.error(`There is no ${unknown.join(', ')}: only ${Object.keys(scenarios).join(', ')}`);
  process.exit(2);
}
if (await lacks('ffmpeg', 'redis-server', 'headless shell')) process.exit(2);
const noDisk = await lacks('root');

type Row = { name: string; seed: number; took: string; found: string };
const rows: Row[] = [];
let failed = false;
for (const name of positionals.length > 0 ? positionals : Object.keys(scenarios)) {
  const seed = values.seed === undefined ? newSeed() : Number(values.seed);
  if (noDisk && name.startsWith('full-disk')) {
    rows.push({ name, seed, took: '-', found: 'not run: needs root' });
    continue;
  }
  console.log(`\n${name}, seed ${seed}`);
  const began = performance.now();
  const { figures, failures } = await (scenarios[name] as (typeof scenarios)[string])(seed, values.count === undefined ? undefined : Number(values.count)).catch((error: unknown) => ({
    figures: {},
    failures: [(error as Error).stack ?? String(error)],
  }));
  const took = ((performance.now() - began) / 1000).toFixed(0);
  for (const [figure, value] of Object.entries(figures)) console.log(`  ${figure.padEnd(30)}${value}`);
  console.log(`  ${'took, s'.padEnd(30)}${took}`);
  for (const failure of failures) console.log(`  FAIL  ${failure}`);
  if (failures.length > 0) failed = true;
  rows.push({ name, seed, took, found: failures.length === 0 ? 'ok' : `FAIL (${failures.length})` });
}
if (rows.length > 1) {
  const line = ({ name, seed, took, found }: Record<keyof Row, string | number>) => `${String(name).padEnd(24)}${String(seed).padStart(12)}${String(took).padStart(9)}  ${found}`;
  console.log(`\n${line({ name: 'scenario', seed: 'seed', took: 'took, s', found: '' }).trimEnd()}`);
  for (const row of rows) console.log(line(row));
}
process.exit(failed ? 1 : 0);
