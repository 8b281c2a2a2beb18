/** Redis pub/sub for a whole process: one connection, however many recordings are watched. */
import type { Redis } from 'ioredis';

/** `kind` is an event's type, `desired`, or `lost` where messages may have been missed. */
export type WatchListener = (kind: string) => void;

export type Watch = {
  /** @returns ends it */
  recording(id: string, listener: WatchListener): () => void;
  /** The same of any channel. */
  channel(name: string, listener: WatchListener): () => void;
};

/**
 * @param redis a patient client that is used for nothing else
 * @param channelOf the store's channel of a recording
 */
export function createWatch(redis: Redis, channelOf: (id: string) => string): Watch {
  const listeners = new Map<string, Set<WatchListener>>();
  const tell = (channel: string, kind: string) => {
    for (const listener of listeners.get(channel) ?? []) listener(kind);
  };
  redis.on('message', tell);
  // after an outage: subscribe first, then let everyone look, so that nothing falls between
  redis.on('ready', () => {
    const channels = [...listeners.keys()];
    if (channels.length === 0) return;
    redis.subscribe(...channels).then(
      () => channels.forEach((channel) => tell(channel, 'lost')),
      () => undefined,
    );
  });
  const watch: Watch['channel'] = (channel, listener) => {
    const known = listeners.get(channel);
    const set = known ?? new Set();
    set.add(listener);
    if (!known) {
      listeners.set(channel, set);
      // what happened before the subscription stands is what the listener reads right after it
      redis.subscribe(channel).then(() => tell(channel, 'lost'), () => undefined);
    }
    return () => {
      set.delete(listener);
      if (set.size > 0 || listeners.get(channel) !== set) return;
      listeners.delete(channel);
      redis.unsubscribe(channel).catch(() => undefined);
    };
  };
  return { recording: (id, listener) => watch(channelOf(id), listener), channel: watch };
}
