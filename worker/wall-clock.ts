/** The clock that all attempts share (that of Redis), as one attempt goes by it. */
import { monotonicMicros } from './media/clock.ts';

export type WallClock = {
  /** Milliseconds since the epoch by the clock of Redis at a time of the monotonic clock, in microseconds; and the other way. */
  wall(monotonic: number): number;
  monotonic(wall: number): number;
};

/**
 * Reads this machine's clock once: what is set right meanwhile must not move an attempt's own times against each other.
 *
 * @param offset milliseconds to be added to this machine's Date.now()
 */
export function createWallClock(offset: number): WallClock {
  const zero = Date.now() + offset - monotonicMicros() / 1000;
  return {
    wall: (monotonic) => Math.round(zero + monotonic / 1000),
    monotonic: (wall) => Math.round((wall - zero) * 1000),
  };
}
