/** Which workers are there, by the network they are on: told with a heartbeat, forgotten soon after it stops. */
import type { Redis } from 'ioredis';

/** Milliseconds between two beats of a worker. */
export const PRESENCE_BEAT_MS = 3000;
/** Milliseconds for which a beat vouches for its worker. */
export const PRESENCE_MS = 10_000;

export type Presence = {
  /** @param network from networkIdentity(); @param worker a name of its own for each worker */
  beat(network: string, worker: string): Promise<void>;
  leave(network: string, worker: string): Promise<void>;
  isAnyOn(network: string): Promise<boolean>;
};

/** Times are of the machine that asks: who shares its network shares its clock. */
export function createPresence(redis: Redis, prefix: string, now: () => number = Date.now): Presence {
  const key = (network: string) => `${prefix}:workers:${network}`;
  return {
    async beat(network, worker) {
      const time = now();
      // in one go, so that no beat can be left without its end
      await redis
        .multi()
        .zadd(key(network), time + PRESENCE_MS, worker)
        .zremrangebyscore(key(network), '-inf', time)
        .pexpire(key(network), PRESENCE_MS)
        .exec();
    },
    async leave(network, worker) {
      await redis.zrem(key(network), worker);
    },
    async isAnyOn(network) {
      return (await redis.zcount(key(network), `(${now()}`, '+inf')) > 0;
    },
  };
}
