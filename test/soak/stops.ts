/** Recordings that are stopped at any moment, from the request on. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isEnd, type RecordingState } from '../../shared/recording.ts';
import { startFleet } from '../helpers/fleet.ts';
import { startPages } from '../helpers/pages.ts';
import { examine, nothingLeft } from './examine.ts';
import { between, most, seconds, seeded, type Outcome } from './outcome.ts';

export type StopsOptions = {
  seed: number;
  count: number;
  /** The latest stop, in seconds after the request. */
  latest: number;
  /** Recordings at a time. */
  lanes: number;
  /** How many more, one at a time, are stopped between two attempts: their worker, or their process of it, was killed before. Default 0. */
  amid?: number;
  /** Times that are promised may take this many times as long, where other tests run beside this one; default 1. */
  slack?: number;
};

const FINISHING_MS = 2000;
const END_MS = 5000;
/** Until a killed worker is found out and another one takes its recording, in seconds; and a killed recording's process. */
const UNTIL_THE_NEXT = { worker: 6.5, recorder: 1.5 };
/** For jobs of killed workers to leave the queue. */
const SETTLE_MS = 60_000;

export async function stops({ seed, count, latest, lanes, amid = 0, slack = 1 }: StopsOptions): Promise<Outcome> {
  const random = seeded(seed);
  const failures: string[] = [];
  await using pages = await startPages();
  await using fleet = await startFleet({ workers: amid > 0 ? 2 : 1, slots: lanes, random });
  const moments = Array.from({ length: count }, (_, i) => ((i + between(random, 0, 1)) / count) * latest * 1000).sort(() => random() - 0.5);
  const ends: Record<string, number> = {};
  const obeyed: number[] = [];
  const over: number[] = [];
  const overAmid: number[] = [];

  const body = { url: pages.url('/animated.html'), width: 320, height: 180, maxDuration: 60 };
  const one = async (moment: number): Promise<void> => {
    const asked = performance.now();
    const { id } = await fleet.create(body);
    await sleep(Math.max(0, asked + moment - performance.now()));
    await stop(id, `${id}, stopped ${seconds(moment)} s after its request`, null);
  };
  /** @param killed what was killed before */
  const stop = async (id: string, what: string, killed: 'worker' | 'recorder' | null): Promise<void> => {
    const told = performance.now();
    let { state } = await fleet.stop(id);
    const atStop: RecordingState = state;
    let finishing: number | null = null;
    while (!isEnd(state)) {
      if (state === 'finishing') finishing ??= performance.now();
      if (performance.now() - told > 30_000) return void failures.push(`${what}: ${state} after 30 s`);
      await sleep(50);
      ({ state } = await fleet.get(id));
    }
    const end = performance.now();
    finishing ??= end;
    if (killed === null) obeyed.push(finishing - told);
    (killed === null ? over : overAmid).push(end - told);
    ends[state] = (ends[state] ?? 0) + 1;
    // a lost worker is found out by its silence
    if (killed === null && finishing - told > FINISHING_MS * slack) failures.push(`${what}, when it was ${atStop}: finishing after ${seconds(finishing - told)} s`);
    if (end - told > END_MS * slack) failures.push(`${what}, when it was ${atStop}: ${state} after ${seconds(end - told)} s`);
    const recording = await fleet.get(id);
    const right = killed === null && (atStop === 'recording' || atStop === 'finishing') ? ['completed'] : ['completed', 'canceled'];
    if (!right.includes(state)) failures.push(`${what}, when it was ${atStop}: ${state} (${recording.error?.message})`);
    if (state === 'completed') {
      await examine(fleet, recording, failures, 1);
      if (recording.duration <= 0) failures.push(`${what}: lasts ${recording.duration} s`);
    } else {
      const { status } = await fleet.api(`/v1/recordings/${id}/recording.mp4`);
      if (status !== 404) failures.push(`${what}: ${state}, and its file answers ${status}`);
      const stored = fleet.tap.segments(id).length;
      if (stored > 0) failures.push(`${what}: ${state}, and ${stored} segments of it were stored`);
    }
  };
  const rest = [...moments];
  const lane = async () => {
    for (let moment = rest.pop(); moment !== undefined; moment = rest.pop()) await one(moment);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  await nothingLeft(fleet, failures, 10_000);
  for (let i = 0; i < amid; i += 1) {
    await fleet.up('worker');
    const { id } = await fleet.create(body);
    await fleet.waitFor(id, 'recording', 30_000);
    const recorded = between(random, 0.2, 4);
    await sleep(recorded * 1000);
    const kind = i % 3 === 2 ? 'recorder' : 'worker';
    const found = fleet.kill(kind);
    if (found === null) failures.push(`there was no ${kind} to kill`);
    const later = ((Math.floor(i / 3) + between(random, 0, 1)) / Math.ceil(amid / 3)) * UNTIL_THE_NEXT[kind];
    await sleep(later * 1000);
    await stop(id, `${id}, stopped ${seconds(later * 1000)} s after its ${kind} was killed, which was ${seconds(recorded * 1000)} s after its first picture`, kind);
  }
  if (amid > 0) await nothingLeft(fleet, failures, SETTLE_MS);
  return {
    seed,
    figures: {
      stops: over.length + overAmid.length,
      ...ends,
      'finishing after, s, longest': seconds(most(obeyed)),
      'ended after, s, longest': seconds(most(over)),
      ...(amid > 0 ? { 'between attempts, s, each': overAmid.map(seconds).join(' ') } : {}),
    },
    failures,
  };
}
