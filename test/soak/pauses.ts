/** A recording that is paused now and then. */
import { setTimeout as sleep } from 'node:timers/promises';
import { flashBeepOffsets, readBeeps, readFrames, summary, uniqueFrames } from '../helpers/analyse.ts';
import { startFleet } from '../helpers/fleet.ts';
import { startPages } from '../helpers/pages.ts';
import { examine, nothingLeft } from './examine.ts';
import { between, seconds, seeded, type Outcome } from './outcome.ts';

export type PausesOptions = {
  seed: number;
  count: number;
  /** From the first picture to the stop, pauses included, in seconds. */
  length: number;
};

export async function pauses({ seed, count, length }: PausesOptions): Promise<Outcome> {
  const random = seeded(seed);
  const failures: string[] = [];
  const check = (good: boolean, what: string) => void (good || failures.push(what));
  await using pages = await startPages();
  await using fleet = await startFleet({});
  const { id } = await fleet.create({ url: pages.url('/animated.html?fps=30'), width: 640, height: 360, maxDuration: length + 60 });
  await fleet.waitFor(id, 'recording', 20_000);
  const began = performance.now();
  const post = async (what: string) => {
    const { status, body } = await fleet.api<{ state: string }>(`/v1/recordings/${id}/${what}`, { method: 'POST' });
    check(status === 200, `${what} is answered with ${status}: ${JSON.stringify(body)}`);
    return Date.now();
  };
  const asked: number[] = [];
  for (let i = 0; i < count; i += 1) {
    const step = length / (count + 1);
    await sleep(Math.max(0, began + ((i + 1) * step + between(random, -0.2, 0.2) * step) * 1000 - performance.now()));
    const from = await post('pause');
    await fleet.waitFor(id, 'paused', 5000);
    await sleep(between(random, 1500, Math.min(6000, step * 500)));
    const until = await post('resume');
    await fleet.waitFor(id, 'recording', 5000);
    asked.push(until - from);
  }
  await sleep(Math.max(0, began + length * 1000 - performance.now()));
  const stopped = await post('stop');
  const recording = await fleet.waitFor(id, ['completed', 'failed', 'canceled'], 20_000);
  check(recording.state === 'completed', `it is ${recording.state}: ${JSON.stringify(recording.error)}`);
  const { path, manifest, samples } = await examine(fleet, recording, failures, 5);
  check(manifest.pauses.length === count, `${manifest.pauses.length} pauses in the manifest`);
  const wanted = (stopped - Date.parse(recording.startedAt ?? '') - asked.reduce((a, b) => a + b, 0)) / 1000;
  check(Math.abs(recording.duration - wanted) <= 0.3, `it lasts ${recording.duration} s, and ${wanted.toFixed(2)} s were asked for`);

  const [frames, beeps] = [await readFrames(path), await readBeeps(path)];
  const cuts = manifest.pauses.map(({ at }) => at);
  const medians = [0, ...cuts].map((from, i) => {
    const until = cuts[i] ?? Infinity;
    // a flash whose beep the cut has taken away says nothing
    const inside = (time: number) => time > from + 0.3 && time < until - 0.3;
    return summary(flashBeepOffsets(frames.filter(({ time }) => inside(time)), beeps.filter(inside)).slice(0, 5)).median;
  });
  for (const [i, median] of medians.entries()) check(Math.abs(median) <= 60, `after cut ${i} the sound is ${median.toFixed(0)} ms off the picture`);
  const { perSecond, backwards, unreadable } = uniqueFrames(frames);
  check(backwards === 0 && unreadable === 0, `${backwards} frames go back, ${unreadable} can not be read`);
  check(recording.stats.frames === samples.video.inFile, `${recording.stats.frames} frames were made, ${samples.video.inFile} are in the file`);
  await nothingLeft(fleet, failures, 10_000);
  return {
    seed,
    figures: {
      'pauses asked for, s': asked.map(seconds).join(' '),
      'pauses cut out, s': manifest.pauses.map(({ duration }) => duration.toFixed(2)).join(' '),
      'duration, s': recording.duration,
      'asked for, s': Math.round(wanted * 100) / 100,
      'sound after picture, ms': medians.map((median) => median.toFixed(0)).join(' '),
      'new frames a second': perSecond.toFixed(1),
      'frames made, in the file': `${recording.stats.frames}, ${samples.video.inFile}`,
    },
    failures,
  };
}
