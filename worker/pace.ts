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
    /** A part left the muxer, with so many pictures: what is encoded behind the recording's end never does. */
    delivered(bytes: number, frames: number): void {
      delivered += bytes;
      latest = { ...latest, frames: latest.frames + frames };
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
        dropped: counts.dropped,
        fps: Math.round(rate(pictures - (first?.pictures ?? 0)) * 10) / 10,
        bitrate: Math.round(rate((delivered - (first?.bytes ?? 0)) * 8)),
        avDrift: Math.round(drift * 10_000) / 10_000,
      };
    },
    stats: (): RecordingStats => latest,
  };
}
