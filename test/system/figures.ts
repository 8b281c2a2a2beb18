/** What a recording of a moving test page is worth: read from its file, and printed. */
import type { Recording } from '../../shared/recording.ts';
import { flashBeepOffsets, loudness, probe, readBeeps, readFrames, summary, uniqueFrames, type Probe, type Summary } from '../helpers/analyse.ts';
import type { Pages } from '../helpers/pages.ts';

export type Figures = {
  probe: Probe;
  /** Different frames of the page, a second. */
  perSecond: number;
  /** Of the frames that the page drew, up to the frame rate; NaN where the page did not report. */
  share: number;
  /** Seconds between two new frames at most. */
  longestGap: number;
  unreadable: number;
  backwards: number;
  beeps: number;
  /** dBFS over all; null without a sound track. */
  loudness: number | null;
  /** Milliseconds from flash to beep. */
  offset: Summary;
};

/** @param pages where the page was opened with `?report=1` */
export async function figuresOf(recording: Recording & { path: string }, pages?: Pages): Promise<Figures> {
  const { path, startedAt, frameRate } = recording;
  const [probed, frames] = [await probe(path), await readFrames(path)];
  const { perSecond, longestGap, unreadable, backwards } = uniqueFrames(frames);
  const beeps = probed.audio === null ? [] : await readBeeps(path);
  const from = Date.parse(startedAt ?? '');
  const until = from + recording.duration * 1000;
  // the page's first and last reports lie within the recording, not at its ends
  const drawn = pages?.framesDrawn(from + 500, until - 500) ?? NaN;
  const drawnPerSecond = drawn / ((until - from - 1000) / 1000);
  const figures: Figures = {
    probe: probed,
    perSecond,
    share: perSecond / Math.min(frameRate, drawnPerSecond),
    longestGap,
    unreadable,
    backwards,
    beeps: beeps.length,
    loudness: probed.audio === null ? null : (await loudness(path)).overall,
    offset: summary(flashBeepOffsets(frames, beeps)),
  };
  const ms = (value: number) => value.toFixed(0);
  console.log(
    `${recording.engine} ${new URL(recording.url).pathname}: ${recording.duration.toFixed(2)} s, ${perSecond.toFixed(1)} new frames/s ` +
      `(page drew ${drawnPerSecond.toFixed(1)}, share ${figures.share.toFixed(3)}), longest gap ${ms(longestGap * 1000)} ms, ${beeps.length} beeps, ` +
      `${figures.loudness?.toFixed(1) ?? 'no'} dBFS, beep after flash ${ms(figures.offset.median)} ms (p5 ${ms(figures.offset.p5)}, p95 ${ms(figures.offset.p95)})`,
  );
  return figures;
}
