/**
 * Finds what nobody works on any more and queues it: recordings whose worker died, created ones whose job never got into the
 * queue, finish and remove jobs that are gone. Runs in every worker and every finaliser. All that it does may be done twice, by
 * many at once, or half, to the same result.
 */
import type { Queue } from 'bullmq';
import type { Redis } from 'ioredis';
import { TabreelError } from './errors.ts';
import { newFinishJob, type FinishJob, type RecordingJob } from './job.ts';
import type { Log } from './log.ts';
import { againJobOptions, finishJobOptions, queueRecording } from './queue.ts';
import { isEnd } from './recording.ts';
import type { RecordingRecord, RecordingStore } from './recording-store.ts';
import { FUTILE_AT_MOST, isTimeOver } from './recovery.ts';

/** Milliseconds. */
export type ReconcilerTimes = {
  /** Between two looks at who is overdue, at most. */
  look: number;
  /** Contact with Redis without a break, before anybody is taken for dead: after an outage all are overdue, and all live. */
  steady: number;
  /** An answer of Redis that takes longer is a break. */
  slow: number;
  /** How long a recording that was seen to is left alone. */
  hold: number;
  /** Between two rounds of what is in no hurry. */
  round: number;
  /** How long a recording may be without its job, and a deleted one be there. */
  jobless: number;
  removing: number;
  /** A job that was taken and not carried out for so long is queued once more: who took it died before he claimed the recording. */
  taken: number;
  /** Until what is stored of a recording that nobody wants is removed: a worker that is only cut off may still be sending. */
  discard: number;
};

export const reconcilerTimes: ReconcilerTimes = {
  look: 1000,
  // a worker that lives is back within a second (queue.ts) and beats each second; a second more is for slow ones
  steady: 3000,
  slow: 1500,
  hold: 5000,
  round: 5000,
  jobless: 5000,
  removing: 20_000,
  taken: 15_000,
  discard: 10_000,
};

/** What is being asked of Redis when it closes gets so long, in milliseconds. */
const CLOSE_MS = 200;
/** Recordings that one look or one round sees to. */
const AT_ONCE = 100;

export type ReconcilerOptions = {
  /** A patient client (queue.ts) that does not block, the store's and the queues' own. */
  redis: Redis;
  store: RecordingStore;
  recordQueue: Queue<RecordingJob>;
  finishQueue: Queue<FinishJob>;
  /** Seconds for which recordings that are over are kept; null for ever, or where that is not this process's business. */
  retention: number | null;
  log: Log;
  times?: Partial<ReconcilerTimes>;
};

export type Reconciler = AsyncDisposable & {
  /** Whether contact with Redis is unbroken for long enough that who is overdue is dead. */
  steady(): boolean;
};

