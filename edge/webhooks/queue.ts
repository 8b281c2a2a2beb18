/**
 * What webhooks have yet to be told. Each recording has a list of its state changes, which the change itself appends to
 * (shared/recording-scripts.ts); only the list's head is told, and it leaves once that is done: so order holds whatever
 * number of processes tell, and one recording's trouble is its own. A sorted set says which recording is due when; who takes
 * one moves that time ahead, so that it is due again if he dies.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { recordingError, recordingStates } from '../../shared/recording.ts';
import { webhookKeys } from '../../shared/recording-scripts.ts';

const webhookEvent = z.object({
  /** Unique, and the same however often it is sent. */
  id: z.string(),
  state: z.enum(recordingStates),
  /** ISO 8601. */
  at: z.string(),
  error: recordingError.optional(),
  /** That failed. */
  tries: z.int(),
});
export type WebhookEvent = z.infer<typeof webhookEvent>;

/** A recording's oldest event; `raw` names this very try of it. */
export type Head = { event: WebhookEvent; raw: string };

export type WebhookQueue = ReturnType<typeof createWebhookQueue>;

// Redis' own clock, which all processes share
const nowLua = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

const claimScript = `${nowLua}
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], now + ARGV[2], id) end
local next = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return { ids, next[2] and next[2] - now or -1 }
`;

// nothing is done where the head is another by now: someone else had taken it over
const settleScript = `${nowLua}
local due, waiting, removed, id = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
if (redis.call('LINDEX', waiting, 0) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('LPOP', waiting) else redis.call('LSET', waiting, 0, ARGV[3]) end
if redis.call('LLEN', waiting) == 0 then
  redis.call('ZREM', due, id)
  redis.call('DEL', removed)
elseif ARGV[3] == '' then
  redis.call('ZADD', due, 0, id)
else
  redis.call('ZADD', due, now + ARGV[4], id)
end
return 1
`;

const dropScript = `
redis.call('HDEL', KEYS[4], 'webhook')
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3])
`;

export function createWebhookQueue(redis: Redis, prefix: string) {
  const { record, due, waiting, removed } = webhookKeys(prefix);
  const keysOf = (id: string) => [due, waiting(id), removed(id)];
  const settle = (id: string, raw: string, next: string, delayMs: number) => {
    const keys = keysOf(id);
    return redis.eval(settleScript, keys.length, ...keys, id, raw, next, Math.round(delayMs));
  };
  return {
    /**
     * Takes recordings that are due, for `leaseMs`; then they are due again, unless something is said of them before.
     * @returns with the milliseconds until the next one is due of those that aren't yet, infinite for none
     */
    async claim(count: number, leaseMs: number): Promise<{ ids: string[]; next: number }> {
      const [ids, next] = (await redis.eval(claimScript, 1, due, count, leaseMs)) as [string[], number];
      return { ids, next: next < 0 ? Infinity : next };
    },

    /**
     * Tells of recordings that have become due by a change of state, over a connection of its own; also where some may have
     * become due unheard. @returns ends it
     */
    listen(onDue: () => void): () => void {
      const subscriber = redis.duplicate();
      // the other connection's trouble is the same
      subscriber.on('error', () => undefined);
      subscriber.on('message', onDue);
      subscriber.on('ready', () => void subscriber.subscribe(due).then(onDue, () => undefined));
      return () => subscriber.disconnect();
    },

    /** Lets all who listen look, for one who leaves. */
    async announce(): Promise<void> {
      await redis.publish(due, '');
    },

    /** @returns null where nothing waits */
    async head(id: string): Promise<Head | null> {
      const raw = await redis.lindex(waiting(id), 0);
      return raw === null ? null : { raw, event: webhookEvent.parse(JSON.parse(raw)) };
    },

    /** The event is told, or given up: the next one is due at once. @param head null where there was none */
    async done(id: string, head: Head | null): Promise<void> {
      await settle(id, head?.raw ?? '', '', 0);
    },

    /** One more try has failed; the next one is due after `delayMs`. */
    async retry(id: string, { raw, event }: Head, delayMs: number): Promise<void> {
      await settle(id, raw, JSON.stringify({ ...event, tries: event.tries + 1 }), delayMs);
    },

    /** What was taken is due again at once, for whoever is there. */
    async release(id: string): Promise<void> {
      await redis.zadd(due, 'XX', 0, id);
    },

    /** Nothing more is told of this recording. */
    async drop(id: string): Promise<void> {
      const keys = [...keysOf(id), record(id)];
      await redis.eval(dropScript, keys.length, ...keys, id);
    },
  };
}
