/**
 * Takes recordings from the queue, as many at once as there is room for, and runs each as an attempt in its own process. What is
 * not to be taken is not fetched: BullMQ's `concurrency` follows the room. Only the fetch that is on its way when that shrinks
 * may bring one, which goes back to the head of the queue.
 */
import { DelayedError, WaitingError, Worker, type Job } from 'bullmq';
import type { Redis } from 'ioredis';
import { commandIn, createCommandStore } from '../shared/commands.ts';
import { asTabreelError, TabreelError } from '../shared/errors.ts';
import { newFinishJob, parseJob, type FinishJob, type RecordingJob } from '../shared/job.ts';
import type { Log } from '../shared/log.ts';
import { againJobOptions, attemptOf, finishJobOptions, RECORD_QUEUE } from '../shared/queue.ts';
import { jobSecrets, type JobSecrets } from '../shared/recording.ts';
import type { RecordingStore } from '../shared/recording-store.ts';
import { redisTroubleLog } from '../shared/redis-trouble.ts';
import { unseal } from '../shared/token.ts';
import type { Admission, Seat } from './admission.ts';
import { startAttempt, type Attempt, type AttemptTimes } from './attempt.ts';
import type { WorkerConfig } from './config.ts';
import type { MediaMetrics } from './media-metrics.ts';
import type { OutboundMetrics } from './outbound-metrics.ts';
import { persist } from './persist.ts';
import type { RecorderSettings } from './process-protocol.ts';
import { createQueueWait } from './queue-wait.ts';
import type { RecorderPool } from './recorder-pool.ts';

/**
 * BullMQ's lock is only the backstop: beats tell who lives. A job may stall often, since a second run of it finds a recording
 * that is claimed and ends quietly. That of a worker that was killed leaves the queue within both times together.
 */
const LOCK_MS = 30_000;
const STALLED_MS = 15_000;
const MAX_STALLED = 1000;
/** Media of a recording that nobody wants may still be on its way to the storage, in milliseconds. */
const DISCARD_DELAY_MS = 1000;

export type ConsumerOptions = {
  config: Pick<WorkerConfig, 'slots' | 'queuePrefix' | 'secretsKeys' | 'drainTimeout' | 'leaveAfter'>;
  /** A patient client (queue.ts); BullMQ makes itself another for what blocks. */
  redis: Redis;
  /** A patient client for subscriptions alone. */
  subscriber: Redis;
  store: RecordingStore;
  recordQueue: { add(name: string, data: RecordingJob, options: ReturnType<typeof againJobOptions>): Promise<unknown> };
  finishQueue: { add(name: string, data: FinishJob, options: ReturnType<typeof finishJobOptions>): Promise<unknown> };
  pool: RecorderPool;
  settings: RecorderSettings;
  media: MediaMetrics;
  denials: Pick<OutboundMetrics, 'denied'>;
  /** Whether who stopped beating is dead, rather than Redis was away: the reconciler's. */
  steady: () => boolean;
  /** Whether recordings that run when the worker leaves are handed over to another, rather than ended. */
  handOver: boolean;
  /** As in AttemptOptions; default true. */
  patient?: boolean;
  /** Says how many may run at once; SLOTS alone without. */
  admission?: Pick<Admission, 'limit' | 'begin'>;
  /** Takes nothing before `open`; default false. */
  held?: boolean;
  /** Called when a recording begins here, or is over. */
  changed?: () => void;
  log: Log;
  times?: Partial<AttemptTimes>;
};

export type ConsumerCounts = {
  /** Recordings that run now. */
  active: number;
  /** Attempts begun so far. */
  begun: number;
  /** Recordings that would be taken now beside those. */
  room: number;
  draining: boolean;
};

export type Consumer = AsyncDisposable & {
  counts(): ConsumerCounts;
  /** Takes jobs from now on. */
  open(): void;
  /** How many may run at once has changed. */
  limitChanged(): void;
  /** Whether it asks the queue for jobs, or has no reason to; Redis may be away all the while. */
  isAlive(): boolean;
  /** Metrics, as Prometheus reads them. */
  text(): string;
  /** Resolves once LEAVE_AFTER recordings have been taken and are over; never without it. */
  spent: Promise<void>;
  /**
   * Takes no more recordings, lets those that run go on for DRAIN_TIMEOUT, then hands them over to another worker, or ends
   * them: what they recorded is kept. Resolves when none is left. @param now aborted to do so at once
   */
  drain(now?: AbortSignal): Promise<void>;
};

