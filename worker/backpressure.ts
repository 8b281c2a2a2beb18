/** Less is encoded while media waits for a way out, so that a recording fits a slow one rather than ends for want of room. */

export type Terms = {
  /** Bits per second, frames per second. */
  bitrate: number;
  frameRate: number;
};

/** Shares of what may wait: from these on less is encoded, and below this all of it again. */
const HALF_FROM = 0.25;
const QUARTER_FROM = 0.5;
const NORMAL_BELOW = 0.1;

/**
 * @param normal the recording's own terms.
 * @returns takes the pressure (0 to 1) about once a second, and gives the terms where they are to be others; null where not.
 */
export function createBackpressure(normal: Terms): (pressure: number) => Terms | null {
  const levels: readonly Terms[] = [
    normal,
    { bitrate: Math.round(normal.bitrate / 2), frameRate: normal.frameRate },
    { bitrate: Math.round(normal.bitrate / 4), frameRate: normal.frameRate / 2 },
  ];
  let level = 0;
  return (pressure) => {
    const before = level;
    if (pressure > QUARTER_FROM) level = 2;
    else if (pressure > HALF_FROM) level = Math.max(level, 1);
    else if (pressure < NORMAL_BELOW) level = 0;
    return level === before ? null : (levels[level] as Terms);
  };
}
