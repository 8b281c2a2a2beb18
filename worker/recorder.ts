/** One recording, from its job to its last part: the state machine that runs in a process of its own. */
import { randomBytes } from 'node:crypto';
import { asTabreelError, TabreelError, type ErrorCode } from '../shared/errors.ts';
import type { RecordingJob } from '../shared/job.ts';
import { withoutQuery, type Log } from '../shared/log.ts';
import { judgeBy } from '../shared/outbound/judge.ts';
import type { CaptureEngineName, PageSecrets } from '../shared/recording.ts';
import { abortable } from './abortable.ts';
import type { PageCommands } from './commands.ts';
import type { FoundBrowser } from './browser/find.ts';
import { confineBrowser, confinePage } from './browser/confine.ts';
import { launchBrowser } from './browser/launch.ts';
import { openPage } from './browser/page.ts';
import { watchWebrtc } from './browser/webrtc-watch.ts';
import { watchMemory } from './browser/memory.ts';
import { avcCodec, type AudioChunk, type Capture, type CaptureEvents } from './capture/capture.ts';
import { mayPass } from './capture/stream-session.ts';
import { engineFor } from './engines.ts';
import { monotonicMicros } from './media/clock.ts';
import { createSections } from './media/sections.ts';
import { createDenials } from './outbound/denials.ts';
import { startProxy } from './outbound/proxy.ts';
import { createPace } from './pace.ts';
import { createPushing, type Pushing } from './pushing.ts';
import type { Pausing } from './pausing.ts';
import type { Continuation, FromRecorder, RecorderSettings } from './process-protocol.ts';
import { startSupervision, type Supervision } from './supervision.ts';
import type { Sink, SinkPart } from './sink/sink.ts';
import { createWallClock, type WallClock } from './wall-clock.ts';
import { createWatchdog } from './watchdog.ts';

/** Seconds of a segment, and of the first one, which is short so that it is stored soon. */
const SEGMENT_SECONDS = 2;
const FIRST_SEGMENT_SECONDS = 1;
/** How long the first picture may take once the page is there, and after a pause, in milliseconds. */
const FIRST_FRAME_MS = 15_000;
/** A page that is busy delivers what it still has this late, in milliseconds; after that a pause goes without. */
const REST_MS = 5000;
/** And this late after a failure: what failed may be the page, or what would have to answer. */
const FAILED_MS = 500;
/** The thumbnail is of this moment, in milliseconds: pages fade in. */
const THUMBNAIL_AT_MS = 2000;

/** Frames with a process of their own that a page may open in an attempt, each for some tenths of a second of a core: pages full of advertisements have twenty. */
const FRAME_PROCESSES_AT_MOST = 40;

export type RecorderOptions = {
  job: RecordingJob;
  attempt: number;
  secrets: PageSecrets;
  settings: RecorderSettings;
  continues: Continuation;
  /** Whether it is wanted to pause, now and later. */
  pausing: Pausing;
  /** Scripts for the page, once it is there. */
  commands: PageCommands;
  sink: Sink;
  /** Takes what is heard too. */
  heard?: (chunk: AudioChunk) => void;
  log: Log;
  report(message: FromRecorder): void;
  /** Aborted to end the capture in good order, and to end it at once. */
  stop: AbortSignal;
  abandon: AbortSignal;
};

/** Runs the recording to its end and reports it; never throws. */
export async function record(options: RecorderOptions): Promise<void> {
  const { sink, report, log, continues } = options;
  const timeIsOver = new AbortController();
  const run: Run = {
    duration: 0,
    pace: createPace(),
    error: null,
    pushing: null,
    clock: createWallClock(continues.clockOffset),
    limit: null,
    limitFrom(at) {
      run.limit = at + Math.round(options.job.spec.maxDuration * 1e6);
      clearTimeout(limitTimer);
      limitTimer = setTimeout(() => timeIsOver.abort(), Math.max(0, (run.limit - monotonicMicros()) / 1000));
    },
    ending: AbortSignal.any([options.stop, options.abandon, timeIsOver.signal]),
  };
  let limitTimer: NodeJS.Timeout | undefined;
  if (continues.startedAt !== null) run.limitFrom(run.clock.monotonic(continues.startedAt));
  try {
    if ((run.limit ?? Infinity) > monotonicMicros()) await capturePage(options, run);
  } catch (error) {
    // an end before the first picture is no error
    if (!run.ending.aborted) run.error = asTabreelError(error, 'capture_failed');
  }
  clearTimeout(limitTimer);
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
    stats: { ...run.pace.stats(), bytes: storedBytes, ...pushStatsOf(run) },
    duration: run.duration / 1e6,
    storedSegments,
  });
}