/** Takes jobs at once, unless it is held. Disposing hands over what runs, or ends it, and waits for that, as `drain` without patience. */
export function startConsumer(options: ConsumerOptions): Consumer {
  const { config, redis, subscriber, store, pool, settings, log } = options;
  /** By the channel of their recording. */
  const attempts = new Map<string, Attempt>();
  const jobs = new Set<Promise<void>>();
  const queueWait = createQueueWait();
  let held = options.held ?? false;
  /** Recordings whose next attempt is not due yet. */
  const resting = new Map<string, { timer: NodeJS.Timeout; attempt: number }>();
  let begun = 0;
  let draining = false;
  const spent = Promise.withResolvers<void>();
  const hasHadAll = () => config.leaveAfter !== null && begun >= config.leaveAfter;

  const commands = createCommandStore(redis, config.queuePrefix);

  const onMessage = (channel: string, event: string) => {
    const commandId = commandIn(event);
    if (commandId !== null) attempts.get(channel)?.command(commandId);
    // the beat's answer says what is wanted: a signal only makes it come sooner
    if (event === 'desired' || event === 'state') attempts.get(channel)?.look();
  };
  subscriber.on('message', onMessage);

  const limit = () => Math.min(config.slots, options.admission?.limit() ?? Infinity);

  /** For somebody else, before all that wait, as it was: what was interrupted and what is urgent come first here too. */
  const giveBack = async (job: Job, token?: string): Promise<never> => {
    log.debug('job is given back', { recording: job.id });
    await job.moveToWait(token);
    throw new WaitingError();
  };

  const take = async (job: Job, seat: { current: Attempt | null }, token?: string): Promise<void> => {
    if (draining || hasHadAll()) {
      // it was on its way here when the worker began to leave: somebody else's
      await job.moveToDelayed(Date.now() + 100, token);
      throw new DelayedError();
    }
    const recording = await readJob(job);
    if (recording === null) return;
    const id = recording.recordingId;
    let asked = 0;
    // a claim that was carried out and seemed to fail leaves one that doesn't beat: it is claimed again once it is stale
    const claim = await persist('claim', () => ((asked = Date.now()), store.claim(id, options.steady(), attemptOf(job.id ?? ''))), log);
    if (claim === null) {
      log.info('recording is not to be run', { recording: id });
      return;
    }
    const { attempt } = claim;
    const clockOffset = claim.now - Math.round((asked + Date.now()) / 2);
    begun += 1;
    const attemptLog = log.with({ recording: id, attempt });
    const waited = Math.max(0, claim.now - job.timestamp - (job.opts.delay ?? 0));
    queueWait.note(waited / 1000);
    attemptLog.info('attempt begins', { waited, origin: recording.origin });
    const channel = store.channel(id);
    const running = startAttempt({
      job: recording,
      claim,
      clockOffset,
      secrets: () => openSecrets(recording),
      settings,
      pool,
      store,
      commands,
      media: options.media.attempt(),
      denials: options.denials,
      finish: (action) => finish(id, action),
      again: (next, delay) => again(recording, next, delay),
      handOver: options.handOver,
      patient: options.patient ?? true,
      log: attemptLog,
      ...(options.times === undefined ? {} : { times: options.times }),
    });
    attempts.set(channel, running);
    seat.current = running;
    options.changed?.();
    // what was said before this subscription is told by the first beat
    subscriber.subscribe(channel).catch((error: unknown) => attemptLog.warn('signals come late', { error }));
    if (draining) running.leave();
    await running.finished;
    if (attempts.get(channel) !== running) return; // a newer attempt came to this very worker
    attempts.delete(channel);
    options.changed?.();
    subscriber.unsubscribe(channel).catch(() => undefined);
  };

  const finish = (id: string, action: 'finish' | 'discard'): Promise<unknown> =>
    options.finishQueue.add(action, newFinishJob(id, action), finishJobOptions(id, action, action === 'discard' ? DISCARD_DELAY_MS : 0));

  /** Where this worker is gone when the time has come, the reconciler queues it. */
  const again = async (recording: RecordingJob, attempt: number, delay: number): Promise<void> => {
    const id = recording.recordingId;
    const queue = () => persist('the next attempt', () => options.recordQueue.add('record', recording, againJobOptions(id, attempt)), log);
    if (delay === 0) return void (await queue());
    const due = () => {
      resting.delete(id);
      void queue();
    };
    resting.set(id, { timer: setTimeout(due, delay), attempt: attempt - 1 });
    if (draining && !options.handOver) await endResting();
  };
  /** Nobody is to go on with them. */
  const endResting = async (): Promise<void> => {
    for (const [id, { timer, attempt }] of resting) {
      clearTimeout(timer);
      resting.delete(id);
      const { outcome } = await persist('finishing', () => store.change(id, { from: ['starting'], to: 'finishing', attempt }), log);
      if (outcome === 'changed') await persist('the finish job', () => finish(id, 'finish'), log);
    }
  };

  /** A job that can't be read fails its recording, whose id is the job's own. */
  const readJob = async (job: Job): Promise<RecordingJob | null> => {
    try {
      return parseJob(job.data);
    } catch (error) {
      log.error('job can not be read', { recording: job.id, error });
      const { id } = job;
      const problem = asTabreelError(error).toRecordingError();
      if (id !== undefined) await persist('failed', () => store.change(id, { from: ['queued'], to: 'failed', error: problem }), log);
      return null;
    }
  };

  /** @throws {TabreelError} `internal`: another worker may have the key */
  const openSecrets = async ({ sealed, credential, recordingId }: RecordingJob): Promise<JobSecrets> => {
    if (sealed === null) return jobSecrets.parse({ credential });
    try {
      if (config.secretsKeys === null) throw new TypeError('SECRETS_KEY is not set for this worker, as it is for the edge');
      // edges of before sealed what the caller gave alone
      return jobSecrets.parse({ credential, ...((await unseal(config.secretsKeys, recordingId, sealed)) as object) });
    } catch (error) {
      throw new TabreelError('internal', `What the recording has sealed can not be opened: ${(error as Error).message}`, { cause: error });
    }
  };

  const handle = (job: Job, token?: string): Promise<void> => {
    if (!draining && jobs.size >= limit()) return giveBack(job, token);
    const attempt: { current: Attempt | null } = { current: null };
    const seat: Seat | undefined = draining ? undefined : options.admission?.begin(() => attempt.current?.pid() ?? null);
    const taken = take(job, attempt, token).finally(() => {
      jobs.delete(taken);
      seat?.over();
      if (jobs.size === 0 && hasHadAll()) spent.resolve();
    });
    jobs.add(taken);
    return taken;
  };

  const worker = new Worker(RECORD_QUEUE, handle, {
    connection: redis,
    prefix: config.queuePrefix,
    concurrency: limit(),
    autorun: false,
    lockDuration: LOCK_MS,
    stalledInterval: STALLED_MS,
    maxStalledCount: MAX_STALLED,
  });
  const trouble = redisTroubleLog(log, 'queue');
  // a lock that expired while Redis was away is missed every few seconds, and of no use
  worker.on('error', (error) => (/could not renew lock|Missing lock/.test(error.message) ? log.debug('queue', { error }) : trouble(error)));
  worker.on('failed', (job, error) => log.error('job failed', { recording: job?.id, error }));
  worker.on('stalled', (id) => log.warn('job stalled', { recording: id }));

  const run = () => void worker.run().catch((error: unknown) => log.error('the queue is not asked any more', { error }));
  if (!held) run();
  const limitChanged = () => {
    const before = worker.concurrency;
    worker.concurrency = limit();
    if (held || draining || worker.concurrency <= before) return;
    // it may sleep until one of its jobs ends, having had as many as it could: a pause and its end wake it
    void worker.pause(true);
    void worker.resume();
  };

  const drain = async (now?: AbortSignal): Promise<void> => {
    if (!draining) log.info('worker drains', { active: jobs.size, patience: now?.aborted === true ? 0 : config.drainTimeout });
    draining = true;
    // with Redis away this waits for it, and the recordings must not wait with it
    const paused = worker.pause(true).catch((error: unknown) => log.warn('queue', { error }));
    const leave = () => {
      for (const attempt of attempts.values()) attempt.leave();
      if (!options.handOver) void endResting();
    };
    const patience = setTimeout(leave, Math.min(config.drainTimeout * 1000, 2 ** 31 - 1));
    now?.addEventListener('abort', leave);
    if (now?.aborted === true) leave();
    while (jobs.size > 0) await Promise.allSettled(jobs);
    clearTimeout(patience);
    now?.removeEventListener('abort', leave);
    if (!options.handOver) await endResting();
    await paused;
  };

  return {
    counts: () => ({ active: attempts.size, begun, room: held || draining || hasHadAll() ? 0 : Math.max(0, limit() - jobs.size), draining }),
    open() {
      if (!held || draining) return;
      held = false;
      run();
      options.changed?.();
    },
    limitChanged,
    isAlive: () => held || draining || worker.isRunning(),
    text: queueWait.text,
    spent: spent.promise,
    drain,
    async [Symbol.asyncDispose]() {
      await drain(AbortSignal.abort());
      for (const { timer } of resting.values()) clearTimeout(timer);
      subscriber.removeListener('message', onMessage);
      await worker.close();
    },
  };
}
