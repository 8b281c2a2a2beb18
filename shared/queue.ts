/** Queue names, options and Redis clients: the only file that names BullMQ's keys. */
import type { ConnectionOptions } from 'node:tls';
import { Queue, type JobsOptions, type QueueOptions } from 'bullmq';
import { Redis, type RedisOptions } from 'ioredis';
import { DUE_SOON_MS, type Demand } from './demand.ts';
import type { FinishJob, RecordingJob } from './job.ts';
import type { RecordingRecord } from './recording-store.ts';
import { explainErrors } from './redis-trouble.ts';

export const RECORD_QUEUE = 'record';
export const FINISH_QUEUE = 'finish';

/** What TLS goes by, made once for all connections of a process: readRedisTls. */
export type RedisTls = Pick<ConnectionOptions, 'secureContext' | 'rejectUnauthorized'>;

/** Where Redis is. Without `redisTls` a `rediss://` server is trusted as the runtime itself trusts. */
export type RedisAddress = { redisUrl: string; redisTls?: RedisTls | undefined };

/**
 * A client that fails fast: with Redis down, frozen or gone, a command rejects within about 1.5 s (measured on
 * ioredis 6) and the client recovers by itself. For request handlers; never for a BullMQ worker.
 * @param server or its URL, where that says all
 */
export const failFastRedis = (server: RedisAddress | string, onError: (error: Error) => void): Redis =>
  connect(server, onError, {
    maxRetriesPerRequest: 1,
    connectTimeout: 1000,
    commandTimeout: 1500,
    // a connection that was forgotten on the way answers nothing and does not end: TCP itself would try for a quarter of an hour
    socketTimeout: 2000,
  });

/**
 * A client that waits for Redis as long as it takes, as blocking commands need (BullMQ workers, subscribers).
 * @param server or its URL, where that says all
 */
export const patientRedis = (server: RedisAddress | string, onError: (error: Error) => void): Redis =>
  connect(server, onError, { maxRetriesPerRequest: null });

type Patience = Pick<RedisOptions, 'maxRetriesPerRequest' | 'connectTimeout' | 'commandTimeout' | 'socketTimeout'>;

function connect(server: RedisAddress | string, onError: (error: Error) => void, options: Patience): Redis {
  const { redisUrl, redisTls } = typeof server === 'string' ? { redisUrl: server } : server;
  const redis = new Redis(redisUrl, {
    ...options,
    enableReadyCheck: false,
    // CLIENT SETINFO: servers before 7.2 don't know it, and can't allow it to a user of few rights
    disableClientInfo: true,
    retryStrategy: (attempt) => Math.min(50 * 2 ** attempt, 1000),
    // BullMQ's duplicates keep it; given for a redis:// URL it would have TLS spoken there
    ...(redisTls !== undefined && /^rediss:/i.test(redisUrl) ? { tls: redisTls } : {}),
  });
  // ioredis hears one error of a socket; another behind it, such as a TLS alert, would end the process
  redis.on('connect', () => redis.stream?.on('error', () => undefined));
  return explainErrors(redis).on('error', onError);
}

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

/** @param now milliseconds since the epoch. @returns the part of the demand that no worker has taken yet */
export async function queuedDemand(redis: Redis, prefix: string, now: number): Promise<Pick<Demand, 'waiting' | 'dueSoon'>> {
  const key = (name: string) => `${prefix}:${RECORD_QUEUE}:${name}`;
  // a delayed job's score is its time in milliseconds, 12 bits to the left
  const replies = await redis.pipeline().llen(key('wait')).zcard(key('prioritized')).zcount(key('delayed'), '-inf', (now + DUE_SOON_MS) * 0x1000).exec();
  const [waiting = 0, prioritized = 0, dueSoon = 0] = (replies ?? []).map(([error, count]) => {
    if (error) throw error;
    return Number(count);
  });
  return { waiting: waiting + prioritized, dueSoon };
}

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
