/** Queue names, options and Redis clients: the only file that names BullMQ's keys. */
import { Queue, type JobsOptions, type QueueOptions } from 'bullmq';
import { Redis } from 'ioredis';
import type { FinishJob, RecordingJob } from './job.ts';
import type { RecordingRecord } from './recording-store.ts';

export const RECORD_QUEUE = 'record';
export const FINISH_QUEUE = 'finish';

/**
 * A client that fails fast: with Redis down, frozen or gone, a command rejects within about 1.5 s (measured on
 * ioredis 6) and the client recovers by itself. For request handlers; never for a BullMQ worker.
 */
export function failFastRedis(url: string, onError: (error: Error) => void): Redis {
  const redis = new Redis(url, {
    maxRetriesPerRequest: 1,
    connectTimeout: 1000,
    commandTimeout: 1500,
    // a connection that was forgotten on the way answers nothing and does not end: TCP itself would try for a quarter of an hour
    socketTimeout: 2000,
    enableReadyCheck: false,
    retryStrategy,
  });
  return redis.on('error', onError);
}

/** A client that waits for Redis as long as it takes, as blocking commands need (BullMQ workers, subscribers). */
export function patientRedis(url: string, onError: (error: Error) => void): Redis {
  const redis = new Redis(url, { maxRetriesPerRequest: null, enableReadyCheck: false, retryStrategy });
  return redis.on('error', onError);
}

const retryStrategy = (attempt: number): number => Math.min(50 * 2 ** attempt, 1000);

const queueOptions = (connection: Redis, prefix: string): QueueOptions => ({
  connection,
  prefix,
  // each of these would be a command at construction that hangs or throws unheard while Redis is away
  skipWaitingForReady: true,
  skipVersionCheck: true,
  skipMetasUpdate: true,
});

const DAY = 86_400;

export function createRecordQueue(connection: Redis, prefix: string, onError: (error: Error) => void): Queue<RecordingJob> {
  const queue = new Queue<RecordingJob>(RECORD_QUEUE, queueOptions(connection, prefix));
  queue.on('error', onError);
  return queue;
}

export function createFinishQueue(connection: Redis, prefix: string, onError: (error: Error) => void): Queue<FinishJob> {
  const queue = new Queue<FinishJob>(FINISH_QUEUE, queueOptions(connection, prefix));
  queue.on('error', onError);
  return queue;
}

/**
 * The job of a recording's first attempt. A live page is not recorded twice blindly: one run a job; the recording's own
 * record decides what follows.
 */
export const recordJobOptions = (id: string, priority: number, delay: number): JobsOptions => ({
  jobId: id,
  attempts: 1,
  priority,
  delay,
  removeOnComplete: { age: DAY, count: 1000 },
  removeOnFail: { age: 7 * DAY, count: 1000 },
});

/**
 * Queues a new recording: by its priority, and not before its time. One that is in the queue stays as it is there.
 * @param now milliseconds since the epoch
 */
export async function queueRecording(
  queue: Queue<RecordingJob>,
  { id, job, priority, startAt }: Pick<RecordingRecord, 'id' | 'job' | 'priority' | 'startAt'>,
  now: number,
): Promise<void> {
  const delay = startAt === undefined ? 0 : Math.max(0, Date.parse(startAt) - now);
  await queue.add('record', job, recordJobOptions(id, priority, delay));
}

/**
 * The job of a further attempt: before all that wait, as its recording is under way. It is queued when its time has come, as
 * BullMQ puts what was delayed behind what waits. Nothing of it stays behind, so that it can be queued again.
 *
 * @param again how often it was queued for this attempt before: who took it may have died before he claimed the recording
 */
export const againJobOptions = (id: string, attempt: number, again = 0): JobsOptions => ({
  jobId: again === 0 ? `${id}-${attempt}` : `${id}-${attempt}-${again}`,
  attempts: 1,
  lifo: true,
  removeOnComplete: true,
  removeOnFail: true,
});

/** The attempt that a recording's job was queued for. */
export const attemptOf = (jobId: string): number => Number(/^rec_\w+-(\d+)/.exec(jobId)?.[1] ?? 1);

/** Finishing reads and writes storage, which may be away for a while: it is retried for about half an hour. */
export const finishJobOptions = (id: string, action: FinishJob['action'], delay = 0): JobsOptions => ({
  jobId: `${id}-${action}`,
  attempts: 10,
  backoff: { type: 'exponential', delay: 1000, jitter: 0.5 },
  delay,
  // of a recording that is gone nothing stays
  removeOnComplete: action === 'remove' || { age: DAY, count: 1000 },
  removeOnFail: { age: 7 * DAY, count: 1000 },
});
