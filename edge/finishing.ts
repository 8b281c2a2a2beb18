/** The finaliser: takes finish jobs from its queue, and tells webhooks. Reads from the storage, never from the edge. */
import { DelayedError, UnrecoverableError, Worker, type Job } from 'bullmq';
import type { Redis } from 'ioredis';
import { TabreelError } from '../shared/errors.ts';
import { warnOfEviction } from '../shared/eviction.ts';
import { finishJob, newFinishJob, type FinishJob } from '../shared/job.ts';
import type { Log } from '../shared/log.ts';
import type { Labels } from '../shared/metrics.ts';
import { judgeBy } from '../shared/outbound/judge.ts';
import { redisPort } from '../shared/outbound/policy.ts';
import { FINISH_QUEUE, createFinishQueue, createRecordQueue, finishJobOptions, patientRedis } from '../shared/queue.ts';
import { startReconciler, type ReconcilerTimes } from '../shared/reconciler.ts';
import { createRecordingStore, type RecordingStore } from '../shared/recording-store.ts';
import type { FinaliserConfig } from './config.ts';
import { discardRecording, finishRecording, giveUp, removeRecording, sweepParts } from './finish/finish.ts';
import { finaliserHealth } from './finish/health.ts';
import { finishOrphans } from './finish/orphans.ts';
import { listenForProbes } from './probes.ts';
import { redisTroubleLog } from '../shared/redis-trouble.ts';
import { openStorage } from './storage/open.ts';
import type { Storage } from './storage/storage.ts';
import { startWebhooks, type WebhookOptions } from './webhooks/deliver.ts';
import { createWebhookQueue } from './webhooks/queue.ts';

/** Viewers of the live stream may see it to its end, and an edge without Redis learns from the seal that it is over. */
const SWEEP_DELAY_MS = 10 * 60_000;
/** Joining is reading and writing in turns, so two overlap well; more would compete with the ingest for the disk. */
const CONCURRENCY = 2;
/** No part comes for so long, where more could: then none will. A media socket that was cut is back sooner. */
const QUIET_MS = 5000;
/** Between tries while the storage is full or away, which may last for days: the first, doubled with each, and the longest. */
const STORAGE_DELAY_MS = 1000;
const MAX_STORAGE_DELAY_MS = 60_000;
/** Between looks for stored parts that no recording owns. */
const ORPHANS_MS = 3_600_000;
/** A backstop only: the lock is renewed while the job runs. */
const LOCK_MS = 60_000;

/**
 * Waits for Redis as long as it takes.
 *
 * @param config from readFinaliserConfig, or made by hand
 * @param options.storage instead of what config names
 * @param options.webhooks how often and by what webhooks are told
 * @param options.reconciler how often recordings are looked for that nobody works on, or that were kept long enough
 * @returns closed with `await using` or its Symbol.asyncDispose, which breaks off what runs; it is done again elsewhere
 */
