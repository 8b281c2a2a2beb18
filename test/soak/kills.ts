/** A recording whose processes are killed at random moments. */
import { setTimeout as sleep } from 'node:timers/promises';
import { startFleet, type Killed, type KillKind } from '../helpers/fleet.ts';
import { startPages } from '../helpers/pages.ts';
import { examine, firstPictures, nothingLeft } from './examine.ts';
import { between, most, seconds, seeded, type Outcome } from './outcome.ts';

export type KillsOptions = {
  seed: number;
  /** Of the recording, in seconds. */
  length: number;
  /** One kill for each, of one kind or of several at once. */
  kills: readonly (KillKind | readonly KillKind[])[];
  /** Milliseconds for jobs of killed workers to leave the queue; null where that is not waited for. */
  settle: number | null;
  size?: { width: number; height: number };
  /** Times that are promised may take this many times as long, where other tests run beside this one; default 1. */
  slack?: number;
};

const allKinds: readonly KillKind[] = ['recorder', 'worker', 'browser', 'renderer', 'edge', 'finaliser', 'redis'];
/** What stops capturing when it dies; the others must not be felt. */
export const capturing: ReadonlySet<KillKind> = new Set(['recorder', 'worker', 'browser', 'renderer']);
/** Seconds without a kill at the beginning and at the end. */
const QUIET = { start: 3, end: 9 };
/** A segment, and its way to the disk, in milliseconds. */
const SEGMENT_MS = 2000;
const DELIVERY_MS = 500;
/** For so long after an edge was killed media may wait for the next one: it has to start, and to be dialled. */
const EDGE_BACK_MS = 3000;
const AGAIN_MS = 10_000;

/** Every kind in turn, in a random order. */
export function killsOf(seed: number, count: number, kinds: readonly KillKind[] = allKinds): KillKind[] {
  const random = seeded(seed);
  const kills: KillKind[] = [];
  while (kills.length < count) {
    const round = kinds.map((kind) => ({ kind, at: random() })).sort((a, b) => a.at - b.at);
    kills.push(...round.map(({ kind }) => kind));
  }
  return kills.slice(0, count);
}

export async function kills(options: KillsOptions): Promise<Outcome> {
  const { seed, length, slack = 1 } = options;
  const random = seeded(seed + 1);
  const failures: string[] = [];
  const check = (good: boolean, what: string) => void (good || failures.push(what));
  await using pages = await startPages();
  await using fleet = await startFleet({ workers: 2, random });
  const { id } = await fleet.create({ url: pages.url('/animated.html'), maxDuration: length, ...(options.size ?? { width: 640, height: 360 }) });
  await fleet.waitFor(id, 'recording', 20_000);
  const began = performance.now();
  const step = (length - QUIET.start - QUIET.end) / options.kills.length;
  const killed: Killed[] = [];
  for (const [i, kinds] of options.kills.entries()) {
    const moment = (QUIET.start + (i + between(random, 0, 1)) * step) * 1000;
    await sleep(Math.max(0, began + moment - performance.now()));
    for (const kind of [kinds].flat()) {
      // between two attempts there is no browser to kill
      let done = fleet.kill(kind);
      for (let tries = 0; done === null && tries < 60; tries += 1) {
        await sleep(100);
        done = fleet.kill(kind);
      }
      check(done !== null, `there was no ${kind} to kill for 6 s`);
      if (done !== null) killed.push(done);
    }
  }
  const recording = await fleet.waitFor(id, ['completed', 'failed', 'canceled'], length * 1000 + 60_000);
  check(recording.state === 'completed', `it is ${recording.state}: ${JSON.stringify(recording.error)}`);
  if (recording.files.length === 0) return { seed, figures: { kills: killed.length, state: recording.state }, failures };
  const { manifest, samples, attempts, origin } = await examine(fleet, recording, failures);
  const pictures = firstPictures(fleet, id);

  const felt = killed.filter(({ kind }) => capturing.has(kind));
  const again: number[] = [];
  const lost: number[] = [];
  for (const [i, { kind, name, at }] of felt.entries()) {
    const what = `${name} was killed ${seconds(at - origin)} s after the first picture`;
    // what is killed again before it captured has the later kill to blame
    const next = attempts.find(({ from }) => from > at);
    const overtaken = felt.slice(i + 1).some((later) => later.at < (next?.from ?? Infinity));
    const timeIsOver = next === undefined && at - origin + AGAIN_MS * slack > length * 1000;
    if (next !== undefined && !overtaken) {
      again.push(next.from - at);
      check(next.from - at <= AGAIN_MS * slack, `${what}: capturing again after ${seconds(next.from - at)} s`);
    } else if (next === undefined && !overtaken && !timeIsOver) failures.push(`${what}: nothing was captured afterwards`);
    // the attempt that captured then: what it stored in the end, or nothing
    const attempt = [...pictures].findLast(([, from]) => from < at)?.[0];
    if (attempt === undefined) continue;
    const until = attempts.find((one) => one.attempt === attempt)?.until ?? pictures.get(attempt) ?? at;
    // overtaken ones captured nothing in between
    const capturedUntil = felt.slice(0, i).some((earlier) => earlier.at > (pictures.get(attempt) ?? 0)) ? until : at;
    lost.push(Math.max(0, capturedUntil - until));
    // a segment a kill: where the edge was killed right before, what waited for the next one is its own
    const edges = killed.filter((earlier) => earlier.kind === 'edge' && earlier.at < at && at - earlier.at < EDGE_BACK_MS * slack).length;
    check(capturedUntil - until <= SEGMENT_MS * (1 + edges) + DELIVERY_MS * slack, `${what} (${kind}): ${seconds(capturedUntil - until)} s of captured media are lost`);
  }
  check(manifest.gaps.length <= felt.length, `${manifest.gaps.length} gaps for ${felt.length} kills that are felt`);
  for (const { start, duration, afterAttempt } of manifest.gaps) {
    const from = origin + (start + manifest.trimmed) * 1000;
    const cause = felt.some(({ at }) => at >= from - 200 && at <= from + duration * 1000 + 200);
    check(cause, `a gap of ${duration} s at ${start} s, after attempt ${afterAttempt}, without a kill in it`);
  }
  check(recording.attempts <= felt.length + 1, `${recording.attempts} attempts after ${felt.length} kills that are felt`);
  check(Math.abs(recording.duration + manifest.trimmed - length) <= 0.5, `it lasts ${recording.duration} s (${manifest.trimmed} s trimmed), not ${length} s`);
  if (options.settle !== null) await nothingLeft(fleet, failures, options.settle);
  else await nothingLeft(fleet, failures, 15_000, ['processes', 'files', 'objects']);
  return {
    seed,
    figures: {
      kills: killed.map(({ kind, at }) => `${kind}@${seconds(at - origin)}`).join(' '),
      attempts: recording.attempts,
      'again, s, longest': seconds(most(again)),
      'again, s, each': again.map(seconds).join(' '),
      'captured and lost, s, most': seconds(most(lost)),
      'captured and lost, s, each': lost.map(seconds).join(' '),
      'samples stored': samples.video.stored + samples.audio.stored,
      'stored and not in the file': samples.video.lost + samples.audio.lost,
      'gaps, s': Math.round(manifest.gaps.reduce((sum, { duration }) => sum + duration, 0) * 100) / 100,
      'duration, s': recording.duration,
    },
    failures,
  };
}
