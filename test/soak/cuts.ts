/** A recording whose media socket is cut again and again. */
import { setTimeout as sleep } from 'node:timers/promises';
import { readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { startFleet } from '../helpers/fleet.ts';
import { startPages } from '../helpers/pages.ts';
import { examine, nothingLeft } from './examine.ts';
import { between, pick, seconds, seeded, type Outcome } from './outcome.ts';

export type CutsOptions = {
  seed: number;
  count: number;
  /** Of the recording, in seconds. */
  length: number;
  /** How many of them are stalls, and how long each lasts, in seconds. */
  stalls: number;
  stall: number;
};

export async function cuts({ seed, count, length, stalls, stall }: CutsOptions): Promise<Outcome> {
  const random = seeded(seed);
  const failures: string[] = [];
  const check = (good: boolean, what: string) => void (good || failures.push(what));
  await using pages = await startPages();
  await using fleet = await startFleet({ proxied: true });
  const proxy = fleet.proxy;
  if (proxy === null) throw new Error('there is no way in to be cut');
  const { id } = await fleet.create({ url: pages.url('/animated.html?fps=30'), width: 640, height: 360, maxDuration: length });
  await fleet.waitFor(id, 'recording', 20_000);
  const began = performance.now();
  const ways = ['reset', 'reordered', 'half open', 'silent'] as const;
  const plan = Array.from({ length: count }, (_, i) => (i % Math.ceil(count / Math.max(1, stalls)) === 2 && stalls > 0 ? ('stall' as const) : pick(random, ways)));
  const done: Record<string, number> = {};
  const quick = (length - 8 - plan.filter((way) => way === 'stall').length * stall) / count;
  for (const [i, way] of plan.entries()) {
    await sleep(between(random, 0.5, 1.5) * quick * 1000);
    if (performance.now() - began > (length - 3) * 1000) break;
    done[way] = (done[way] ?? 0) + 1;
    if (way === 'stall') {
      proxy.stall(stall * 1000);
      await sleep(stall * 1000);
    } else if (way === 'reordered') {
      // what the next connection sends is overtaken by the one after it
      proxy.delayNext(3000);
      proxy.cut();
      await sleep(700);
      proxy.cut();
    } else if (way === 'half open') proxy.halfOpen();
    // a connection that nobody tells of its end is found out by its pings
    else if (way === 'silent' && i < count - 5) proxy.silence();
    else proxy.cut();
  }
  const recording = await fleet.waitFor(id, ['completed', 'failed', 'canceled'], length * 1000 + 60_000 - (performance.now() - began));
  check(recording.state === 'completed', `it is ${recording.state}: ${JSON.stringify(recording.error)}`);
  check(recording.attempts === 1, `${recording.attempts} attempts`);
  const { path, samples } = await examine(fleet, recording, failures, 5);
  const frames = await readFrames(path);
  const { unique, missing, backwards, unreadable, longestGap, first, last } = uniqueFrames(frames);
  check(recording.stats.frames === samples.video.inFile, `${recording.stats.frames} frames were made, ${samples.video.inFile} are in the file`);
  check(backwards === 0, `${backwards} frames go back`);
  check(unreadable === 0, `${unreadable} frames can not be read`);
  check(missing <= 0.01, `${((last ?? 0) - (first ?? 0) + 1 - unique)} of the page's frames are missing`);
  check(Math.abs(recording.duration - length) <= 0.5, `it lasts ${recording.duration} s, not ${length} s`);
  await nothingLeft(fleet, failures, 15_000);
  return {
    seed,
    figures: {
      cuts: Object.values(done).reduce((a, b) => a + b, 0),
      ways: Object.entries(done).map(([way, number]) => `${number} ${way}`).join(', '),
      connections: proxy.accepted(),
      'frames made': recording.stats.frames,
      'frames in the file': samples.video.inFile,
      "page's frames, missing": `${unique}, ${(last ?? 0) - (first ?? 0) + 1 - unique}`,
      'longest gap, s': seconds(longestGap * 1000),
      'duration, s': recording.duration,
    },
    failures,
  };
}
