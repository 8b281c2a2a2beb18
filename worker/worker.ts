/** A worker as a whole: its browser, its processes, its place in the queue. Also runs within another process. */
import { randomUUID } from 'node:crypto';
import type { Log } from '../shared/log.ts';
import { networkIdentity } from '../shared/network-identity.ts';
import { createPresence } from '../shared/presence.ts';
import { createFinishQueue, createRecordQueue, patientRedis } from '../shared/queue.ts';
import { startReconciler } from '../shared/reconciler.ts';
import { createRecordingStore } from '../shared/recording-store.ts';
import type { AttemptTimes } from './attempt.ts';
import { findBrowser, type FoundBrowser } from './browser/find.ts';
import type { WorkerConfig } from './config.ts';
import { startConsumer, type ConsumerCounts } from './consumer.ts';
import { startHealthServer } from './health.ts';
import { announcePresence } from './presence.ts';
import { createMediaMetrics } from './media-metrics.ts';
import type { RecorderSettings } from './process-protocol.ts';
import { createRecorderPool, type RecorderPool } from './recorder-pool.ts';

/** A calibration that takes longer is done without, in milliseconds. */
const CALIBRATION_MS = 60_000;
/** Redis may be away when a worker leaves: its connections then get so long to say good-bye, in milliseconds. */
const CLOSE_MS = 2000;

export type SoundDelay = RecorderSettings['soundDelay'];

export type WorkerDependencies = {
  /** Measures how late sound comes on this machine, before the first recording is taken; by default a process of the pool does. */
  measureSoundDelay?: (pool: RecorderPool, settings: RecorderSettings) => Promise<SoundDelay>;
  /** Of media sockets, where their own are not to be waited for. */
  mediaLimits?: RecorderSettings['mediaLimits'];
  /** The program of a recording's process. */
  script?: URL | string;
  /** Of attempts, where their own are not to be waited for. */
  times?: Partial<AttemptTimes>;
  /** False where nobody else is there to go on with what runs when the worker leaves: it is ended then. */
  handOver?: boolean;
  /** False where somebody waits for the recording: a page that can't be had fails it at once. */
  patient?: boolean;
};

export type RunningWorker = AsyncDisposable & {
  browser: FoundBrowser;
  /** Of the health server, where there is one. */
  healthPort: number | null;
  counts(): ConsumerCounts;
  /**
   * Takes no more recordings, and resolves when the last one is over, or handed over to another worker because DRAIN_TIMEOUT
   * is. @param now aborted to hand them over at once
   */
  drain(now?: AbortSignal): Promise<void>;
};

/**
 * Resolves once it takes recordings. Redis may come later. Disposing hands over what runs, or ends it, keeps what was recorded,
 * and closes.
 * @throws {TabreelError} `browser_not_found`
 */
