/** Where a recording's parts go live. */
import type { PartHeader } from '../../shared/media-protocol.ts';

/** A part without its sequence number, which the sink gives. */
export type SinkPart = { header: WithoutSeq<PartHeader>; payload: Uint8Array };
type WithoutSeq<T> = T extends unknown ? Omit<T, 'seq'> : never;

export type SinkProgress = {
  /** Parts handed over and not yet stored, wherever they wait. */
  waitingParts: number;
  waitingBytes: number;
  /** Of what is stored: segments, their bytes (all parts), and the end of the last one in microseconds. */
  storedSegments: number;
  storedBytes: number;
  storedUntil: number;
};

export type Sink = AsyncDisposable & {
  /**
   * Takes a part at once and keeps it until it is stored. Never waits.
   * @throws {TabreelError} where no more can be kept, from then on: `storage_full` where the ingest has no room, otherwise
   * `media_backlog`. What was taken stays, and is delivered.
   */
  push(part: SinkPart): void;
  progress(): SinkProgress;
  /**
   * 0 to 1: the share of all that can be kept, in memory and on disk, that is taken; and where the open way is too slow for what
   * is made, half a minute of media that it fell behind is 1 too.
   */
  pressure(): number;
  /** Resolves once everything pushed is stored; `end` is pushed by it. Rejects as `failed` does: after long without progress. */
  finish(durationMicroseconds: number): Promise<void>;
  /** Rejects with a TabreelError when the sink can't go on (refused, fenced, unreachable for too long). Never resolves. */
  failed: Promise<never>;
};
