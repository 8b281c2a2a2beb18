/** What every edge has, on whatever runtime: the recordings' records and the queues, over one client that fails fast. */
import type { Queue } from 'bullmq';
import { createCommandStore, type CommandStore } from '../shared/commands.ts';
import type { FinishJob, RecordingJob } from '../shared/job.ts';
import { createPresence, type Presence } from '../shared/presence.ts';
import { createFinishQueue, createRecordQueue, failFastRedis } from '../shared/queue.ts';
import { createRecordingStore, type RecordingStore } from '../shared/recording-store.ts';
import { createStreamStore, type StreamStore } from './antmedia/streams.ts';

export type Connections = {
  store: RecordingStore;
  recordQueue: Queue<RecordingJob>;
  finishQueue: Queue<FinishJob>;
  presence: Presence;
  commands: CommandStore;
  streams: StreamStore;
  /** Rejects within two seconds where Redis is away. */
  ping(): Promise<void>;
  close(): Promise<void>;
};

/** Connects in the background. @param onTrouble hears of each connection that fails */
export function openConnections({ redisUrl, queuePrefix }: { redisUrl: string; queuePrefix: string }, onTrouble: (error: Error) => void): Connections {
  const redis = failFastRedis(redisUrl, onTrouble);
  const recordQueue = createRecordQueue(redis, queuePrefix, onTrouble);
  const finishQueue = createFinishQueue(redis, queuePrefix, onTrouble);
  return {
    store: createRecordingStore(redis, queuePrefix),
    recordQueue,
    finishQueue,
    presence: createPresence(redis, queuePrefix),
    commands: createCommandStore(redis, queuePrefix),
    streams: createStreamStore(redis, queuePrefix),
    async ping() {
      await redis.ping();
    },
    async close() {
      await Promise.allSettled([recordQueue.close(), finishQueue.close()]);
      redis.disconnect();
    },
  };
}
