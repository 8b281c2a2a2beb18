/** What every finished recording must hold, whatever happened while it was made. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Manifest } from '../../edge/finish/manifest.ts';
import type { Recording } from '../../shared/recording.ts';
import { probe } from '../helpers/analyse.ts';
import type { Fleet, Leftovers } from '../helpers/fleet.ts';
import { keptSamples, type KeptSamples } from '../helpers/kept-samples.ts';
import type { TappedSegment } from '../helpers/parts-tap.ts';
import { complaints } from '../helpers/playable.ts';

/** Of an attempt, what was stored: milliseconds since the epoch. */
export type StoredAttempt = { attempt: number; from: number; until: number };

export type Examined = {
  recording: Recording;
  manifest: Manifest;
  samples: KeptSamples;
  path: string;
  attempts: StoredAttempt[];
  /** Milliseconds since the epoch at which the timeline begins. */
  origin: number;
};

/** Times of manifest and parts may differ by the rounding of each, in seconds. */
const ROUNDING = 0.05;

/** Fetches the file and holds it against all that was ever stored; what is wrong with it is added to `failures`. */
export async function examine(fleet: Fleet, recording: Recording, failures: string[], seeks = 10): Promise<Examined> {
  const { id } = recording;
  const check = (good: boolean, what: string) => void (good || failures.push(`${id}: ${what}`));
  const manifest = await fleet.manifest(id);
  const path = await fleet.download(id);
  const samples = await keptSamples(fleet.tap.parts(id), path);
  for (const track of ['video', 'audio'] as const) {
    const { stored, lost, added } = samples[track];
    check(lost === 0, `${lost} of ${stored} stored ${track} samples are not in the file, or out of order`);
    check(added === 0, `the file has ${added} ${track} samples that nobody stored`);
  }
  check(manifest.verification.ok, `its verification says ${JSON.stringify(manifest.verification.checks.filter(({ ok }) => !ok))}`);
  failures.push(...(await complaints(path, recording.duration, seeks)).map((complaint) => `${id}: does not play: ${complaint}`));
  const { duration } = await probe(path);
  check(Math.abs(duration - recording.duration) <= 0.1, `the file lasts ${duration} s and the recording ${recording.duration} s`);
  check(manifest.duration === recording.duration, `the manifest says ${manifest.duration} s and the recording ${recording.duration} s`);

  const stored = storedAttempts(fleet.tap.segments(id));
  const shifted = manifest.shifts.length > 0;
  check(
    manifest.attempts.map(({ attempt }) => attempt).join() === stored.map(({ attempt }) => attempt).join(),
    `attempts ${stored.map(({ attempt }) => attempt).join()} stored something, the manifest has ${manifest.attempts.map(({ attempt }) => attempt).join()}`,
  );
  for (const [i, { attempt, from }] of stored.entries()) {
    const told = manifest.attempts[i]?.start ?? NaN;
    const wanted = from / 1000 - manifest.trimmed;
    check(shifted || Math.abs(told - wanted) <= ROUNDING, `attempt ${attempt} begins at ${wanted.toFixed(3)} s and the manifest says ${told}`);
  }
  const gaps = stored.slice(1).map(({ from }, i) => ({ start: (stored[i]?.until ?? 0) / 1000 - manifest.trimmed, duration: (from - (stored[i]?.until ?? 0)) / 1000 }));
  const real = gaps.filter((gap) => gap.duration > 0.001);
  check(
    shifted || (real.length === manifest.gaps.length && real.every((gap, i) => Math.abs(gap.duration - (manifest.gaps[i]?.duration ?? NaN)) <= ROUNDING)),
    `gaps are ${JSON.stringify(real)} and the manifest says ${JSON.stringify(manifest.gaps)}`,
  );
  const origin = Date.parse(recording.startedAt ?? '') - manifest.trimmed * 1000;
  return { recording, manifest, samples, path, origin, attempts: stored.map(({ attempt, from, until }) => ({ attempt, from: origin + from, until: origin + until })) };
}

/** Milliseconds on the timeline. */
function storedAttempts(segments: readonly TappedSegment[]): StoredAttempt[] {
  const attempts: StoredAttempt[] = [];
  for (const { attempt, start, duration } of segments) {
    const known = attempts.find((one) => one.attempt === attempt);
    if (known === undefined) attempts.push({ attempt, from: start / 1000, until: (start + duration) / 1000 });
    else known.until = Math.max(known.until, (start + duration) / 1000);
  }
  return attempts;
}

/** When each attempt's first picture came, by its own log; milliseconds since the epoch. */
export function firstPictures(fleet: Fleet, id: string): Map<number, number> {
  const found = new Map<number, number>();
  for (const line of fleet.lines) {
    if (!line.includes('"recording_started"') || !line.includes(id)) continue;
    const { time, attempt } = JSON.parse(line.slice(line.indexOf('|') + 1)) as { time: string; attempt: number };
    found.set(attempt, Date.parse(time));
  }
  return found;
}

/** @param only what is not to be waited for is left out */
export async function nothingLeft(fleet: Fleet, failures: string[], milliseconds: number, only: readonly (keyof Leftovers)[] = ['processes', 'files', 'jobs', 'objects']): Promise<void> {
  const until = performance.now() + milliseconds;
  for (;;) {
    const left = await fleet.leftovers();
    const found = only.flatMap((kind) => left[kind].map((what) => `left behind (${kind}): ${what}`));
    if (found.length === 0) return;
    if (performance.now() > until) return void failures.push(...found);
    await sleep(250);
  }
}
