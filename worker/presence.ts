/** Says that this worker is there, and what it can take, for as long as it runs recordings. */
import type { Log } from '../shared/log.ts';
import { PRESENCE_BEAT_MS, type Presence, type Standing } from '../shared/presence.ts';

/** Milliseconds that the first word may take; Redis may be away, and then it is said once it is there. */
const FIRST_MS = 1000;

export type Announcement = {
  /** Something of its standing has changed: it is said at once. */
  changed(): void;
  /** Resolves once it is said that the worker takes no more, or Redis does not hear it; what still runs is told on. */
  leave(): Promise<void>;
  /** Resolves once it is said that the worker is gone, or Redis does not hear it. Any further call does nothing. */
  end(): Promise<void>;
};

/** Resolves once it is said that the worker is there, so that who starts it may rely on that. */
export async function announcePresence(presence: Presence, network: string, worker: string, standing: () => Standing, log: Log): Promise<Announcement> {
  let gone = false;
  let leaving = false;
  // one at a time: while Redis is away, beats would wait for it by the dozen
  let waiting: Promise<void> | null = null;
  let again = false;
  const beat = (): Promise<void> => {
    if (gone) return Promise.resolve();
    if (waiting !== null) {
      again = true;
      return waiting;
    }
    waiting = (leaving ? presence.leave(network, worker, standing()) : presence.beat(network, worker, standing()))
      .catch((error: unknown) => log.debug('presence is not told', { error }))
      .then(() => {
        waiting = null;
        if (!again) return;
        again = false;
        return beat();
      });
    return waiting;
  };
  const timer = setInterval(() => void beat(), PRESENCE_BEAT_MS).unref();
  await within(beat());
  return {
    changed: () => void beat(),
    async leave() {
      if (leaving) return;
      leaving = true;
      await within(beat());
    },
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
