/** One recording, from its job to its last part: the state machine that runs in a process of its own. */
import { randomBytes } from 'node:crypto';
import { isLoopbackHost } from '../shared/address.ts';
import { asTabreelError, TabreelError } from '../shared/errors.ts';
import type { RecordingJob } from '../shared/job.ts';
import { withoutQuery, type Log } from '../shared/log.ts';
import type { CaptureEngineName, PageSecrets } from '../shared/recording.ts';
import type { FoundBrowser } from './browser/find.ts';
import { launchBrowser } from './browser/launch.ts';
import { openPage } from './browser/page.ts';
import { watchWebrtc } from './browser/webrtc-watch.ts';
import { avcCodec, type Capture, type CaptureEvents } from './capture/capture.ts';
import { engineFor } from './engines.ts';
import { monotonicMicros } from './media/clock.ts';
import { createMuxer, type Muxer } from './media/muxer.ts';
import { startProxy } from './outbound/proxy.ts';
import { createPace } from './pace.ts';
import type { Continuation, FromRecorder, RecorderSettings } from './process-protocol.ts';
import type { Sink } from './sink/sink.ts';

/** Seconds of a segment, and of the first one, which is short so that it is stored soon. */
const SEGMENT_SECONDS = 2;
const FIRST_SEGMENT_SECONDS = 1;
/** How long the first picture may take once the page is there, in milliseconds. */
const FIRST_FRAME_MS = 15_000;
/** A capture that doesn't answer for this long is dead, in milliseconds. */
const PULSE_TIMEOUT_MS = 30_000;
/** The thumbnail is of this moment, in milliseconds: pages fade in. */
const THUMBNAIL_AT_MS = 2000;

export type RecorderOptions = {
  job: RecordingJob;
  attempt: number;
  secrets: PageSecrets;
  settings: RecorderSettings;
  continues: Continuation;
  /** Whether it begins paused. */
  paused: boolean;
  sink: Sink;
  log: Log;
  report(message: FromRecorder): void;
  /** Aborted to end the capture in good order, and to end it at once. */
  stop: AbortSignal;
  abandon: AbortSignal;
};

/** Runs the recording to its end and reports it; never throws. */
export async function record(options: RecorderOptions): Promise<void> {
  const { sink, report, log } = options;
  const run: Run = { duration: 0, pace: createPace(), error: null };
  try {
    await capturePage(options, run);
  } catch (error) {
    // a stop before the first picture is no error
    if (!options.stop.aborted && !options.abandon.aborted) run.error = asTabreelError(error, 'capture_failed');
  }
  if (!options.abandon.aborted && sink.progress().waitingParts + sink.progress().storedSegments > 0) {
    try {
      await abortable(sink.finish(run.duration), options.abandon);
    } catch (error) {
      run.error ??= asTabreelError(error, 'media_unreachable');
    }
  }
  const { storedSegments, storedBytes } = sink.progress();
  if (run.error) log.warn('recording_failed', { error: run.error });
  report({
    type: 'ended',
    error: run.error?.toRecordingError() ?? null,
    stats: { ...run.pace.stats(), bytes: storedBytes },
    duration: run.duration / 1e6,
    storedSegments,
  });
}

type Run = { /** Microseconds. */ duration: number; pace: ReturnType<typeof createPace>; error: TabreelError | null };

/** Tries the engines that the browser offers, the best first; only one that can't capture the page at all is passed over. */
async function capturePage(options: RecorderOptions, run: Run): Promise<void> {
  const { settings, log, report } = options;
  const found = settings.browser;
  for (const [i, name] of found.engines.entries()) {
    try {
      await captureWith(name, found, options, run);
      return;
    } catch (error) {
      const next = found.engines[i + 1];
      if (!(error instanceof TabreelError) || error.code !== 'capture_unavailable' || next === undefined) throw error;
      log.warn('engine_passed_over', { engine: name, next, error });
      report({ type: 'log', message: `${error.message}: going on with the ${next} engine` });
    }
  }
}

