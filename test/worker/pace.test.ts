import { describe, expect, test } from 'vitest';
import { noStats } from '../../shared/recording.ts';
import { createPace } from '../../worker/pace.ts';

describe('how a recording does', () => {
  const at = () => {
    const clock = { seconds: 1000 };
    const pace = createPace(() => clock.seconds);
    let encoded = 0;
    let repeated = 0;
    return {
      pace,
      /** A second in which so many new pictures, repeats and bytes came. */
      second(pictures: number, repeats: number, bytes: number, more: { dropped?: number; drift?: number; took?: number } = {}) {
        clock.seconds += more.took ?? 1;
        encoded += pictures + repeats;
        repeated += repeats;
        pace.delivered(bytes, pictures + repeats);
        pace.counted({ frames: pictures, encoded, repeated, dropped: more.dropped ?? 0 }, more.drift ?? 0);
        return pace.stats();
      },
    };
  };

  test('is nothing before the first count, and no rate can be told from one', () => {
    const { pace, second } = at();
    expect(pace.stats()).toEqual(noStats);
    expect(second(30, 0, 100_000)).toEqual({ ...noStats, frames: 30 });
  });

  test('counts what left the muxer, not what was encoded behind the end', () => {
    const { pace, second } = at();
    second(30, 1, 100_000);
    pace.counted({ frames: 33, encoded: 33, repeated: 1, dropped: 0 }, 0);
    expect(pace.stats()).toMatchObject({ frames: 31 });
  });

  test('a moving page: pictures and bits a second', () => {
    const { second } = at();
    for (let i = 0; i < 20; i += 1) second(30, 0, 250_000);
    expect(second(30, 0, 250_000, { dropped: 2, drift: 0.012_345_6 })).toEqual({
      ...noStats,
      frames: 630,
      dropped: 2,
      fps: 30,
      bitrate: 2_000_000,
      avDrift: 0.0123,
    });
  });

  test('a page that stands still has no new pictures, though some are encoded', () => {
    const { second } = at();
    for (let i = 0; i < 10; i += 1) second(30, 0, 250_000);
    // the last five seconds count: what was before is forgotten
    let stats = noStats;
    for (let i = 0; i < 7; i += 1) stats = second(0, 1, 1000);
    expect(stats).toMatchObject({ frames: 307, fps: 0, bitrate: 8000 });
  });

  test('a count that comes late is a rate all the same', () => {
    const { second } = at();
    for (let i = 0; i < 10; i += 1) second(30, 0, 250_000);
    // the capture did not answer for ten seconds
    const stats = second(300, 0, 2_500_000, { took: 10 });
    expect(stats.fps).toBeCloseTo(30, 0);
    expect(stats.bitrate).toBeCloseTo(2_000_000, -5);
  });
});
