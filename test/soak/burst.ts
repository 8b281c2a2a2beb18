/**
 * More recordings at once than the fleet has slots for: workers are started and stopped by the scaling rule, as Kubernetes would,
 * from what the edge's /metrics says. The rule's times pass so many times as fast; starts, recordings and drains are real.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { isEnd } from '../../shared/recording.ts';
import { startFleet, type AddedWorker, type Fleet } from '../helpers/fleet.ts';
import { startPages } from '../helpers/pages.ts';
import { SYNC_SECONDS } from '../simulation/hpa.ts';
import { createScaler, readRule } from '../simulation/rule.ts';
import { examine, nothingLeft } from './examine.ts';
import { between, most, seconds, seeded, type Outcome } from './outcome.ts';

export type BurstOptions = {
  seed: number;
  count: number;
  /** Of a worker. */
  slots: number;
  /** Workers at most: the rule's maxReplicas. */
  most: number;
  /** How many times as fast the rule's times pass. */
  faster: number;
  /** How many of the recordings outlast all the others, on workers that are told to leave. */
  webinars: number;
  /** Seconds for all of it. */
  patience: number;
};

/** Seconds: of a recording; within which all are asked for; how long before its time one of four is announced. */
const LENGTH = [5, 10] as const;
const ASKED_WITHIN = 6;
const AHEAD = 15;
/** Seconds between two lines of the table. */
const TOLD_EVERY = 5;

type Look = { demand: number | null; free: number; busy: number; leaving: number; waiting: number };

