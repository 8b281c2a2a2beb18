/** A worker as a whole: its browser, its processes, its place in the queue. Also runs within another process. */
import { randomUUID } from 'node:crypto';
import { warnOfEviction } from '../shared/eviction.ts';
import type { Log } from '../shared/log.ts';
import { networkIdentity } from '../shared/network-identity.ts';
import type { OwnPort } from '../shared/outbound/policy.ts';
import { createPresence, type Standing } from '../shared/presence.ts';
import { createFinishQueue, createRecordQueue, patientRedis } from '../shared/queue.ts';
import { startReconciler } from '../shared/reconciler.ts';
import { createRecordingStore } from '../shared/recording-store.ts';
import { redisTroubleLog } from '../shared/redis-trouble.ts';
import { createAdmission, type Cost } from './admission.ts';
import type { AttemptTimes } from './attempt.ts';
import { findBrowser, type FoundBrowser } from './browser/find.ts';
import type { WorkerConfig } from './config.ts';
import { startConsumer, type ConsumerCounts } from './consumer.ts';
import { startHealthServer } from './health.ts';
import { createMachineReader } from './machine.ts';
import { announcePresence } from './presence.ts';
import { prepare, type SoundDelay } from './preparation.ts';
import { createMediaMetrics } from './media-metrics.ts';
import { createOutboundMetrics } from './outbound-metrics.ts';
import type { RecorderSettings } from './process-protocol.ts';
import { createRecorderPool, type RecorderPool } from './recorder-pool.ts';
import { watchSharedMemory } from './shm.ts';

/** Redis may be away when a worker leaves: its connections then get so long to say good-bye, in milliseconds. */
const CLOSE_MS = 2000;

export type WorkerDependencies = {
  /** Measures how late sound comes on this machine, in place of a process of the pool; there is no self-test then. */
  measureSoundDelay?: (pool: RecorderPool, settings: RecorderSettings) => Promise<SoundDelay>;
  /** Of media sockets, where their own are not to be waited for. */
  mediaLimits?: RecorderSettings['mediaLimits'];
  /** The program of a recording's process. */
  script?: URL | string;
  /** Of attempts, where their own are not to be waited for. */
  times?: Partial<AttemptTimes>;
  /** What a recording is taken to need before one has run here. */
  prior?: Cost;
  /** False where nobody else is there to go on with what runs when the worker leaves: it is ended then. */
  handOver?: boolean;
  /** False where somebody waits for the recording: a page that can't be had fails it at once. */
  patient?: boolean;
  /** Ports of the service that pages must not reach, beside the worker's own and that of Redis. */
  ownPorts?: readonly OwnPort[];
};

export type RunningWorker = AsyncDisposable & {
  browser: FoundBrowser;
  /** Of the health server, where there is one. */
  healthPort: number | null;
  counts(): ConsumerCounts;
  /** Resolves once LEAVE_AFTER recordings have been taken and are over; never without it. */
  spent: Promise<void>;
  /**
   * Takes no more recordings, and resolves when the last one is over, or handed over to another worker because DRAIN_TIMEOUT
   * is. @param now aborted to hand them over at once
   */
  drain(now?: AbortSignal): Promise<void>;
};

/**
 * Resolves once it takes recordings, or its self-test has failed, which is tried again. Redis may come later. Disposing hands over
 * what runs, or ends it, keeps what was recorded, and closes.
 * @throws {TabreelError} `browser_not_found`
 */
