/** Which recording a stream of an application is: what the Media Push plugin keeps in one process is in Redis here, for every edge. */
import type { Redis } from 'ioredis';

// who saw what is there may put his own in its place; who saw something else comes too late
const takeScript = `
local now = redis.call('GET', KEYS[1])
if now and now ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
`;
const dropScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
`;

export type StreamStore = ReturnType<typeof createStreamStore>;

/** @param redis an ioredis client of either kind of queue.ts; errors of Redis are thrown as they are. */
export function createStreamStore(redis: Redis, prefix: string) {
  const key = (app: string, streamId: string) => `${prefix}:ams:${app}:${streamId}`;
  return {
    /** The recording that this stream was last, also one that is over; null where none is known. */
    async get(app: string, streamId: string): Promise<string | null> {
      return redis.get(key(app, streamId));
    },

    /**
     * @param before what `get` has answered
     * @param seconds for which it is kept
     * @returns false where somebody else was faster
     */
    async take(app: string, streamId: string, before: string | null, recordingId: string, seconds: number): Promise<boolean> {
      return (await redis.eval(takeScript, 1, key(app, streamId), before ?? '', recordingId, Math.ceil(seconds))) === 1;
    },

    /** Where it is still this recording's. */
    async drop(app: string, streamId: string, recordingId: string): Promise<void> {
      await redis.eval(dropScript, 1, key(app, streamId), recordingId);
    },
  };
}