export async function startFinaliser(
  config: FinaliserConfig,
  log: Log,
  options: { storage?: Storage; webhooks?: WebhookOptions; reconciler?: Partial<ReconcilerTimes> } = {},
): Promise<AsyncDisposable> {
  const trouble = redisTroubleLog(log);
  const redis = patientRedis(config, trouble);
  const blocking = patientRedis(config, trouble);
  void warnOfEviction(redis, log);
  const store = createRecordingStore(redis, config.queuePrefix);
  const queue = createFinishQueue(redis, config.queuePrefix, trouble);
  const recordQueue = createRecordQueue(redis, config.queuePrefix, trouble);
  const storage = options.storage ?? (await openStorage(config));
  const deps = { store, storage, log };
  const leaving = new AbortController();

  const active = new Set<string>();
  const run = async (job: Job<FinishJob>, token?: string): Promise<void> => {
    active.add(job.id ?? '');
    try {
      await act(job, token);
    } catch (error) {
      if (error instanceof DelayedError) throw error;
      if (!leaving.signal.aborted && !isOfStorage(error)) throw error;
      // back into the queue, leaving for another process; this is no failed try
      const delay = leaving.signal.aborted ? 0 : await waitForStorage(job, error as TabreelError);
      await job.moveToDelayed(Date.now() + delay, token);
      throw new DelayedError();
    } finally {
      active.delete(job.id ?? '');
    }
  };
  /** What is stored stays, and the recording in `finishing`, until there is room. @returns milliseconds until the next try */
  const waitForStorage = async (job: Job<FinishJob>, error: TabreelError): Promise<number> => {
    const { recordingId: id, action } = job.data;
    const tries = job.attemptsStarted - job.attemptsMade - 1;
    const delay = Math.min(STORAGE_DELAY_MS * 2 ** Math.min(tries, 10), MAX_STORAGE_DELAY_MS);
    log.warn('the storage is waited for', { recording: id, action, delay, error });
    if (action === 'finish' && error.code === 'storage_full') {
      await store.warn(id, 'storage_full', `The storage was full when the file was to be made (${error.message}): it is made as soon as there is room`);
    }
    return delay;
  };
  const act = async (job: Job<FinishJob>, token?: string): Promise<void> => {
    const { recordingId: id, action, seen = null } = finishJob.parse(job.data);
    if (action === 'remove') {
      await removeRecording(deps, id);
      return forgetJobs(id);
    }
    if (action === 'discard') return discardRecording(deps, id);
    if (action === 'sweep') return sweepParts(deps, id);
    const finished = await finishRecording(deps, id, leaving.signal, seen);
    if (finished.outcome === 'wait') {
      await job.updateData({ ...job.data, seen: finished.seen });
      await job.moveToDelayed(Date.now() + QUIET_MS, token);
      throw new DelayedError();
    }
    if (finished.outcome === 'gone') return;
    await queue.add('sweep', newFinishJob(id, 'sweep'), finishJobOptions(id, 'sweep', SWEEP_DELAY_MS));
  };

  /** What the queues remember of a recording that is gone. */
  const forgetJobs = async (id: string): Promise<void> => {
    const others = (['finish', 'sweep', 'discard'] as const).map((action) => finishJobOptions(id, action).jobId as string);
    await Promise.all([recordQueue.remove(id), ...others.map((jobId) => queue.remove(jobId))]);
  };

  const worker = new Worker<FinishJob>(FINISH_QUEUE, run, {
    connection: blocking,
    prefix: config.queuePrefix,
    concurrency: CONCURRENCY,
    lockDuration: LOCK_MS,
    // a process that dies is no fault of the recording
    maxStalledCount: 10,
  });
  worker.on('error', trouble);
  const ended = new Map<string, { labels: Labels; value: number }>();
  const count = (action: string, outcome: 'done' | 'failed') => {
    const key = `${action} ${outcome}`;
    ended.set(key, { labels: { action, outcome }, value: (ended.get(key)?.value ?? 0) + 1 });
  };
  worker.on('completed', ({ data }) => count(data.action, 'done'));
  worker.on('failed', (job, error) => {
    if (job === undefined) return;
    const { recordingId: id, action } = job.data;
    count(action, 'failed');
    // a job that stalls too often is failed at once, whatever tries are left
    const last = error instanceof UnrecoverableError || job.attemptsMade >= (job.opts.attempts ?? 1);
    log.warn('finish job failed', { recording: id, action, attempt: job.attemptsMade, last, error });
    if (!last || action !== 'finish') return;
    giveUp(deps, id, error).catch((cause: unknown) => log.error('a recording stays in finishing', { recording: id, error: cause }));
  });
  const webhooks = tellWebhooks(config, log, redis, store, options.webhooks);
  const reconciler = startReconciler({ redis, store, recordQueue, finishQueue: queue, retention: config.retention ?? null, log, times: options.reconciler ?? {} });
  storage.sweep().then(
    (swept) => swept > 0 && log.info('what killed processes left half-written is removed', { files: swept }),
    (error: unknown) => log.warn('what killed processes left half-written could not be looked for', { error }),
  );
  let looking = lookForOrphans();
  const orphansAgain = setInterval(() => (looking = lookForOrphans()), ORPHANS_MS).unref();
  async function lookForOrphans(): Promise<void> {
    try {
      // one of all finalisers
      if (await store.isMine('orphans', ORPHANS_MS * 0.9)) await finishOrphans(deps, leaving.signal);
    } catch (error) {
      if (!leaving.signal.aborted) log.warn('recordings without a record could not be looked for', { error });
    }
  }
  const health = finaliserHealth({ redis, storage, active: () => active.size, jobs: () => [...ended.values()], leaving: leaving.signal });
  const probes = typeof config.healthPort === 'number' ? await listenForProbes(config.healthPort, health.fetch, log) : null;
  log.info('finaliser runs');

  let closed: Promise<void> | null = null;
  async function close() {
    leaving.abort(new Error('the finaliser is leaving'));
    clearInterval(orphansAgain);
    await Promise.all([worker.close(), webhooks?.[Symbol.asyncDispose](), reconciler[Symbol.asyncDispose]()]);
    await Promise.all([queue.close(), recordQueue.close()]);
    blocking.disconnect();
    redis.disconnect();
    await looking;
    await probes?.[Symbol.asyncDispose]();
    log.info('finaliser closed');
  }
  return {
    async [Symbol.asyncDispose]() {
      closed ??= close();
      await closed;
    },
  };
}

/** Trouble of the place that everything is stored in, not of what is stored. */
const isOfStorage = (error: unknown): boolean =>
  error instanceof TabreelError && (error.code === 'storage_full' || error.code === 'storage_unavailable');

/** @returns null where what they are told can't be unsealed */
function tellWebhooks({ queuePrefix, secretsKeys, tokenSecrets, redisUrl, outboundAllow }: FinaliserConfig, log: Log, redis: Redis, store: RecordingStore, options?: WebhookOptions) {
  if (secretsKeys === null) {
    log.warn('SECRETS_KEY is not set: this process tells no webhooks');
    return null;
  }
  const judge = judgeBy({ allow: outboundAllow ?? [], own: [redisPort(redisUrl)] });
  return startWebhooks({ queue: createWebhookQueue(redis, queuePrefix), store, log, secretsKeys, tokenSecrets, judge }, options);
}