export async function startWorker(config: WorkerConfig, log: Log, dependencies: WorkerDependencies = {}): Promise<RunningWorker> {
  const { chromiumPath, engine, path } = config;
  const browser = await findBrowser({ chromiumPath, engine, ...(path.length > 0 ? { path } : {}) });
  log.info('browser found', { ...browser });

  await using stack = new AsyncDisposableStack();
  const trouble = redisTroubleLog(log);
  const connect = () => stack.adopt(patientRedis(config, trouble), (client) => client.disconnect());
  const redis = connect();
  const subscriber = connect();
  void warnOfEviction(redis, log);
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
  let standing = (): Standing => ({ slots: config.slots, running: 0, room: 0, leaving: false });
  const announcement = await announcePresence(createPresence(redis, config.queuePrefix), networkIdentity(), randomUUID(), () => standing(), log);
  stack.defer(() => announcement.end());
  const own = [...config.ownPorts, ...(dependencies.ownPorts ?? [])];
  const outbound = { allow: config.outboundAllow, own };
  const settings: RecorderSettings = {
    browser,
    sandbox: config.sandbox,
    devShm: config.devShm,
    mediaCa: config.mediaCa,
    allowInsecureWs: config.allowInsecureWs,
    spool: config.spool,
    mediaFound: false,
    ...(dependencies.mediaLimits === undefined ? {} : { mediaLimits: dependencies.mediaLimits }),
    soundDelay: {},
    browserMemoryLimit: config.browserMemoryLimit,
    maxSize: config.maxSize,
    antMediaUrl: config.antMediaUrl,
    outbound,
    logLevel: config.logLevel,
  };
  const store = createRecordingStore(redis, config.queuePrefix);
  const media = createMediaMetrics();
  const denials = createOutboundMetrics();
  const shm = stack.use(watchSharedMemory(log));
  const reconciler = stack.use(startReconciler({ redis, store, recordQueue, finishQueue, retention: null, log }));
  let limitChanged = () => {};
  const admission = stack.use(
    createAdmission({
      slots: config.slots,
      ...(config.admission === 'slots'
        ? { machine: async () => ({ cpu: null, memory: null }), shmFree: () => null }
        : { machine: createMachineReader(), shmFree: config.devShm ? shm.free : () => null }),
      changed: () => limitChanged(),
      log,
      ...(dependencies.prior === undefined ? {} : { prior: dependencies.prior }),
    }),
  );
  const consumer = startConsumer({
    config, admission, held: true, redis, subscriber, store, recordQueue, finishQueue, pool, settings, media, denials, log,
    steady: reconciler.steady,
    handOver: dependencies.handOver ?? true,
    patient: dependencies.patient ?? true,
    changed: () => announcement.changed(),
    ...(dependencies.times === undefined ? {} : { times: dependencies.times }),
  });
  stack.defer(() => bounded(consumer[Symbol.asyncDispose]()));
  limitChanged = () => {
    consumer.limitChanged();
    announcement.changed();
  };
  standing = () => {
    const { active, room, draining } = consumer.counts();
    return { slots: config.slots, running: active, room, leaving: draining };
  };
  announcement.changed();
  const leaving = new AbortController();
  const preparation = prepare({
    pool, settings, log,
    selfTest: config.selfTest,
    measure: dependencies.measureSoundDelay ?? null,
    signal: leaving.signal,
  });
  const health =
    config.healthPort === null
      ? null
      : stack.use(
          await startHealthServer({
            port: config.healthPort,
            slots: config.slots,
            consumer,
            pool,
            selfTest: preparation.state,
            metrics: () => consumer.text() + admission.text() + media.text() + denials.text() + shm.text(),
            redis,
          }),
        );
  if (health !== null) {
    own.push({ host: null, port: health.port });
    log.info('health listens', { port: health.port });
  }
  stack.defer(() => leaving.abort());
  const begun = preparation.done.then((soundDelay) => {
    settings.soundDelay = soundDelay;
    consumer.open();
    log.info('worker runs', { slots: config.slots, slotsBound: config.slotsBound, engines: browser.engines, ...(health === null ? {} : { healthPort: health.port }) });
  });
  await preparation.tried;
  if (preparation.state().passed) await begun;

  const drain = async (now?: AbortSignal): Promise<void> => {
    leaving.abort();
    const drained = consumer.drain(now);
    await Promise.all([announcement.leave(), drained]);
  };
  const all = stack.move();
  return {
    browser,
    healthPort: health?.port ?? null,
    counts: consumer.counts,
    spent: consumer.spent,
    drain,
    async [Symbol.asyncDispose]() {
      // first what takes its time, so that only closing is bounded
      await drain(AbortSignal.abort());
      await all[Symbol.asyncDispose]();
    },
  };
}

const timeout = (milliseconds: number): Promise<undefined> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds, undefined).unref());

const bounded = async (closing: PromiseLike<unknown>): Promise<void> => {
  await Promise.race([Promise.resolve(closing).catch(() => undefined), timeout(CLOSE_MS)]);
};
