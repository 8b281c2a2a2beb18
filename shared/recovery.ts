/** When a recording that lost an attempt gets another. The same rules for the worker whose attempt failed and for who finds that a worker died. */
import type { ErrorCode } from './errors.ts';
import type { RecordingError } from './recording.ts';
import type { RecordingRecord } from './recording-store.ts';

/** Attempts in a row of which nothing is stored; after that another would not either. With the delays between them about a minute. */
export const FUTILE_AT_MOST = 8;

export type RetryTimes = {
  /** Milliseconds before the second attempt in a row that stores nothing; doubles up to the last. */
  firstRetry: number;
  lastRetry: number;
};
export const retryTimes: RetryTimes = { firstRetry: 500, lastRetry: 30_000 };

/**
 * Milliseconds until the next attempt may begin: none after one that stored something. Half by chance, so that what failed
 * together doesn't come back together.
 * @param futile attempts in a row of which nothing is stored
 */
export function retryDelay(futile: number, times: RetryTimes = retryTimes): number {
  if (futile <= 0) return 0;
  const most = Math.min(times.lastRetry, times.firstRetry * 2 ** (futile - 1));
  return Math.round(most / 2 + (Math.random() * most) / 2);
}

/** What no other attempt can mend: it would lose as much again. Nor would one mend a push, which has tried anew by itself. */
const terminal: ReadonlySet<string> = new Set<ErrorCode>(['media_backlog', 'storage_full']);

/**
 * Whether an attempt that ended so is followed by another, if there is time.
 * @param kept whether earlier attempts or this one stored anything: what is worth keeping is worth going on with, whatever is wrong now
 */
export const helpsToRetry = (error: RecordingError, kept: boolean): boolean =>
  !terminal.has(error.code) && !error.code.startsWith('push_') && error.blame !== 'caller' && (kept || error.retryable);

/** Whether the recording's longest time is over. @param now milliseconds since the epoch by the clock of Redis */
export const isTimeOver = ({ startedAt, job }: Pick<RecordingRecord, 'startedAt' | 'job'>, now: number): boolean =>
  startedAt !== undefined && now >= startedAt + job.spec.maxDuration * 1000;
