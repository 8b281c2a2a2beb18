/** The one clock of a recording: the machine's monotonic clock, in microseconds; Chromium stamps its frames with it too. */

import { hrtime } from 'node:process';

/** CLOCK_MONOTONIC, as Chromium's base::TimeTicks on Linux. */
export const monotonicMicros = (): number => Number(hrtime.bigint() / 1000n);

/**
 * Maps a source's own timestamps to the monotonic clock: nothing arrives before it was made, so the smallest difference of
 * arrival and timestamp is the nearest to the truth. Only the last half minute counts, so that a source whose clock runs
 * at another speed is followed.
 */
export function createClockMapping(windowMicros = 30_000_000) {
  // smallest differences, oldest first, each smaller than all that came after it
  let candidates: { at: number; offset: number }[] = [];
  return {
    /** @returns the timestamp on the monotonic clock. */
    map(timestamp: number, arrival: number): number {
      const offset = arrival - timestamp;
      while (candidates.length > 0 && (candidates.at(-1) as { offset: number }).offset >= offset) candidates.pop();
      candidates.push({ at: arrival, offset });
      while ((candidates[0] as { at: number }).at < arrival - windowMicros) candidates.shift();
      return timestamp + (candidates[0] as { offset: number }).offset;
    },
    reset() {
      candidates = [];
    },
  };
}
export type ClockMapping = ReturnType<typeof createClockMapping>;
