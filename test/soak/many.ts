/** Many short recordings through a few workers, with processes killed all the time. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isEnd, type RecordingState } from '../../shared/recording.ts';
import { startFleet, type Killed } from '../helpers/fleet.ts';
import { startPages } from '../helpers/pages.ts';
import { keptSamples } from '../helpers/kept-samples.ts';
import { nothingLeft } from './examine.ts';
import { capturing, killsOf } from './kills.ts';
import { between, seconds, seeded, type Outcome } from './outcome.ts';

export type ManyOptions = {
  seed: number;
  count: number;
  /** Of each, in seconds. */
  length: number;
  workers: number;
  slots: number;
  /** Seconds between two kills, at least and at most. */
  apart: readonly [number, number];
  /** Seconds for all of them. */
  patience: number;
};

/** From a first picture until something of it is stored, at most, in milliseconds: a segment of a second, and its way. */
const FIRST_STORED_MS = 2500;

export async function many({ seed, count, length, workers, slots, apart, patience }: ManyOptions): Promise<Outcome> {
  const random = seeded(seed);
  const failures: string[] = [];
  const check = (good: boolean, what: string) => void (good || failures.push(what));
  await using pages = await startPages();
  await using fleet = await startFleet({ workers, slots, random });
  const before = await fleet.redisKeys();
  const began = performance.now();
  const ids: string[] = [];
  const killed: Killed[] = [];
  let over = false;
  const killing = (async () => {
    for (const kind of killsOf(seed, 1000)) {
      await sleep(between(random, apart[0], apart[1]) * 1000);
      if (over) return;
      const done = fleet.kill(kind);
      if (done !== null) killed.push(done);
    }
  })();
  for (let i = 0; i < count; i += 1) {
    ids.push((await fleet.create({ url: pages.url('/static.html'), width: 320, height: 180, maxDuration: length, metadata: { number: String(i) } })).id);
  }
  const states = async (): Promise<Map<string, RecordingState>> => {
    const found = new Map<string, RecordingState>();
    for (let cursor: string | null = ''; cursor !== null; ) {
      const path: string = `/v1/recordings?limit=100${cursor === '' ? '' : `&cursor=${cursor}`}`;
      const { body } = await fleet.api<{ recordings: { id: string; state: RecordingState }[]; cursor: string | null }>(path);
      for (const { id, state } of body.recordings) found.set(id, state);
      cursor = body.cursor;
    }
    return found;
  };
  let now = await states();
  while ([...now.values()].some((state) => !isEnd(state)) && performance.now() - began < patience * 1000) {
    await sleep(1000);
    now = await states();
  }
  const took = performance.now() - began;
  over = true;
  await killing;
  const ends = Object.groupBy(now.values(), (state) => state);
  for (const [id, state] of now) if (!isEnd(state)) failures.push(`${id} is still ${state} after ${seconds(took)} s`);
  check(now.size === count && new Set(ids).size === count, `${count} recordings were asked for, ${new Set(ids).size} told, ${now.size} are there`);

  let stored = 0;
  let attempts = 0;
  let shortest = Infinity;
  let longest = 0;
  const errors: Record<string, number> = {};
  let tooShort = 0;
  for (const id of ids) {
    const recording = await fleet.get(id);
    attempts += recording.attempts;
    if (recording.state === 'failed') errors[recording.error?.code ?? '?'] = (errors[recording.error?.code ?? '?'] ?? 0) + 1;
    const parts = fleet.tap.parts(id);
    const segments = parts.filter(({ type }) => type === 'segment').length;
    // what was killed before its first segment was stored, and whose time was over before the next attempt, has nothing to show
    const first = Date.parse(recording.startedAt ?? '');
    const early = killed.some(({ kind, at }) => capturing.has(kind) && at >= first && at - first <= FIRST_STORED_MS);
    if (recording.error?.code === 'nothing_recorded' && segments === 0 && recording.attempts > 1 && early) {
      tooShort += 1;
      continue;
    }
    // otherwise a process that died is no reason to have nothing
    check(recording.state === 'completed', `${id} is ${recording.state} with ${segments} segments: ${JSON.stringify(recording.error)}`);
    if (recording.state !== 'completed') continue;
    const { video, audio } = await keptSamples(parts, await fleet.download(id));
    stored += video.stored + audio.stored;
    check(video.lost + audio.lost + video.added + audio.added === 0, `${id}: ${JSON.stringify({ video, audio })}`);
    shortest = Math.min(shortest, recording.duration);
    longest = Math.max(longest, recording.duration);
    check(recording.duration <= length + 0.5, `${id} lasts ${recording.duration} s`);
  }
  await nothingLeft(fleet, failures, 60_000);
  const full = await fleet.redisKeys();
  for (const id of ids) await fleet.api(`/v1/recordings/${id}`, { method: 'DELETE' });
  // beside what was there before there is one key for each Idempotency-Key, for a day, and a few of the queues' own
  const leaks = async () => {
    const after = await fleet.redisKeys();
    return Object.entries(after).filter(([key, number]) => !key.includes(':idem:') && number > (before[key] ?? 0) + 8);
  };
  const until = performance.now() + 60_000;
  while ((await leaks()).length > 0 && performance.now() < until) await sleep(1000);
  for (const [key, number] of await leaks()) failures.push(`${number} keys ${key} are left of recordings that were deleted`);
  await nothingLeft(fleet, failures, 30_000, ['objects']);
  const keys = (found: Record<string, number>, kind = '') => Object.entries(found).reduce((sum, [key, each]) => sum + (key.includes(kind) ? each : 0), 0);
  const last = await fleet.redisKeys();
  return {
    seed,
    figures: {
      recordings: now.size,
      ...Object.fromEntries(Object.entries(ends).map(([state, all]) => [state, all?.length ?? 0])),
      errors: JSON.stringify(errors),
      'time over before any was stored': tooShort,
      killed: Object.entries(Object.groupBy(killed, ({ kind }) => kind)).map(([kind, all]) => `${all.length} ${kind}`).join(', '),
      attempts,
      'samples stored, all in files': stored,
      'durations, s': `${shortest} to ${longest}`,
      'all over after, s': seconds(took),
      'keys before, with all, deleted': `${keys(before)}, ${keys(full)}, ${keys(last)}`,
      'of them for Idempotency-Keys': keys(last, ':idem:'),
    },
    failures,
  };
}
