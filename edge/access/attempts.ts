/** How often somebody tries to log in, counted in Redis for every edge. */
import type { Redis } from 'ioredis';

const MINUTE_MS = 60_000;
const PER_MINUTE = 10;

const script = `
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return { count, redis.call('PTTL', KEYS[1]) }
`;

export type LoginAttempts = ReturnType<typeof createLoginAttempts>;

/** @param redis an ioredis client of either kind of queue.ts; errors of Redis are thrown as they are. */
export function createLoginAttempts(redis: Redis, prefix: string) {
  return {
    /** @param address of whoever tries @returns seconds until he may try again; null where he may now */
    async count(address: string): Promise<number | null> {
      const [count, left] = (await redis.eval(script, 1, `${prefix}:logins:${address.slice(0, 64)}`, MINUTE_MS)) as [number, number];
      return count <= PER_MINUTE ? null : Math.max(1, Math.ceil(left / 1000));
    },
  };
}
