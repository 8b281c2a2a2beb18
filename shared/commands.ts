/**
 * Scripts for recordings' pages, on their way from an edge to the worker that has the page, and the answers on their way back.
 * All of it lives in Redis for seconds: a request under a key of its own, which whoever is to run it takes away, so that it is
 * run once at most; an answer under another, announced on a channel of its own.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { errorKinds, type ErrorCode } from './errors.ts';

/** Bytes of UTF-8. */
export const SCRIPT_BYTES_AT_MOST = 64 * 1024;
/** Characters of JSON. */
export const RESULT_CHARACTERS_AT_MOST = 256 * 1024;
/** Seconds. */
export const COMMAND_TIMEOUT_DEFAULT = 10;
export const COMMAND_TIMEOUT_AT_MOST = 60;
/** Milliseconds for which a request that nobody takes is there at most; an edge takes it back sooner. */
const REQUEST_MS = 15_000;
/** Milliseconds for which an answer is kept for an edge that was cut off from Redis. */
const REPLY_MS = 30_000;

const scriptText = z
  .string()
  .min(1)
  .refine((text) => new TextEncoder().encode(text).length <= SCRIPT_BYTES_AT_MOST, { error: `at most ${SCRIPT_BYTES_AT_MOST} bytes` });

/** The body of `POST /v1/recordings/:id/commands`. */
export const commandRequest = z.strictObject({
  script: scriptText.describe('JavaScript, 64 KiB at most; runs in the page as a script of its own. The value of its last expression is the result; a promise is awaited'),
  timeout: z
    .number()
    .min(0.1)
    .max(COMMAND_TIMEOUT_AT_MOST)
    .default(COMMAND_TIMEOUT_DEFAULT)
    .describe('seconds from when the worker has it, waiting for others of the same recording included'),
});

export const command = z.object({
  script: scriptText,
  /** The script is the body of a function, whose return value is the result, rather than a script of its own. */
  isBody: z.boolean(),
  /** Seconds. */
  timeout: z.number(),
});
export type Command = z.infer<typeof command>;

export const commandReply = z.union([
  z.object({ result: z.json() }),
  z.object({ error: z.object({ code: z.string().refine((code): code is ErrorCode => code in errorKinds), message: z.string() }) }),
]);
export type CommandReply = z.infer<typeof commandReply>;

/** What a recording's channel says when there is a command for its newest attempt. */
const ANNOUNCEMENT = 'command:';

/** @returns the command that a message of a recording's channel announces; null where it announces none */
export const commandIn = (message: string): string | null => (message.startsWith(ANNOUNCEMENT) ? message.slice(ANNOUNCEMENT.length) : null);

// the newest attempt alone may take it, and only as long as it has not given the recording up
const takeScript = `
local now = redis.call('HMGET', KEYS[1], 'attempt', 'released')
if now[1] ~= ARGV[1] or now[2] then return false end
local request = redis.call('GET', KEYS[2])
if request then
  redis.call('DEL', KEYS[2])
  redis.call('PUBLISH', ARGV[2], 'taken')
end
return request
`;

export type CommandStore = ReturnType<typeof createCommandStore>;

/** @param redis an ioredis client of either kind of queue.ts; errors of Redis are thrown as they are. */
export function createCommandStore(redis: Redis, prefix: string) {
  const requestKey = (commandId: string) => `${prefix}:cmd:${commandId}`;
  const replyKey = (commandId: string) => `${prefix}:cmdr:${commandId}`;
  const replyChannel = (commandId: string) => `${prefix}:cc:${commandId}`;
  return {
    /** Says `taken` when the newest attempt has the command, and `replied` when there is an answer. */
    replyChannel,

    async send(recordingId: string, commandId: string, request: Command): Promise<void> {
      await redis
        .multi()
        .set(requestKey(commandId), JSON.stringify(request), 'PX', REQUEST_MS)
        .publish(`${prefix}:c:${recordingId}`, `${ANNOUNCEMENT}${commandId}`)
        .exec();
    },

    /** @returns whether nobody had taken it, and nobody ever will */
    async withdraw(commandId: string): Promise<boolean> {
      return (await redis.del(requestKey(commandId))) === 1;
    },

    /** @returns null where it is gone, or not for this attempt */
    async take(recordingId: string, attempt: number, commandId: string): Promise<Command | null> {
      const text = (await redis.eval(takeScript, 2, `${prefix}:r:${recordingId}`, requestKey(commandId), attempt, replyChannel(commandId))) as string | null;
      return text === null ? null : command.parse(JSON.parse(text));
    },

    async reply(commandId: string, reply: CommandReply): Promise<void> {
      await redis.multi().set(replyKey(commandId), JSON.stringify(reply), 'PX', REPLY_MS).publish(replyChannel(commandId), 'replied').exec();
    },

    /** The answer, once; null where there is none yet. */
    async read(commandId: string): Promise<CommandReply | null> {
      const text = await redis.getdel(replyKey(commandId));
      return text === null ? null : commandReply.parse(JSON.parse(text));
    },
  };
}