type Run = {
  /** Microseconds. */
  duration: number;
  pace: ReturnType<typeof createPace>;
  error: TabreelError | null;
  /** What was pushed last, and may still be. */
  pushing: Pushing | null;
  clock: WallClock;
  /** Monotonic microseconds at which maxDuration is over; null before it has begun. */
  limit: number | null;
  limitFrom(at: number): void;
  /** Aborted when the recording is to end, for whatever reason but an error. */
  ending: AbortSignal;
};

const pushStatsOf = ({ pushing }: Run) => {
  const push = pushing?.stats() ?? [];
  return push.length === 0 ? {} : { push };
};

/** Tries the engines that the browser offers, the best first; only one that can't capture the page at all is passed over. */
async function capturePage(options: RecorderOptions, run: Run): Promise<void> {
  const { settings, log, report, attempt } = options;
  const found = settings.browser;
  for (const [i, name] of found.engines.entries()) {
    try {
      await captureWith(name, found, options, run);
      return;
    } catch (error) {
      const next = found.engines[i + 1];
      if (!(error instanceof TabreelError) || error.code !== 'capture_unavailable') throw error;
      // once is no reason to go on with a worse one
      if (mayPass(error.cause) && (next === undefined || attempt === 1)) throw new TabreelError('capture_failed', error.message, { cause: error.cause });
      if (next === undefined) throw error;
      log.warn('engine_passed_over', { engine: name, next, error });
      report({ type: 'log', message: `${error.message}: going on with the ${next} engine` });
    }
  }
}

