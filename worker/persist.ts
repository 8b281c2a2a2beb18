/** Writes that must get through, however long Redis is away. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../shared/log.ts';

export type PersistTimes = {
  /** Milliseconds between two tries; doubles up to the last. */
  firstRetry: number;
  lastRetry: number;
};

export const persistTimes: PersistTimes = { firstRetry: 200, lastRetry: 5000 };

/** Tries until it works. The write must bear to be repeated: one that seems to fail may have been carried out. */
export async function persist<T>(what: string, write: () => Promise<T>, log: Log, times: PersistTimes = persistTimes): Promise<T> {
  for (let delay = times.firstRetry; ; delay = Math.min(delay * 2, times.lastRetry)) {
    try {
      return await write();
    } catch (error) {
      log.warn('Redis does not take a write', { what, again: delay, error });
      await sleep(delay);
    }
  }
}
