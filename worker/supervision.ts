/**
 * What is looked at once a second while a page is captured: whether it goes on, how it does, and what its caller should know of
 * what came out.
 */
import type { Page } from 'puppeteer-core';
import type { Log } from '../shared/log.ts';
import type { ErrorCode } from '../shared/errors.ts';
import type { RecordingSpec } from '../shared/recording.ts';
import { createBackpressure, type Terms } from './backpressure.ts';
import { createPageQuestion } from './browser/page-alive.ts';
import type { AudioChunk, Capture } from './capture/capture.ts';
import { monotonicMicros } from './media/clock.ts';
import type { Sections } from './media/sections.ts';
import type { Pace } from './pace.ts';
import type { Pushing } from './pushing.ts';
import type { FromRecorder } from './process-protocol.ts';
import type { Sink } from './sink/sink.ts';
import { createStretches } from './stretches.ts';
import type { Watchdog } from './watchdog.ts';

const EVERY_MS = 1000;
/** Share by which the bit rate that pushes bear must change to be followed. */
const NEAR = 0.1;
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
  pushing: Pushing;
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
  const { live, sections, sink, pace, pushing, watchdog, spec, report, log } = options;
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
  const normal: Terms = { bitrate: spec.videoBitrate, frameRate: spec.frameRate };
  const relieve = createBackpressure(normal);
  let toldPushes = false;
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

  let wanted: Terms = normal;
  let asked: Terms = normal;
  const easeOff = () => {
    const pressure = sink.pressure();
    const relief = relieve(pressure);
    if (relief !== null) wanted = relief;
    const pushes = pushing.bears();
    const terms = { ...wanted, bitrate: Math.min(wanted.bitrate, pushes) };
    // a little more or less isn't worth a new beginning of the encoder
    const isNear = Math.abs(terms.bitrate - asked.bitrate) < asked.bitrate * NEAR && terms.bitrate !== wanted.bitrate;
    if (terms.frameRate === asked.frameRate && (terms.bitrate === asked.bitrate || isNear)) return;
    asked = terms;
    log.warn('encoder_terms', { pressure, pushes, ...terms });
    live.setRate(terms.bitrate, terms.frameRate).catch((error: unknown) => log.warn('encoder_terms_failed', { error }));
    if (!toldPushes && pushes < wanted.bitrate) {
      toldPushes = true;
      warn('push_slow', 'The way of a push bears less than the picture has: it is encoded with fewer bits until it does, in the recording too');
    }
    if (toldPressure || wanted.bitrate === spec.videoBitrate) return;
    toldPressure = true;
    warn('less_quality', 'Media was made faster than it could be stored: the picture was encoded with fewer bits, and fewer frames, until it was');
  };

  const tell = (base: number) => {
    const { storedBytes, storedUntil, storedSegments, waitingParts } = sink.progress();
    const duration = sections.timeOf(monotonicMicros());
    const lagSeconds = Math.max(0, (duration - Math.max(storedUntil, base)) / 1e6);
    options.progressed(duration);
    const push = pushing.stats();
    report({ type: 'progress', stats: { ...pace.stats(), bytes: storedBytes, lagSeconds, ...(push.length === 0 ? {} : { push }) }, duration: duration / 1e6, storedSegments });
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