async function captureWith(name: CaptureEngineName, found: FoundBrowser, options: RecorderOptions, run: Run): Promise<void> {
  const { job, settings, log, report, sink, pausing, continues } = options;
  const { spec } = job;
  const { clock, ending } = run;
  ending.throwIfAborted();
  const { engine, paced } = engineFor(name);

  using denials = createDenials(report);
  const judge = judgeBy(settings.outbound);
  await using proxy = await startProxy({ log, judge, denied: denials.denied });
  const captureTitle = `tabreel-${randomBytes(8).toString('hex')}`;
  await using launched = await launchBrowser(
    {
      ...found,
      sandbox: settings.sandbox,
      devShm: settings.devShm,
      width: spec.width,
      height: spec.height,
      proxyPort: proxy.port,
      captureTitle,
      paced,
      webrtc: spec.webrtc,
      switches: spec.switches,
    },
    ending,
  );
  log.info('browser_started', { version: found.version, engine: name });
  await using stack = new AsyncDisposableStack();

  // whatever ends the capture ends it here, once
  const over = Promise.withResolvers<void>();
  over.promise.catch(() => undefined);
  const fail = (code: ErrorCode, message: string, cause?: unknown) => over.reject(new TabreelError(code, message, { cause }));
  void launched.ended.then(() => fail('browser_crashed', 'The browser ended by itself'));
  sink.failed.catch((error: unknown) => over.reject(error));
  ending.addEventListener('abort', () => over.resolve());
  if (launched.pid !== null && settings.browserMemoryLimit) {
    const gigabytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
    const limit = settings.browserMemoryLimit;
    stack.defer(
      watchMemory(launched.pid, limit, (bytes) => {
        const message = `The page needed ${gigabytes(bytes)} of memory, where a recording may have ${gigabytes(limit)}`;
        fail('page_too_large', message);
      }),
    );
  }

  /** When the pause began that lasts, by the clock of Redis; null where there is none. */
  let pausedAt = continues.pausedAt;
  /** Where the attempt begins on the timeline, in microseconds; null before its first picture. */
  let base: number | null = null;
  let firstFrame: () => void = () => undefined;
  const watchdog = createWatchdog();
  let captured = false;
  let isOver = false;
  let supervision: Supervision | null = null;
  let mediaBytes = continues.storedBytes ?? 0;
  const deliver = (part: SinkPart) => {
    run.pace.delivered(part.payload.length, part.header.type === 'segment' ? part.header.frames : 0);
    sink.push(part);
    if (!spec.record) return;
    mediaBytes += part.payload.length;
    if (!settings.maxSize || mediaBytes < settings.maxSize || isOver) return;
    isOver = true;
    report({ type: 'warning', code: 'size_limit', message: `The recording ended at ${mediaBytes} bytes of media: MAX_SIZE is ${settings.maxSize}` });
    over.resolve();
  };
  const soundDelay = (settings.soundDelay[name] ?? 0) * 1000;
  let capture: Capture | null = null;
  const pushing = createPushing({
    spec,
    secrets: options.secrets.push ?? [],
    hears: engine.deafTo !== 'all sound',
    soundDelay,
    ca: settings.mediaCa,
    antMediaUrl: settings.antMediaUrl ?? null,
    judge,
    keyFrame: () => void capture?.keyFrame().catch((error: unknown) => log.debug('key_frame_failed', { error })),
    allFailed(error) {
      if (!spec.record) over.reject(error);
    },
    report,
    log,
  });
  run.pushing = pushing;
  stack.defer(() => pushing.stop());
  const sections = createSections({
    width: spec.width,
    height: spec.height,
    codec: avcCodec(spec.width, spec.height, spec.frameRate),
    // nobody would hear it
    audioBitrate: spec.audio && spec.record ? spec.audioBitrate : null,
    soundDelay,
    deliver,
    failed: (error) => over.reject(error),
    base(first) {
      base = continues.startedAt === null ? 0 : Math.max(0, (pausedAt ?? clock.wall(first)) - continues.startedAt - continues.pausedMs) * 1000;
      return base;
    },
    began(at) {
      if (!captured) {
        captured = true;
        if (continues.startedAt === null) run.limitFrom(at);
        report({ type: 'recording', engine: name, at: clock.wall(at) });
        log.info('recording_started', { engine: name });
        if (engine.deafTo !== null && spec.audio) {
          report({ type: 'warning', code: 'deaf', message: `The ${name} engine does not hear ${engine.deafTo}` });
        }
      }
      if (pausedAt !== null) report({ type: 'resumed', at: clock.wall(at) });
      pausedAt = null;
      pushing.begin();
      firstFrame();
    },
    until: () => run.limit ?? Infinity,
  });
  const events: CaptureEvents = {
    video(packet) {
      watchdog.packet();
      sections.video(packet);
      pushing.video(packet);
    },
    audio(chunk) {
      options.heard?.(chunk);
      supervision?.sound(chunk);
      sections.audio(chunk);
      pushing.audio(chunk);
    },
    audioReset() {
      sections.audioReset();
      pushing.audioReset();
    },
    failed: (error) => fail('capture_failed', error.message, error),
  };

  await confineBrowser(launched.browser);
  const target = await engine.open(launched.browser, {
    ...spec,
    keyFrameSeconds: SEGMENT_SECONDS,
    firstKeyFrameSeconds: FIRST_SEGMENT_SECONDS,
    controllerUrl: proxy.controllerUrl,
    captureTitle,
    calibrate: false,
  }, log);
  await confinePage(target.page);
  target.page.on('error', (error) => fail('page_crashed', "The page's process crashed", error));
  await watchWebrtc(target.page, (trouble) => {
    log.info('webrtc_trouble', { trouble, webrtc: spec.webrtc });
    const way = spec.webrtc === 'proxied' ? 'webrtc: "proxied" lets only TURN over TCP or TLS through; "direct" lets it use UDP' : 'UDP may be blocked on its way';
    const what = trouble === 'lost' ? 'was lost' : 'did not come about, and what it would bring is missing';
    report({ type: 'warning', code: `webrtc_${trouble}`, message: `A WebRTC connection of the page ${what}: ${way}` });
  }, (frames) => {
    if (frames > FRAME_PROCESSES_AT_MOST) fail('page_too_large', `The page opened more than ${FRAME_PROCESSES_AT_MOST} frames of other sites, each of which takes a process`);
  });

  const opening = AbortSignal.any([ending, abortWhenRejected(over.promise)]);
  // a tab is picked while it is blank; a page that captures itself has to be there first
  if (name === 'tab') capture = await target.attach(events);
  const page = await openPage(target.page, spec, options.secrets, proxy, opening);
  log.info('page_opened', { page: withoutQuery(spec.url) });
  await options.commands.open(target.page);
  void page.over.then(() => over.resolve());
  capture ??= await target.attach(events);
  using live = capture;
  supervision = await startSupervision({
    page: target.page,
    live,
    sections,
    sink,
    pace: run.pace,
    pushing,
    watchdog,
    spec,
    hears: engine.deafTo !== 'all sound',
    base: () => base,
    progressed(duration) {
      run.duration = duration;
    },
    report,
    log,
    fail,
  });
  stack.defer(() => supervision?.end());

  const thumbnail = createThumbnail(live, sink, Math.min(THUMBNAIL_AT_MS, spec.maxDuration * 500), log);
  stack.defer(() => thumbnail.wait());

  const rest = async () => {
    const at = sections.cut(monotonicMicros());
    watchdog.expect(false);
    thumbnail.wait();
    await pushing.settle();
    try {
      await timeout(live.rest(at), REST_MS);
    } catch (error) {
      log.warn('capture_rest_failed', { error });
    }
    sections.close();
    pushing.rest();
    if (isOver) return;
    pausedAt ??= clock.wall(at);
    // nobody sees anything of it yet, but it takes a slot
    if (run.limit === null) run.limitFrom(at);
    report({ type: 'paused', at: pausedAt });
    log.info('recording_paused');
  };
  const go = async () => {
    const noFrame = setTimeout(() => fail('no_frames', `No picture came within ${FIRST_FRAME_MS / 1000} s`), FIRST_FRAME_MS);
    let shown = false;
    firstFrame = () => {
      shown = true;
      clearTimeout(noFrame);
      watchdog.expect(true);
      thumbnail.take();
      awaited.resolve();
    };
    const awaited = Promise.withResolvers<void>();
    try {
      await sections.open();
      pushing.go();
      await live.begin();
      while (!shown && !pausing.wanted() && !isOver) await Promise.race([awaited.promise, over.promise, pausing.changed()]);
    } finally {
      clearTimeout(noFrame);
    }
  };
  const conduct = async () => {
    for (let doing: 'record' | 'rest' | null = null; !isOver; ) {
      const wanted = pausing.wanted() ? 'rest' : 'record';
      if (wanted === doing) await Promise.race([pausing.changed(), over.promise]);
      else await (wanted === 'rest' ? rest() : go());
      doing = wanted;
    }
  };
  conduct().catch((error: unknown) => over.reject(asTabreelError(error, 'capture_failed')));

  let failure: unknown = null;
  await over.promise.catch((error: unknown) => {
    failure = error;
  });
  isOver = true;
  options.commands.close();
  supervision.end();
  thumbnail.wait();
  if (options.abandon.aborted) return;
  if (!captured) {
    if (failure !== null) throw failure as Error;
    return; // ended before the first picture
  }
  const end = Math.min(monotonicMicros(), run.limit ?? Infinity);
  sections.endAt(end);
  // a page that is gone can't give its last picture
  try {
    run.pace.counted(await timeout(live.stop(), failure === null ? REST_MS : FAILED_MS), sections.drift());
  } catch (error) {
    log.warn('capture_stop_failed', { error });
  }
  const unpublished = pushing.stop();
  run.duration = await sections.finish(end);
  await unpublished;
  if (failure !== null) throw failure as Error;
}

/** One picture of how the page looks, taken once some moments after it came, where the capture doesn't rest just then. */
function createThumbnail(live: Capture, sink: Sink, after: number, log: Log) {
  let taken = false;
  let timer: NodeJS.Timeout | undefined;
  const take = async () => {
    const jpeg = await live.snapshot();
    if (jpeg === null || taken) return;
    taken = true;
    sink.push({ header: { type: 'thumbnail' }, payload: jpeg });
  };
  return {
    take() {
      clearTimeout(timer);
      if (!taken) timer = setTimeout(() => void take().catch((error: unknown) => log.warn('thumbnail_failed', { error })), after);
    },
    /** Not now. */
    wait: () => clearTimeout(timer),
  };
}

function abortWhenRejected(promise: Promise<unknown>): AbortSignal {
  const controller = new AbortController();
  promise.catch((error: unknown) => controller.abort(error));
  return controller.signal;
}

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