async function captureWith(name: CaptureEngineName, found: FoundBrowser, options: RecorderOptions, run: Run): Promise<void> {
  const { job, settings, log, report, sink } = options;
  const { spec } = job;
  const ending = AbortSignal.any([options.stop, options.abandon]);
  ending.throwIfAborted();
  const { engine, paced } = engineFor(name);

  await using proxy = await startProxy({ log });
  const captureTitle = `tabreel-${randomBytes(8).toString('hex')}`;
  await using launched = await launchBrowser(
    {
      ...found,
      sandbox: settings.sandbox,
      width: spec.width,
      height: spec.height,
      proxyPort: proxy.port,
      captureTitle,
      paced,
      webrtc: spec.webrtc,
      treatAsSecure: name === 'self' ? insecureOrigin(spec.url) : null,
    },
    ending,
  );
  log.info('browser_started', { version: found.version, engine: name });

  // whatever ends the capture ends it here, once
  const over = Promise.withResolvers<void>();
  over.promise.catch(() => undefined);
  const fail = (code: 'browser_crashed' | 'page_crashed' | 'capture_failed' | 'no_frames', message: string, cause?: unknown) =>
    over.reject(new TabreelError(code, message, { cause }));
  void launched.ended.then(() => fail('browser_crashed', 'The browser ended by itself'));
  sink.failed.catch((error: unknown) => over.reject(error));
  ending.addEventListener('abort', () => over.resolve());

  const firstFrame = Promise.withResolvers<void>();
  const muxer = await createMuxer({
    width: spec.width,
    height: spec.height,
    codec: avcCodec(spec.width, spec.height, spec.frameRate),
    audioBitrate: spec.audio ? spec.audioBitrate : null,
    soundDelay: (settings.soundDelay[name] ?? 0) * 1000,
    deliver(part) {
      run.pace.delivered(part.payload.length);
      sink.push(part);
    },
    failed: (error) => over.reject(error),
  });
  const events: CaptureEvents = {
    video(packet) {
      const first = muxer.start() === null;
      muxer.video(packet);
      if (first && muxer.start() !== null) firstFrame.resolve();
    },
    audio: muxer.audio,
    audioReset: muxer.audioReset,
    failed: (error) => fail('capture_failed', error.message, error),
  };

  const target = await engine.open(launched.browser, {
    ...spec,
    keyFrameSeconds: SEGMENT_SECONDS,
    firstKeyFrameSeconds: FIRST_SEGMENT_SECONDS,
    controllerUrl: proxy.controllerUrl,
    captureTitle,
    calibrate: false,
  }, log);
  target.page.on('error', (error) => fail('page_crashed', "The page's process crashed", error));
  await watchWebrtc(target.page, (trouble) => {
    log.info('webrtc_trouble', { trouble, webrtc: spec.webrtc });
    const way = spec.webrtc === 'proxied' ? 'webrtc: "proxied" lets only TURN over TCP or TLS through; "direct" lets it use UDP' : 'UDP may be blocked on its way';
    const what = trouble === 'lost' ? 'was lost' : 'did not come about, and what it would bring is missing';
    report({ type: 'warning', code: `webrtc_${trouble}`, message: `A WebRTC connection of the page ${what}: ${way}` });
  });

  const opening = AbortSignal.any([ending, abortWhenRejected(over.promise)]);
  // a tab is picked while it is blank; a page that captures itself has to be there first
  let capture: Capture | null = name === 'tab' ? await target.attach(events) : null;
  const page = await openPage(target.page, spec, options.secrets, proxy, opening);
  log.info('page_opened', { page: withoutQuery(spec.url) });
  capture ??= await target.attach(events);
  await using live = capture;

  await live.begin();
  const noFrame = setTimeout(() => fail('no_frames', `No picture came within ${FIRST_FRAME_MS / 1000} s`), FIRST_FRAME_MS);
  await Promise.race([firstFrame.promise, over.promise]);
  clearTimeout(noFrame);
  const start = muxer.start();
  if (start === null) return; // stopped before the first picture
  const startedAt = Date.now() - Math.round((monotonicMicros() - start) / 1000);
  report({ type: 'recording', engine: name, at: startedAt + options.continues.clockOffset });
  if (engine.deafTo !== null && spec.audio) {
    report({ type: 'warning', code: 'deaf', message: `The ${name} engine does not hear ${engine.deafTo}` });
  }
  log.info('recording_started', { engine: name });

  const limit = start + spec.maxDuration * 1e6;
  const limitTimer = setTimeout(() => over.resolve(), Math.max(0, (limit - monotonicMicros()) / 1000));
  void page.over.then(() => over.resolve());
  const stopWatching = watch(live, muxer, options, run, start, (error) => fail('capture_failed', error.message, error));

  let failure: unknown = null;
  await over.promise.catch((error: unknown) => {
    failure = error;
  });
  clearTimeout(limitTimer);
  stopWatching();
  if (options.abandon.aborted) return;
  const end = Math.min(monotonicMicros(), limit);
  muxer.endAt(end);
  // a page that is gone can't give its last picture
  try {
    run.pace.counted(await timeout(live.stop(), failure === null ? 5000 : 1000), muxer.drift());
  } catch (error) {
    log.warn('capture_stop_failed', { error });
  }
  run.duration = await muxer.finish(end);
  if (failure !== null) throw failure as Error;
}

