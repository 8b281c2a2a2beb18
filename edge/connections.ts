/** What every edge has, on whatever runtime: the recordings' records and the queues, over one client that fails fast. */
import type { Queue } from 'bullmq';
import { createCommandStore, type CommandStore } from '../shared/commands.ts';
import { demandOf } from '../shared/demand.ts';
import type { FinishJob, RecordingJob } from '../shared/job.ts';
import { createPresence, type FleetSlots, type Presence } from '../shared/presence.ts';
import { createFinishQueue, createRecordQueue, failFastRedis, queuedDemand, type RedisAddress } from '../shared/queue.ts';
import { createRecordingStore, type RecordingStore } from '../shared/recording-store.ts';
import { createLoginAttempts, type LoginAttempts } from './access/attempts.ts';
import { createStreamStore, type StreamStore } from './antmedia/streams.ts';

/** In slots. */
export type FleetState = { slots: FleetSlots; demand: number };

export type Connections = {
  store: RecordingStore;
  recordQueue: Queue<RecordingJob>;
  finishQueue: Queue<FinishJob>;
  presence: Presence;
  commands: CommandStore;
  streams: StreamStore;
  /** Four commands, however large the fleet is. */
  fleet(): Promise<FleetState>;
  logins: LoginAttempts;
  /** Rejects within two seconds where Redis is away. */
  ping(): Promise<void>;
  close(): Promise<void>;
};

/** Connects in the background. @param onTrouble hears of each connection that fails */
export function openConnections(config: RedisAddress & { queuePrefix: string }, onTrouble: (error: Error) => void): Connections {
  const { queuePrefix } = config;
  const redis = failFastRedis(config, onTrouble);
  const recordQueue = createRecordQueue(redis, queuePrefix, onTrouble);
  const finishQueue = createFinishQueue(redis, queuePrefix, onTrouble);
  const presence = createPresence(redis, queuePrefix);
  return {
    store: createRecordingStore(redis, queuePrefix),
    recordQueue,
    finishQueue,
    presence,
    commands: createCommandStore(redis, queuePrefix),
    streams: createStreamStore(redis, queuePrefix),
    async fleet() {
      const [slots, queued] = await Promise.all([presence.fleet(), queuedDemand(redis, queuePrefix, Date.now())]);
      return { slots, demand: demandOf({ ...queued, running: slots.busy, full: slots.full }) };
    },
    logins: createLoginAttempts(redis, queuePrefix),
    async ping() {
      await redis.ping();
    },
    async close() {
      await Promise.allSettled([recordQueue.close(), finishQueue.close()]);
      redis.disconnect();
    },
  };
}
