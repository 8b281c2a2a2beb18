/** How a recording does: counts since the start, and rates over the last seconds. */
import { noStats, type RecordingStats } from '../shared/recording.ts';
import type { CaptureCounts } from './capture/capture.ts';

/** Seconds that rates look back. */
const WINDOW_SECONDS = 5;

export type Pace = ReturnType<typeof createPace>;

export function createPace(now: () => number = () => performance.now() / 1000) {
  const marks: { at: number; pictures: number; bytes: number }[] = [];
  let delivered = 0;
  let latest = noStats;
  return {
    /** Media left the muxer. */
    delivered(bytes: number): void {
      delivered += bytes;
    },
    /** Once a second. */
    counted(counts: CaptureCounts, drift: number): void {
      const at = now();
      const pictures = counts.encoded - counts.repeated;
      marks.push({ at, pictures, bytes: delivered });
      while (marks.length > 2 && (marks[0] as { at: number }).at < at - WINDOW_SECONDS) marks.shift();
      const [first] = marks;
      const seconds = first === undefined ? 0 : at - first.at;
      const rate = (amount: number) => (seconds > 0 ? amount / seconds : 0);
      latest = {
        ...latest,
        frames: counts.encoded,
        dropped: counts.dropped,
        fps: Math.round(rate(pictures - (first?.pictures ?? 0)) * 10) / 10,
        bitrate: Math.round(rate((delivered - (first?.bytes ?? 0)) * 8)),
        avDrift: Math.round(drift * 10_000) / 10_000,
      };
    },
    stats: (): RecordingStats => latest,
  };
}
