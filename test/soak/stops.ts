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
  /** Times that are promised may take this many times as long, where other tests run beside this one; default 1. */
  slack?: number;
};

const FINISHING_MS = 2000;
const END_MS = 5000;

export async function stops({ seed, count, latest, lanes, slack = 1 }: StopsOptions): Promise<Outcome> {
  const random = seeded(seed);
  const failures: string[] = [];
  await using pages = await startPages();
  await using fleet = await startFleet({ slots: lanes, random });
  const moments = Array.from({ length: count }, (_, i) => ((i + between(random, 0, 1)) / count) * latest * 1000).sort(() => random() - 0.5);
  const ends: Record<string, number> = {};
  const obeyed: number[] = [];
  const over: number[] = [];

  const one = async (moment: number): Promise<void> => {
    const asked = performance.now();
    const { id } = await fleet.create({ url: pages.url('/animated.html'), width: 320, height: 180, maxDuration: 60 });
    await sleep(Math.max(0, asked + moment - performance.now()));
    const what = `${id}, stopped ${seconds(moment)} s after its request`;
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
    obeyed.push(finishing - told);
    over.push(end - told);
    ends[state] = (ends[state] ?? 0) + 1;
    if (finishing - told > FINISHING_MS * slack) failures.push(`${what}, when it was ${atStop}: finishing after ${seconds(finishing - told)} s`);
    if (end - told > END_MS * slack) failures.push(`${what}, when it was ${atStop}: ${state} after ${seconds(end - told)} s`);
    const recording = await fleet.get(id);
    const right = atStop === 'recording' || atStop === 'finishing' ? ['completed'] : ['completed', 'canceled'];
    if (!right.includes(state)) failures.push(`${what}, when it was ${atStop}: ${state} (${recording.error?.message})`);
    if (state === 'completed') {
      await examine(fleet, recording, failures, 1);
      if (recording.duration <= 0) failures.push(`${what}: lasts ${recording.duration} s`);
    } else {
      const { status } = await fleet.api(`/v1/recordings/${id}/recording.mp4`);
      if (status !== 404) failures.push(`${what}: ${state}, and its file answers ${status}`);
    }
  };
  const rest = [...moments];
  const lane = async () => {
    for (let moment = rest.pop(); moment !== undefined; moment = rest.pop()) await one(moment);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  await nothingLeft(fleet, failures, 10_000);
  return {
    seed,
    figures: {
      stops: over.length,
      ...ends,
      'finishing after, s, longest': seconds(most(obeyed)),
      'ended after, s, longest': seconds(most(over)),
    },
    failures,
  };
}