export async function startWorker(config: WorkerConfig, log: Log, dependencies: WorkerDependencies = {}): Promise<RunningWorker> {
  const { chromiumPath, engine, path } = config;
  const browser = await findBrowser({ chromiumPath, engine, ...(path.length > 0 ? { path } : {}) });
  log.info('browser found', { ...browser });

  await using stack = new AsyncDisposableStack();
  const trouble = (error: Error) => log.warn('no connection to Redis', { error });
  const connect = () => stack.adopt(patientRedis(config.redisUrl, trouble), (client) => client.disconnect());
  const redis = connect();
  const subscriber = connect();
  const finishQueue = stack.adopt(createFinishQueue(redis, config.queuePrefix, trouble), (queue) => bounded(queue.close()));
  const recordQueue = stack.adopt(createRecordQueue(redis, config.queuePrefix, trouble), (queue) => bounded(queue.close()));
  const pool = stack.use(
    createRecorderPool({
      size: config.slots,
      environment: config.recorderEnvironment,
      log,
      ...(dependencies.script === undefined ? {} : { script: dependencies.script }),
    }),
  );
  // from here on it will take what is queued, if only after its calibration
  const announcement = await announcePresence(createPresence(redis, config.queuePrefix), networkIdentity(), randomUUID(), log);
  stack.defer(() => announcement.end());
  const settings: RecorderSettings = {
    browser,
    sandbox: config.sandbox,
    mediaCa: config.mediaCa,
    allowInsecureWs: config.allowInsecureWs,
    spool: config.spool,
    mediaFound: false,
    ...(dependencies.mediaLimits === undefined ? {} : { mediaLimits: dependencies.mediaLimits }),
    soundDelay: {},
    browserMemoryLimit: config.browserMemoryLimit,
    maxSize: config.maxSize,
    antMediaUrl: config.antMediaUrl,
    logLevel: config.logLevel,
  };
  settings.soundDelay = await soundDelayOf(dependencies.measureSoundDelay ?? measureInProcess, pool, settings, log);
  const store = createRecordingStore(redis, config.queuePrefix);
  const media = createMediaMetrics();
  const reconciler = stack.use(startReconciler({ redis, store, recordQueue, finishQueue, retention: null, log }));
  const consumer = startConsumer({
    config, redis, subscriber, store, recordQueue, finishQueue, pool, settings, media, log,
    steady: reconciler.steady,
    handOver: dependencies.handOver ?? true,
    patient: dependencies.patient ?? true,
    ...(dependencies.times === undefined ? {} : { times: dependencies.times }),
  });
  stack.defer(() => bounded(consumer[Symbol.asyncDispose]()));
  const health =
    config.healthPort === null
      ? null
      : stack.use(await startHealthServer({ port: config.healthPort, slots: config.slots, counts: consumer.counts, ready: pool.ready, media: media.text, redis }));
  log.info('worker runs', { slots: config.slots, engines: browser.engines, ...(health === null ? {} : { healthPort: health.port }) });

  const drain = async (now?: AbortSignal): Promise<void> => {
    await Promise.all([announcement.end(), consumer.drain(now)]);
  };
  const all = stack.move();
  return {
    browser,
    healthPort: health?.port ?? null,
    counts: consumer.counts,
    drain,
    async [Symbol.asyncDispose]() {
      // first what takes its time, so that only closing is bounded
      await drain(AbortSignal.abort());
      await all[Symbol.asyncDispose]();
    },
  };
}

async function soundDelayOf(
  measure: NonNullable<WorkerDependencies['measureSoundDelay']>,
  pool: RecorderPool,
  settings: RecorderSettings,
  log: Log,
): Promise<SoundDelay> {
  try {
    const soundDelay = await measure(pool, settings);
    log.info('sound is calibrated', { soundDelay });
    return soundDelay;
  } catch (error) {
    log.warn('sound is not calibrated', { error });
    return {};
  }
}

/** @throws where the process ends without an answer or takes too long */
async function measureInProcess(pool: RecorderPool, settings: RecorderSettings): Promise<SoundDelay> {
  const recorder = await pool.take();
  const measured = Promise.withResolvers<SoundDelay>();
  recorder.onMessage((message) => {
    if (message.type === 'calibrated') measured.resolve(message.soundDelay);
  });
  recorder.send({ type: 'calibrate', settings });
  const lost = recorder.exited.then(() => Promise.reject(new Error('its process ended')));
  const late = timeout(CALIBRATION_MS).then(() => Promise.reject(new Error(`it took more than ${CALIBRATION_MS / 1000} s`)));
  try {
    return await Promise.race([measured.promise, lost, late]);
  } finally {
    recorder.kill();
  }
}

const timeout = (milliseconds: number): Promise<undefined> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds, undefined).unref());

const bounded = async (closing: PromiseLike<unknown>): Promise<void> => {
  await Promise.race([Promise.resolve(closing).catch(() => undefined), timeout(CLOSE_MS)]);
};
