/** Recordings whose Redis is gone for a while. */
import { setTimeout as sleep } from 'node:timers/promises';
import { startFleet } from '../helpers/fleet.ts';
import { startPages } from '../helpers/pages.ts';
import { examine, nothingLeft } from './examine.ts';
import { most, seconds, type Outcome } from './outcome.ts';

export type RedisAwayOptions = {
  seed: number;
  /** Seconds without Redis. */
  away: number;
  /** Seconds that the recording goes on afterwards. */
  after: number;
  /** Times that are promised may take this many times as long, where other tests run beside this one; default 1. */
  slack?: number;
};

const BEFORE_MS = 4000;
/** Parts come every two seconds. */
const SILENCE_MS = 4500;

export async function redisAway({ seed, away, after, slack = 1 }: RedisAwayOptions): Promise<Outcome> {
  const failures: string[] = [];
  const check = (good: boolean, what: string) => void (good || failures.push(what));
  await using pages = await startPages();
  await using fleet = await startFleet({ slots: 2 });
  const size = { width: 320, height: 180 };
  // one goes on longer than Redis is away, the other ends meanwhile
  const length = BEFORE_MS / 1000 + away + after;
  const short = BEFORE_MS / 1000 + away / 2;
  const [long, brief] = await Promise.all([
    fleet.create({ url: pages.url('/animated.html'), ...size, maxDuration: length }),
    fleet.create({ url: pages.url('/animated.html'), ...size, maxDuration: short }),
  ]);
  await Promise.all([long, brief].map(({ id }) => fleet.waitFor(id, 'recording', 20_000)));
  await sleep(BEFORE_MS);
  check(fleet.kill('redis', { stayDown: true }) !== null, 'Redis was not there');
  const gone = Date.now();
  await sleep(1000);
  const asked = performance.now();
  const { status } = await fleet.api(`/v1/recordings/${long.id}`, {}, 0);
  const answered = performance.now() - asked;
  check(status === 503 && answered <= 2500 * slack, `a request is answered with ${status} after ${seconds(answered)} s`);
  await sleep(Math.max(0, gone + away * 1000 - Date.now()));
  await fleet.up('redis');
  const back = Date.now();
  let caughtUp = NaN;
  const known = (await fleet.get(long.id)).duration;
  for (let now = known; Date.now() - back < 15_000; await sleep(100)) {
    ({ duration: now } = await fleet.get(long.id));
    if (now < (Date.now() - gone) / 1000) continue;
    caughtUp = Date.now() - back;
    break;
  }
  check(caughtUp <= 10_000 * slack, `what the API says has not caught up ${seconds(caughtUp)} s after Redis is back`);
  const ended = await Promise.all([long, brief].map(({ id }) => fleet.waitFor(id, ['completed', 'failed', 'canceled'], (after + 40) * 1000)));
  const longest: number[] = [];
  for (const [i, recording] of ended.entries()) {
    const wanted = i === 0 ? length : short;
    check(recording.state === 'completed', `${recording.id} is ${recording.state}: ${JSON.stringify(recording.error)}`);
    check(recording.attempts === 1, `${recording.id} took ${recording.attempts} attempts`);
    check(Math.abs(recording.duration - wanted) <= 0.5, `${recording.id} lasts ${recording.duration} s, not ${wanted} s`);
    const { samples } = await examine(fleet, recording, failures, 3);
    check(recording.stats.frames === samples.video.inFile, `${recording.id}: ${recording.stats.frames} frames were made, ${samples.video.inFile} are in the file`);
    const times = fleet.tap.segments(recording.id).map(({ at }) => at);
    longest.push(most(times.slice(1).map((at, k) => at - (times[k] ?? at))));
    // the short one may be over before Redis is gone, where its twin took longer to begin
    const stored = times.filter((at) => at > gone && at < back).length;
    check(stored > 0 || (times.at(-1) ?? Infinity) < gone + SILENCE_MS, `${recording.id}: nothing was stored while Redis was away`);
  }
  check(most(longest) <= SILENCE_MS * slack, `nothing was stored for ${seconds(most(longest))} s`);
  await nothingLeft(fleet, failures, 20_000);
  return {
    seed,
    figures: {
      'Redis away, s': seconds(back - gone),
      'answered with 503 after, s': seconds(answered),
      'nothing stored for, s': seconds(most(longest)),
      'API caught up after, s': seconds(caughtUp),
      attempts: ended.map(({ attempts }) => attempts).join(' '),
      'durations, s': ended.map(({ duration }) => duration).join(' '),
      'frames made': ended.map(({ stats }) => stats.frames).join(' '),
    },
    failures,
  };
}
