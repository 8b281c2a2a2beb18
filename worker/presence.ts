/** Says that this worker is there, for as long as it takes recordings. */
import type { Log } from '../shared/log.ts';
import { PRESENCE_BEAT_MS, type Presence } from '../shared/presence.ts';

/** Milliseconds that the first word may take; Redis may be away, and then it is said once it is there. */
const FIRST_MS = 1000;

export type Announcement = {
  /** Resolves once it is said that the worker is gone, or Redis does not hear it. Any further call does nothing. */
  end(): Promise<void>;
};

/** Resolves once it is said that the worker is there, so that who starts it may rely on that. */
export async function announcePresence(presence: Presence, network: string, worker: string, log: Log): Promise<Announcement> {
  let gone = false;
  // one at a time: while Redis is away, beats would wait for it by the dozen
  let waiting: Promise<void> | null = null;
  const beat = (): Promise<void> =>
    (waiting ??= presence
      .beat(network, worker)
      .catch((error: unknown) => log.debug('presence is not told', { error }))
      .finally(() => (waiting = null)));
  const timer = setInterval(() => void beat(), PRESENCE_BEAT_MS).unref();
  await within(beat());
  return {
    async end() {
      if (gone) return;
      gone = true;
      clearInterval(timer);
      // a beat that is on its way would say that the worker is there after all
      await within(Promise.resolve(waiting).then(() => presence.leave(network, worker)).catch(() => undefined));
    },
  };
}

const within = (promise: Promise<unknown>): Promise<unknown> =>
  Promise.race([promise, new Promise((resolve) => setTimeout(resolve, FIRST_MS).unref())]);
