/** A recording as it goes on: its events as they come, and its record asked for besides, so that a proxy that holds events back is found out. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isEnd, type Recording, type RecordingState } from '../../shared/recording.ts';
import { parseEvents } from '../events.ts';
import { ask, openFollowing, type Access } from './http.ts';
import { because } from './link.ts';

/** Milliseconds. */
const POLL_MS = 1000;
const RECONNECT_MS = 1000;
const HELD_BACK_MS = 5000;

export type Followed = {
  /** The record as it was last read; without its links, which are credentials. */
  recording: Recording | null;
  state: RecordingState;
  /** Bytes that the ingest has stored. */
  bytes: number;
  /** Events heard, and streams of them that ended before the recording did. */
  events: number;
  interruptions: number;
  /** Whether a change came seconds later by the events than it stood in the record. */
  heldBack: boolean;
  /** Why the last stream of events could not be had; null where one could. */
  eventsFailure: string | null;
};

export type Follower = AsyncDisposable & {
  readonly now: Followed;
  /** Resolves once it holds, or once the time is over. @returns whether it holds */
  until(holds: (now: Followed) => boolean, milliseconds: number): Promise<boolean>;
};

export type FollowOptions = {
  /** `https://host/v1/recordings/<id>`. */
  self: string;
  /** With what lets it be read. */
  events: string;
  access: Access;
  /** Milliseconds after which a change that the record shows and the events don't is held back somewhere. */
  heldBackAfter?: number;
  onState(state: RecordingState): void;
  onStats(stats: Record<string, unknown>): void;
  onWarning(message: string): void;
  /** A line for those who watch. */
  onLog(message: string): void;
};

/** Begins at once. Errors of the network are got over: what came is told by `now`. */
export function follow(options: FollowOptions): Follower {
  const { self } = options;
  const stop = new AbortController();
  const access: Access = { ...options.access, signal: AbortSignal.any([options.access.signal, stop.signal]) };
  const now: Followed = { recording: null, state: 'queued', bytes: 0, events: 0, interruptions: 0, heldBack: false, eventsFailure: null };
  const order: readonly RecordingState[] = ['queued', 'starting', 'recording', 'paused', 'finishing', 'completed', 'failed', 'canceled'];
  let heardState: RecordingState = 'queued';
  let behindSince: number | null = null;
  let wake = Promise.withResolvers<void>();
  const changed = () => {
    wake.resolve();
    wake = Promise.withResolvers<void>();
  };
  const become = (state: RecordingState) => {
    // a record that was read before the last event is older
    if (state === now.state || order.indexOf(state) < order.indexOf(now.state)) return;
    now.state = state;
    options.onState(state);
  };

  /** What the events told so far, beside the record's own state. */
  const compare = (state: RecordingState) => {
    behindSince = state === heardState ? null : (behindSince ?? Date.now());
    if (behindSince !== null && Date.now() - behindSince > (options.heldBackAfter ?? HELD_BACK_MS)) now.heldBack = true;
  };

  const warned = new Set<string>();
  /** Told once, by whichever way it comes first. */
  const warn = (message: string) => {
    if (warned.has(message)) return;
    warned.add(message);
    options.onWarning(message);
  };

  const poll = async () => {
    while (!access.signal.aborted) {
      try {
        const { status, json } = await ask(self, access);
        if (status === 200) {
          const recording = json as unknown as Recording;
          now.recording = recording;
          now.bytes = Math.max(now.bytes, recording.stats.bytes);
          become(recording.state);
          recording.warnings.forEach(warn);
          compare(recording.state);
          changed();
        }
      } catch {
        // asked again
      }
      await sleep(POLL_MS, undefined, { signal: access.signal }).catch(() => undefined);
    }
  };

  const listen = async () => {
    let last: string | null = null;
    while (!access.signal.aborted) {
      try {
        const response = await openFollowing(options.events, access, {
          headers: { accept: 'text/event-stream', ...(last === null ? {} : { 'last-event-id': last }) },
        });
        if (response.statusCode === 204) return;
        now.eventsFailure = response.statusCode === 200 ? null : `HTTP ${response.statusCode ?? 0}`;
        if (response.statusCode === 200) {
          for await (const { id, type, data } of parseEvents(response.setEncoding('utf8') as AsyncIterable<string>)) {
            last = id ?? last;
            now.events += 1;
            if (type === 'state') {
              compare(now.state);
              heardState = data['state'] as RecordingState;
              become(heardState);
            } else if (type === 'stats') {
              now.bytes = Math.max(now.bytes, Number(data['bytes'] ?? 0));
              options.onStats(data);
            } else if (type === 'log') (data['level'] === 'warn' ? warn : options.onLog)(String(data['message'] ?? ''));
            changed();
          }
        }
        response.destroy();
      } catch (error) {
        // dialled again behind the last event
        now.eventsFailure = because(error);
      }
      if (isEnd(heardState)) return;
      if (!access.signal.aborted) now.interruptions += 1;
      await sleep(RECONNECT_MS, undefined, { signal: access.signal }).catch(() => undefined);
    }
  };

  const running = Promise.all([poll(), listen()]);
  return {
    now,
    async until(holds, milliseconds) {
      const end = Date.now() + milliseconds;
      while (!holds(now)) {
        options.access.signal.throwIfAborted();
        const left = end - Date.now();
        if (left <= 0) return false;
        const timer = new AbortController();
        await Promise.race([wake.promise, sleep(Math.min(left, POLL_MS), undefined, { signal: timer.signal }).catch(() => undefined)]);
        timer.abort();
      }
      return true;
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}
