/**
 * What is looked at once a second while a page is captured: whether it goes on, how it does, and what its caller should know of
 * what came out.
 */
import type { Page } from 'puppeteer-core';
import type { Log } from '../shared/log.ts';
import type { ErrorCode } from '../shared/errors.ts';
import type { RecordingSpec } from '../shared/recording.ts';
import { createBackpressure } from './backpressure.ts';
import { createPageQuestion } from './browser/page-alive.ts';
import type { AudioChunk, Capture } from './capture/capture.ts';
import { monotonicMicros } from './media/clock.ts';
import type { Sections } from './media/sections.ts';
import type { Pace } from './pace.ts';
import type { FromRecorder } from './process-protocol.ts';
import type { Sink } from './sink/sink.ts';
import { createStretches } from './stretches.ts';
import type { Watchdog } from './watchdog.ts';

const EVERY_MS = 1000;
/** Seconds of silence, and of a black picture, that are worth a word. */
const SILENCE_SECONDS = 10;
const BLACK_SECONDS = 10;
/** Amplitude of 16 bits up to which nothing is heard: -60 dBFS. */
const NOISE_FLOOR = 32;
/** Seconds that what is stored may lag behind before that is told; it always does by a segment, which has two. */
const LAG_SECONDS = 5;
/** Seconds of corrected drift that are told. */
const DRIFT_SECONDS = 0.1;
/** Stretches of one kind that an attempt tells one by one. */
const STRETCHES_AT_MOST = 10;

export type SupervisionOptions = {
  page: Page;
  live: Capture;
  sections: Sections;
  sink: Sink;
  pace: Pace;
  watchdog: Watchdog;
  spec: RecordingSpec;
  /** Whether this engine hears anything. */
  hears: boolean;
  /** Where the attempt begins on the timeline, in microseconds; null before its first picture. */
  base(): number | null;
  /** @param duration microseconds of the timeline so far */
  progressed(duration: number): void;
  report(message: FromRecorder): void;
  log: Log;
  fail(code: ErrorCode, message: string): void;
};

export type Supervision = {
  /** Sound came. */
  sound(chunk: AudioChunk): void;
  /** Tells what is left to tell; idempotent. */
  end(): void;
};

export async function startSupervision(options: SupervisionOptions): Promise<Supervision> {
  const { live, sections, sink, pace, watchdog, spec, report, log } = options;
  const warn = (code: string, message: string) => report({ type: 'warning', code, message });
  const stretches = { atMost: STRETCHES_AT_MOST, warn };
  const silence = createStretches({ ...stretches, code: 'silence', least: SILENCE_SECONDS, text: (from, to) => `No sound from ${from} to ${to}` });
  const black = createStretches({ ...stretches, code: 'black', least: BLACK_SECONDS, text: (from, to) => `The picture was black from ${from} to ${to}` });
  const lag = createStretches({
    ...stretches,
    code: 'lag',
    least: EVERY_MS / 1000,
    text: (from, to, worst) => `What was captured from ${from} to ${to} was stored late, by up to ${worst.toFixed(1)} s`,
  });
  const relieve = createBackpressure({ bitrate: spec.videoBitrate, frameRate: spec.frameRate });
  let toldPressure = false;
  let toldDrift = false;
  let ended = false;

  const secondsAt = (at: number) => sections.timeOf(at) / 1e6;
  /** What is asked at once only, and whose failure is an answer too. */
  const single = (task: () => Promise<void>) => {
    let busy = false;
    return () => {
      if (busy) return;
      busy = true;
      void task()
        .catch((error: unknown) => log.debug('pulse_failed', { error }))
        .finally(() => (busy = false));
    };
  };
  const question = await createPageQuestion(options.page);
  const askPage = single(async () => {
    await question();
    watchdog.pageAnswered();
  });
  const askCapture = single(async () => {
    const { dark, ...counts } = await live.pulse();
    watchdog.captureAnswered();
    pace.counted(counts, sections.drift());
    if (options.base() !== null && !ended) black.note(secondsAt(monotonicMicros()), dark === true ? 1 : null);
  });

  const easeOff = () => {
    const pressure = sink.pressure();
    const terms = relieve(pressure);
    if (terms === null) return;
    log.warn('encoder_terms', { pressure, ...terms });
    live.setRate(terms.bitrate, terms.frameRate).catch((error: unknown) => log.warn('encoder_terms_failed', { error }));
    if (toldPressure || terms.bitrate === spec.videoBitrate) return;
    toldPressure = true;
    warn('less_quality', 'Media was made faster than it could be stored: the picture was encoded with fewer bits, and fewer frames, until it was');
  };

  const tell = (base: number) => {
    const { storedBytes, storedUntil, storedSegments, waitingParts } = sink.progress();
    const duration = sections.timeOf(monotonicMicros());
    const lagSeconds = Math.max(0, (duration - Math.max(storedUntil, base)) / 1e6);
    options.progressed(duration);
    report({ type: 'progress', stats: { ...pace.stats(), bytes: storedBytes, lagSeconds }, duration: duration / 1e6, storedSegments });
    lag.note(duration / 1e6, waitingParts > 0 && lagSeconds > LAG_SECONDS ? lagSeconds : null);
    // from the last sound on, as it began
    if (spec.audio && options.hears) silence.note(base / 1e6, 1);
    if (!toldDrift && Math.abs(sections.drift()) > DRIFT_SECONDS) {
      toldDrift = true;
      warn('av_drift', `Sound and picture of the page have drifted apart by ${Math.round(DRIFT_SECONDS * 1000)} ms after ${(duration / 1e6).toFixed(0)} s, which is taken off`);
    }
  };

  const tick = () => {
    askPage();
    askCapture();
    const finding = watchdog.check();
    if (finding !== null) options.fail(finding.code, finding.message);
    const base = options.base();
    if (base === null) return;
    easeOff();
    tell(base);
  };
  const timer = setInterval(tick, EVERY_MS);

  return {
    sound({ timestamp, samples }) {
      if (samples === null || options.base() === null || !samples.some((sample) => Math.abs(sample) > NOISE_FLOOR)) return;
      const at = secondsAt(timestamp);
      silence.note(at, null);
      silence.note(at, 1);
    },
    end() {
      if (ended) return;
      ended = true;
      clearInterval(timer);
      const at = secondsAt(monotonicMicros());
      for (const kind of [silence, black, lag]) kind.end(at);
    },
  };
}
