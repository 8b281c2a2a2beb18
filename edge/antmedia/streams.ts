/** Which recording a stream of an application is: what the Media Push plugin keeps in one process is in Redis here, for every edge. */
import type { Redis } from 'ioredis';
import { ownerPrefix } from '../../shared/recording-scripts.ts';

// who saw what is there may put his own in its place; who saw something else comes too late
const takeScript = `
local now = redis.call('GET', KEYS[1])
if now and now ~= ARGV[1] then return 0 end
for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[2], 'EX', ARGV[3]) end
return 1
`;
const dropScript = `
for _, key in ipairs(KEYS) do if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end end
return 1
`;

export type StreamStore = ReturnType<typeof createStreamStore>;

/** @param redis an ioredis client of either kind of queue.ts; errors of Redis are thrown as they are. */
export function createStreamStore(redis: Redis, prefix: string) {
  /** An owner's own first, and then that of all, where whoever sees all finds it: the last that anybody began. */
  const keys = (app: string, streamId: string, owner: string | null): [string, ...string[]] => {
    const ofAll = `${prefix}:ams:${app}:${streamId}`;
    return owner === null ? [ofAll] : [`${ownerPrefix(prefix, owner)}:ams:${app}:${streamId}`, ofAll];
  };
  return {
    /**
     * The recording that this stream was last, also one that is over; null where none is known.
     * @param owner whose streams are looked at; null for all
     */
    async get(app: string, streamId: string, owner: string | null): Promise<string | null> {
      return redis.get(keys(app, streamId, owner)[0]);
    },

    /**
     * @param before what `get` has answered
     * @param seconds for which it is kept
     * @returns false where somebody else was faster
     */
    async take(app: string, streamId: string, owner: string | null, before: string | null, recordingId: string, seconds: number): Promise<boolean> {
      const all = keys(app, streamId, owner);
      return (await redis.eval(takeScript, all.length, ...all, before ?? '', recordingId, Math.ceil(seconds))) === 1;
    },

    /** Where it is still this recording's. */
    async drop(app: string, streamId: string, owner: string | null, recordingId: string): Promise<void> {
      const all = keys(app, streamId, owner);
      await redis.eval(dropScript, all.length, ...all, recordingId);
    },
  };
}