/** Reports progress once a second, takes the thumbnail, and finds a capture that doesn't answer any more. */
function watch(live: Capture, muxer: Muxer, options: RecorderOptions, run: Run, start: number, dead: (error: Error) => void): () => void {
  const { sink, report, log } = options;
  let answered = performance.now();
  let asking = false;
  const pulse = () => {
    if (performance.now() - answered > PULSE_TIMEOUT_MS) dead(new Error('the capture does not answer'));
    if (!asking) {
      asking = true;
      live
        .pulse()
        .then(
          (counts) => {
            answered = performance.now();
            run.pace.counted(counts, muxer.drift());
          },
          (error: unknown) => log.debug('pulse_failed', { error }),
        )
        .finally(() => {
          asking = false;
        });
    }
    const { storedBytes, storedUntil, storedSegments } = sink.progress();
    const elapsed = monotonicMicros() - start;
    run.duration = elapsed;
    const stats = { ...run.pace.stats(), bytes: storedBytes, lagSeconds: Math.max(0, (elapsed - storedUntil) / 1e6) };
    report({ type: 'progress', stats, duration: elapsed / 1e6, storedSegments });
  };
  const beat = setInterval(pulse, 1000);
  const thumbnail = setTimeout(
    () => {
      live
        .snapshot()
        .then((jpeg) => {
          if (jpeg !== null) sink.push({ header: { type: 'thumbnail' }, payload: jpeg });
        })
        .catch((error: unknown) => log.warn('thumbnail_failed', { error }));
    },
    Math.min(THUMBNAIL_AT_MS, options.job.spec.maxDuration * 500),
  );
  return () => {
    clearInterval(beat);
    clearTimeout(thumbnail);
  };
}

/** The page's origin where a browser would not take it for a secure context, which capturing from within needs. */
function insecureOrigin(url: string): string | null {
  const { protocol, hostname, origin } = new URL(url);
  return protocol === 'http:' && !isLoopbackHost(hostname) ? origin : null;
}

function abortWhenRejected(promise: Promise<unknown>): AbortSignal {
  const controller = new AbortController();
  promise.catch((error: unknown) => controller.abort(error));
  return controller.signal;
}

const abortable = <T>(promise: Promise<T>, signal: AbortSignal): Promise<T> =>
  Promise.race([
    promise,
    new Promise<never>((_, reject) => {
      if (signal.aborted) reject(signal.reason as Error);
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    }),
  ]);

async function timeout<T>(promise: Promise<T>, milliseconds: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`no answer within ${milliseconds} ms`)), milliseconds);
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}
