/** What a Redis client says while it can't connect: several times a second the same. */
import type { Log } from '../shared/log.ts';

const SILENCE_MS = 60_000;

/** For clients of one process: one line a minute is enough. */
export function redisTroubleLog(log: Log): (error: Error) => void {
  let last = Number.NEGATIVE_INFINITY;
  return (error) => {
    if (performance.now() - last < SILENCE_MS) return;
    last = performance.now();
    log.warn('no connection to Redis', { error });
  };
}