export async function burst({ seed, count, slots, most: maxReplicas, faster, webinars, patience }: BurstOptions): Promise<Outcome> {
  const random = seeded(seed);
  const failures: string[] = [];
  const check = (good: boolean, what: string) => void (good || failures.push(what));
  const rule = { ...readRule(), maxReplicas };
  await using pages = await startPages();
  await using fleet = await startFleet({ workers: 0, slots, random });
  const began = performance.now();
  const time = () => (performance.now() - began) / 1000;

  const scaler = createScaler(rule, slots);
  let there: { worker: AddedWorker; since: number; rank: number }[] = [];
  const leaving = new Set<Promise<unknown>>();
  const exits: (number | null)[] = [];
  let started = 0;
  let alive = 0;
  let aliveMost = 0;
  let aliveSeconds = 0;
  const add = () => {
    there.push({ worker: fleet.addWorker(), since: time(), rank: random() });
    started += 1;
    alive += 1;
    aliveMost = Math.max(aliveMost, alive);
  };
  /** As a ReplicaSet ranks them: what does not serve yet, then the newest by powers of two, then any. */
  const remove = (number: number) => {
    const key = ({ worker, since, rank }: (typeof there)[number]) => [worker.serves() ? 1 : 0, Math.floor(Math.log2(Math.max(0.001, time() - since))), rank] as const;
    const order = there.toSorted((a, b) => key(a).map((part, i) => part - (key(b)[i] as number)).find((by) => by !== 0) ?? 0);
    const going = order.slice(0, number);
    there = there.filter((each) => !going.includes(each));
    for (const { worker } of going) {
      const left = worker.leave().then((code) => {
        exits.push(code);
        alive -= 1;
        leaving.delete(left);
      });
      leaving.add(left);
    }
  };

  const looks: (Look & { at: number; workers: number; serving: number; going: number })[] = [];
  let over = false;
  let lastSync = 0;
  const scaling = (async () => {
    for (let i = 0; i < rule.minReplicas; i += 1) add();
    while (!over) {
      const look = await lookAt(fleet);
      const now = time();
      aliveSeconds += alive * (now - lastSync);
      lastSync = now;
      const wanted = scaler.sync(now * faster, there.length, look.demand);
      while (there.length < wanted) add();
      if (there.length > wanted) remove(there.length - wanted);
      looks.push({ ...look, at: now, workers: there.length, serving: there.filter(({ worker }) => worker.serves()).length, going: leaving.size });
      await sleep((SYNC_SECONDS / faster) * 1000);
    }
  })();

  // the fleet is at its least when it comes
  while (!there.some(({ worker }) => worker.serves()) && time() < 60) await sleep(100);
  const from = time();
  const long = new Set(Array.from({ length: webinars }, (_, i) => Math.floor(((i + 1) * count) / (webinars + 1))));
  const asked: { id: string; long: boolean; announced: boolean }[] = [];
  for (let i = 0; i < count; i += 1) {
    const announced = i % 4 === 3 && !long.has(i);
    const { id } = await fleet.create({
      url: pages.url('/animated.html'),
      width: 320,
      height: 180,
      // webinars are ended by a stop
      maxDuration: long.has(i) ? patience : between(random, ...LENGTH),
      ...(announced ? { startAt: new Date(Date.now() + AHEAD * 1000).toISOString() } : {}),
    });
    asked.push({ id, long: long.has(i), announced });
    await sleep(Math.max(0, (from + ((i + 1) * ASKED_WITHIN) / count - time()) * 1000));
  }
  const open = async (of: typeof asked) => (await Promise.all(of.map(({ id }) => fleet.get(id)))).filter(({ state }) => !isEnd(state)).length;
  const short = asked.filter((each) => !each.long);
  while ((await open(short)) > 0 && time() < patience) await sleep(1000);
  const shortOver = time();
  // then the fleet shrinks around the webinars
  const least = Math.max(rule.minReplicas, Math.ceil((webinars * (1 + rule.headroom.share) + rule.headroom.slots) / slots));
  while (there.length > least && time() < patience) await sleep(200);
  await sleep(2000);
  const shrunk = time();
  const running = await Promise.all(asked.filter((each) => each.long).map(({ id }) => fleet.get(id)));
  for (const { id, state } of running) check(state === 'recording', `${id}, a webinar, is ${state} when the fleet has shrunk`);
  for (const { id } of running) await fleet.stop(id);
  for (const { id } of asked) await fleet.waitFor(id, 'completed', 30_000).catch((error: unknown) => failures.push((error as Error).message));
  // no demand any more
  while (there.length > rule.minReplicas && time() < patience) await sleep(200);
  over = true;
  await scaling;
  const atEnd = there.length;
  remove(there.length);
  await Promise.all(leaving);
  check(atEnd === rule.minReplicas, `${atEnd} workers are left, not ${rule.minReplicas}`);
  check(exits.length === started && exits.every((code) => code === 0), `workers ended with ${exits.join(', ')}`);

  const waits = waitsOf(fleet);
  let frames = 0;
  let again = 0;
  for (const { id } of asked) {
    const recording = await fleet.get(id);
    // nothing lasts as long as DRAIN_TIMEOUT, so nothing is to be handed over
    check(recording.attempts === 1, `${id} took ${recording.attempts} attempts: ${JSON.stringify(recording.warnings)}`);
    if (recording.attempts > 1) again += 1;
    if (recording.state !== 'completed') continue;
    const { manifest, samples } = await examine(fleet, recording, failures, 1);
    frames += samples.video.stored;
    check(manifest.gaps.length === 0, `${id} has gaps: ${JSON.stringify(manifest.gaps)}`);
  }
  check(waits.size === count, `${waits.size} of ${count} recordings told what they waited`);
  check(aliveMost > rule.minReplicas, 'the fleet did not grow');
  await nothingLeft(fleet, failures, 60_000);

  console.log('  time, s   demand  waiting   busy   free  leaving   workers  serving  draining');
  let next = 0;
  for (const { at, demand, waiting, busy, free, leaving: onLeaving, workers, serving, going } of looks) {
    if (at < next) continue;
    next = at + TOLD_EVERY;
    console.log(`  ${[at.toFixed(1).padStart(7), pad(demand ?? '-', 9), pad(waiting, 9), pad(busy, 7), pad(free, 7), pad(onLeaving, 9), pad(workers, 10), pad(serving, 9), pad(going, 10)].join('')}`);
  }
  const sorted = [...waits.values()].sort((a, b) => a - b);
  const at = (share: number) => seconds(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0);
  const announced = asked.filter((each) => each.announced).map(({ id }) => waits.get(id) ?? 0);
  return {
    seed,
    figures: {
      recordings: asked.length,
      'rule, times as fast': faster,
      'waited, s: p50, p95, most': `${at(0.5)}, ${at(0.95)}, ${at(1)}`,
      'of them announced, most': seconds(most(announced)),
      'workers started': started,
      'workers at once, most': aliveMost,
      'workers at once, mean': (aliveSeconds / lastSync).toFixed(1),
      'all short ones over after, s': (shortOver - from).toFixed(1),
      'fleet shrunk after, s': (shrunk - from).toFixed(1),
      interrupted: again,
      'pictures stored, all in files': frames,
    },
    failures,
  };
}

const pad = (value: number | string, width: number): string => String(value).padStart(width);

/** What an autoscaler reads of the edge. */
async function lookAt(fleet: Fleet): Promise<Look> {
  const text = await fetch(`${fleet.url}/metrics`, { signal: AbortSignal.timeout(2000) }).then((answer) => answer.text(), () => '');
  const value = (name: string): number | null => {
    const line = text.split('\n').find((each) => each.startsWith(`${name} `));
    return line === undefined ? null : Number(line.slice(name.length + 1));
  };
  const of = (state: string) => value(`tabreel_slots{state="${state}"}`) ?? 0;
  return { demand: value('tabreel_demand'), free: of('free'), busy: of('busy'), leaving: of('leaving'), waiting: value('tabreel_recordings{state="queued"}') ?? 0 };
}

/** Milliseconds that each recording's first attempt waited from when it was due, by its worker's log. */
function waitsOf(fleet: Fleet): Map<string, number> {
  const found = new Map<string, number>();
  for (const line of fleet.lines) {
    if (!line.includes('"attempt begins"')) continue;
    const { recording, attempt, waited } = JSON.parse(line.slice(line.indexOf('|') + 1)) as { recording: string; attempt: number; waited: number };
    if (attempt === 1) found.set(recording, waited);
  }
  return found;
}