/** Begins at once, with Redis or without. Disposing waits for nothing that Redis doesn't answer. */
export function startReconciler(options: ReconcilerOptions): Reconciler {
  const { redis, store, recordQueue, finishQueue, retention, log } = options;
  const times = { ...reconcilerTimes, ...options.times };
  const closing = new AbortController();

  /** Since when each question was answered in time; null while it isn't. */
  let contactSince: number | null = null;
  let askedAt: number | null = null;
  let answeredAt = -Infinity;
  const broken = () => {
    contactSince = null;
  };
  redis.on('close', broken);
  const steady = (): boolean => {
    const now = performance.now();
    // a question that is late, or one that should have been asked by now: Redis or this process stands still
    if ((askedAt !== null && now - askedAt > times.slow) || now - answeredAt > times.look + times.slow) return false;
    return contactSince !== null && now - contactSince >= times.steady;
  };
  const ask = async <T>(question: () => Promise<T>): Promise<T> => {
    const asked = performance.now();
    if (asked - answeredAt > times.look + times.slow) broken();
    askedAt = asked;
    try {
      const answer = await question();
      const now = performance.now();
      if (now - asked > times.slow) broken();
      else contactSince ??= asked;
      answeredAt = now;
      return answer;
    } catch (error) {
      broken();
      throw error;
    } finally {
      askedAt = null;
    }
  };

  /** A job that is over blocks its own name; one that is under way, or waits, is as good as another. */
  const ensure = async <T>(queue: Queue<T>, jobId: string, add: () => Promise<unknown>): Promise<string> => {
    const state = await queue.getJobState(jobId);
    if (state === 'completed' || state === 'failed') await queue.remove(jobId).catch((error: unknown) => log.debug('job is not removed', { jobId, error }));
    if (state === 'completed' || state === 'failed' || state === 'unknown') await add();
    return state;
  };
  const finish = (id: string, action: FinishJob['action'], delay = 0): Promise<string> => {
    const jobOptions = finishJobOptions(id, action, delay);
    return ensure(finishQueue, jobOptions.jobId as string, () => finishQueue.add(action, newFinishJob(id, action), jobOptions));
  };

  const cancel = async ({ id, desired, state, attempt }: RecordingRecord): Promise<void> => {
    // first the job, which waits for the state: whoever dies in between leaves nothing stored behind
    await finish(id, desired === 'deleted' ? 'remove' : 'discard', times.discard);
    await store.change(id, { from: [state], to: 'canceled', attempt });
  };

  const overdue = async (id: string, late: number, now: number): Promise<void> => {
    const record = await store.get(id);
    const lost = log.with({ recording: id, attempt: record?.attempt });
    const end = async (error: TabreelError | null): Promise<void> => {
      const { outcome } = await store.orphan(id, record?.attempt ?? 0, error?.toRecordingError() ?? null);
      if (outcome !== 'changed') return;
      lost.warn('recording is finished without a worker', { desired: record?.desired, error });
      await finish(id, 'finish');
    };
    // of one that is over or gone, this removes the deadline
    if (record === null || !['starting', 'recording', 'paused'].includes(record.state)) return end(null);
    if (record.desired === 'deleted' || record.desired === 'canceled') return cancel(record);
    if (record.desired === 'stopped' || isTimeOver(record, now)) return end(null);
    const { attempt, futile = 0, released } = record;
    if (futile >= FUTILE_AT_MOST) {
      return end(new TabreelError('worker_lost', `Each of the last ${futile} attempts was lost with its worker before anything of it was stored`));
    }
    const add = (again: number) => recordQueue.add('record', record.job, againJobOptions(id, attempt + 1, again));
    const state = await ensure(recordQueue, `${id}-${attempt + 1}`, () => add(0));
    if (state === 'unknown') lost.info('next attempt is queued', { released: released !== undefined, late });
    else if (state === 'active' && late > times.taken) await add(Math.floor(late / times.taken));
  };

  const jobless = async (id: string): Promise<void> => {
    const record = await store.get(id);
    if (record?.state === 'queued' && (record.desired === 'recording' || record.desired === 'paused')) {
      const state = await ensure(recordQueue, id, () => queueRecording(recordQueue, record, Date.now()));
      if (state === 'unknown') log.info('recording without a job is queued', { recording: id });
    }
    await store.enqueued(id);
  };

  const finishing = async (id: string): Promise<void> => {
    const jobOptions = finishJobOptions(id, 'finish');
    const state = await finishQueue.getJobState(jobOptions.jobId as string);
    if (state !== 'unknown' && state !== 'completed' && state !== 'failed') return;
    const record = await store.get(id);
    if (record?.state !== 'finishing') return;
    if (record.desired === 'deleted' || record.desired === 'canceled') return cancel(record);
    log.info('finish job is queued again', { recording: id, was: state });
    await finish(id, 'finish');
  };

  /** Over, and kept for as long as they are to be: deleted as if a caller had. */
  const expire = async (id: string): Promise<void> => {
    const record = await store.get(id);
    if (record === null || !isEnd(record.state)) return;
    if (record.desired !== 'deleted') {
      await store.change(id, { from: [record.state], desired: 'deleted' });
      log.info('recording has been kept for as long as it is to be', { recording: id });
    }
    await finish(id, 'remove');
  };

  const each = async <T>(items: readonly T[], act: (item: T) => Promise<unknown>): Promise<void> => {
    const done = await Promise.allSettled(items.map(act));
    for (const [i, result] of done.entries()) {
      if (result.status === 'rejected') log.warn('a recording is not seen to', { recording: items[i], error: result.reason as unknown });
    }
  };

  const tasks: Record<string, () => Promise<void>> = {
    jobless: async () => each(await store.since('jobless', times.jobless, AT_ONCE), jobless),
    removing: async () => each(await store.since('removing', times.removing, AT_ONCE), (id) => finish(id, 'remove')),
    finishing: async () => each(await store.someIn('finishing', AT_ONCE), finishing),
    ...(retention === null ? {} : { ended: async () => each(await store.since('ended', retention * 1000, AT_ONCE), expire) }),
  };
  /** One process does a task for all; where it dies, another does with the next round. */
  const round = alone(async () => {
    for (const [name, task] of Object.entries(tasks)) {
      if (!closing.signal.aborted && (await store.isMine(name, times.round * 0.8))) await task();
    }
  });
  const seeTo = alone(async (now: number) => {
    await each(await store.overdue(AT_ONCE, times.hold), ({ id, late }) => overdue(id, late, now));
  });
  /** One at a time, and apart from the questions, which show whether Redis answers. */
  function alone<A extends unknown[]>(act: (...args: A) => Promise<void>): (...args: A) => void {
    let busy = false;
    return (...args) => {
      if (busy) return;
      busy = true;
      act(...args)
        .catch((error: unknown) => log.debug('Redis does not answer just now', { error }))
        .finally(() => (busy = false));
    };
  }

  const run = async (): Promise<void> => {
    // those that started together don't all begin their rounds at the same moments
    let roundAt = performance.now() + times.round * Math.random();
    while (!closing.signal.aborted) {
      let next: number | null = null;
      try {
        const deadlines = await ask(store.deadlines);
        next = deadlines.next;
        if (deadlines.overdue > 0 && steady()) seeTo(deadlines.now);
      } catch (error) {
        log.debug('Redis does not answer just now', { error });
      }
      if (contactSince !== null && performance.now() >= roundAt) {
        roundAt = performance.now() + times.round;
        round();
      }
      // a few milliseconds more, for the deadline to be past
      await rest(Math.min(times.look, (next ?? times.look) + 5), closing.signal);
    }
  };
  const running = run();

  return {
    steady,
    async [Symbol.asyncDispose]() {
      closing.abort();
      redis.off('close', broken);
      await Promise.race([running, rest(CLOSE_MS, new AbortController().signal)]);
    },
  };
}

const rest = (milliseconds: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds).unref();
    function done() {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    if (signal.aborted) done();
    else signal.addEventListener('abort', done);
  });
