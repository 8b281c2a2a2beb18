/** Writes that must get through, however long Redis is away. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { Log } from '../shared/log.ts';

export type PersistTimes = {
  /** Milliseconds between two tries; doubles up to the last. */
  firstRetry: number;
  lastRetry: number;
};

export const persistTimes: PersistTimes = { firstRetry: 200, lastRetry: 5000 };

/** What is stored is not what we ever wrote, and no later try finds anything else. A command that an ACL forbids may be allowed later. */
const isHopeless = (error: unknown): boolean =>
  error instanceof SyntaxError || error instanceof z.ZodError || /^(?:WRONGTYPE|ERR (?!.*can't run)).*user_script/s.test((error as Error).message);

/**
 * Tries until it works. The write must bear to be repeated: one that seems to fail may have been carried out.
 * @throws {Error} as it was thrown, where what is stored is rubbish
 */
export async function persist<T>(what: string, write: () => Promise<T>, log: Log, times: PersistTimes = persistTimes): Promise<T> {
  for (let delay = times.firstRetry; ; delay = Math.min(delay * 2, times.lastRetry)) {
    try {
      return await write();
    } catch (error) {
      if (isHopeless(error)) throw error;
      log.warn('Redis does not take a write', { what, again: delay, error });
      await sleep(delay);
    }
  }
}
