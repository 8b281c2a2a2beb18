/**
 * Where a recording stands on its timeline, as its attempts write it to the record: when it began, whether it rests, and what
 * was cut out. All times are milliseconds since the epoch by the clock of Redis.
 */
import type { CaptureEngineName, Pause, RecordingState } from '../shared/recording.ts';
import type { Change, RecordingRecord } from '../shared/recording-store.ts';
import type { Continuation } from './process-protocol.ts';

export type Timeline = {
  /** Goes up with each change that has to be written. */
  version(): number;
  state(): Extract<RecordingState, 'starting' | 'recording' | 'paused'>;
  startedAt(): number | null;
  continuation(): Omit<Continuation, 'clockOffset'>;
  /** What this attempt has changed, as a whole: writing it twice, or only the last of several, is as good. */
  facts(): Pick<Change, 'engine' | 'startedAt' | 'pausedMs' | 'pausedAt' | 'pauses'>;

  /** The attempt's first frame, and, where it rested before, the end of the pause. */
  began(engine: CaptureEngineName, at: number): void;
  paused(at: number): void;
  resumed(at: number): void;
  /** A pause that was asked for while nobody ran the recording, and isn't in the record; the state stays. */
  pausedBefore(at: number): void;
};

/** @param record as the attempt found it */
export function createTimeline(record: Pick<RecordingRecord, 'startedAt' | 'pausedMs' | 'pausedAt' | 'pauses'> | null): Timeline {
  let version = 0;
  let state: ReturnType<Timeline['state']> = 'starting';
  let engine: CaptureEngineName | null = null;
  let startedAt = record?.startedAt ?? null;
  let startedHere = false;
  let pausedMs = record?.pausedMs ?? 0;
  let pausedAt = record?.pausedAt ?? null;
  let pauses: readonly Pause[] = record?.pauses ?? [];
  let pausedHere = false;

  // before the first frame there is nothing that could be cut out
  const open = (at: number) => {
    if (startedAt === null || pausedAt !== null) return;
    pausedAt = Math.max(Math.round(at), startedAt + pausedMs);
    pausedHere = true;
    version += 1;
  };
  const close = (at: number) => {
    if (startedAt === null || pausedAt === null) return;
    const lasted = Math.max(0, Math.round(at) - pausedAt);
    pauses = [...pauses, { at: (pausedAt - startedAt - pausedMs) / 1000, duration: lasted / 1000 }];
    pausedMs += lasted;
    pausedAt = null;
    pausedHere = true;
    version += 1;
  };
  const enter = (next: typeof state) => {
    if (next !== state) version += 1;
    state = next;
  };

  return {
    version: () => version,
    state: () => state,
    startedAt: () => startedAt,
    continuation: () => ({ startedAt, pausedMs, pausedAt }),
    facts: () => ({
      ...(engine === null ? {} : { engine }),
      ...(startedHere && startedAt !== null ? { startedAt } : {}),
      ...(pausedHere ? { pausedMs, pausedAt, pauses } : {}),
    }),
    began(by, at) {
      engine = by;
      if (startedAt === null) {
        startedAt = Math.round(at);
        startedHere = true;
      }
      close(at);
      enter('recording');
    },
    paused(at) {
      open(at);
      enter('paused');
    },
    resumed(at) {
      close(at);
      enter(engine === null ? 'starting' : 'recording');
    },
    pausedBefore: open,
  };
}
