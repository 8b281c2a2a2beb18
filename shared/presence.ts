/**
 * Which workers are there, told with a heartbeat and forgotten soon after it stops: by the network they are on, for the edge
 * beside them, and with what each of them can take, for whoever runs the fleet.
 */
import type { Redis } from 'ioredis';

/** Milliseconds between two beats of a worker. */
export const PRESENCE_BEAT_MS = 3000;
/** Milliseconds for which a beat vouches for its worker. */
export const PRESENCE_MS = 10_000;

/** What a worker says of itself. All in recordings. */
export type Standing = {
  /** That it may run at once at most. */
  slots: number;
  running: number;
  /** That it would take now, beside those that run. */
  room: number;
  /** It takes no more, and goes once those that run are over. */
  leaving: boolean;
};

/** Slots of all workers together; each is in one state. */
export type FleetSlots = {
  workers: number;
  free: number;
  /** A recording runs there, on a worker that takes more once it has room. */
  busy: number;
  /** A recording runs there, on a worker that leaves. */
  leaving: number;
  /** Of a worker that has no room for one more, or is not ready yet. */
  closed: number;
  /** Of those that are closed: where something runs already, and nothing more is taken. */
  full: number;
};

export type Presence = {
  /** It is there and takes recordings. @param network from networkIdentity(); @param worker a name of its own for each worker */
  beat(network: string, worker: string, standing?: Standing): Promise<void>;
  /** It takes no more. @param standing of what still runs there; it is forgotten without */
  leave(network: string, worker: string, standing?: Standing): Promise<void>;
  isAnyOn(network: string): Promise<boolean>;
  /** One command, whose answer is as short for any number of workers. */
  fleet(): Promise<FleetSlots>;
};

/** Hash of a worker's slots, running, room, leaving, and until when that holds by the clock of Redis: machines may not agree. */
const standScript = `
local now = redis.call('TIME')
local until_ms = now[1] * 1000 + math.floor(now[2] / 1000) + ${PRESENCE_MS}
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', until_ms, ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ${10 * PRESENCE_MS})`;

/** What is out of date is removed, so that the hash does not outgrow the fleet. */
const fleetScript = `
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
local workers, free, busy, leaving, closed, full = 0, 0, 0, 0, 0, 0
for i = 1, #all, 2 do
  local till, slots, running, room, leaves = string.match(all[i + 1], '(%d+) (%d+) (%d+) (%d+) (%d)')
  if tonumber(till) < now_ms then
    redis.call('HDEL', KEYS[1], all[i])
  else
    workers = workers + 1
    if leaves == '1' then
      leaving = leaving + running
    else
      busy = busy + running
      free = free + room
      local shut = math.max(0, slots - running - room)
      closed = closed + shut
      if tonumber(running) > 0 and tonumber(room) == 0 then
        full = full + shut
      end
    end
  end
end
return { workers, free, busy, leaving, closed, full }`;

/** Times of networks are of the machine that asks: who shares its network shares its clock. */
export function createPresence(redis: Redis, prefix: string, now: () => number = Date.now): Presence {
  const key = (network: string) => `${prefix}:workers:${network}`;
  const fleetKey = `${prefix}:fleet`;
  const stand = async (worker: string, { slots, running, room, leaving }: Standing) => {
    await redis.eval(standScript, 1, fleetKey, worker, `${slots} ${running} ${room} ${leaving ? 1 : 0}`);
  };
  return {
    async beat(network, worker, standing) {
      const time = now();
      // in one go, so that no beat can be left without its end
      const there = redis
        .multi()
        .zadd(key(network), time + PRESENCE_MS, worker)
        .zremrangebyscore(key(network), '-inf', time)
        .pexpire(key(network), PRESENCE_MS)
        .exec();
      await Promise.all([there, standing === undefined ? null : stand(worker, standing)]);
    },
    async leave(network, worker, standing) {
      await Promise.all([redis.zrem(key(network), worker), standing === undefined ? redis.hdel(fleetKey, worker) : stand(worker, standing)]);
    },
    async isAnyOn(network) {
      return (await redis.zcount(key(network), `(${now()}`, '+inf')) > 0;
    },
    async fleet() {
      const [workers = 0, free = 0, busy = 0, leaving = 0, closed = 0, full = 0] = (await redis.eval(fleetScript, 1, fleetKey)) as number[];
      return { workers, free, busy, leaving, closed, full };
    },
  };
}
