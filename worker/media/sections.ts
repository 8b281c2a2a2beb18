/**
 * The recording's timeline, as one attempt goes on with it: sections that are one after the other without a gap, whatever time
 * lies between them. Each has a muxer of its own, so it begins with a header, a key frame and a fresh encoder of sound. Where
 * one is cut, the time until the next one's first picture is left out.
 */
import type { AudioChunk, VideoPacket } from '../capture/capture.ts';
import { createMuxer, type Muxer, type MuxerOptions } from './muxer.ts';

export type SectionsOptions = Omit<MuxerOptions, 'base' | 'after'> & {
  /** Where the attempt's first picture lies on the recording's timeline, in microseconds. */
  base(first: number): number;
  /** A section has begun. @param at monotonic microseconds of its first picture */
  began(at: number): void;
  /**
   * Monotonic microseconds from which on nothing belongs to the recording, asked for once a section has begun; Infinity where there is
   * no such moment. Whoever ends it then may be late, and a segment that went out is not taken back.
   */
  until(): number;
};

/** Times given are monotonic microseconds. */
export type Sections = {
  video(packet: VideoPacket): void;
  audio(chunk: AudioChunk): void;
  audioReset(): void;
  /** What comes from now on is a section, from its first key frame on. Call it where none is open. */
  open(): Promise<void>;
  /**
   * Ends the open section at this moment or up to 22 ms later, where a packet of sound ends. What is from before may still be
   * given until `close`. Idempotent.
   * @returns the moment.
   */
  cut(at: number): number;
  /** What the section that was cut still lacks doesn't come any more: it is delivered as it is. */
  close(): void;
  /** As `cut` where the recording ends: to the microsecond. */
  endAt(end: number): void;
  /** Microseconds on the recording's timeline; stands still where nothing is open. 0 before anything was. */
  timeOf(at: number): number;
  /** Seconds of sound drift that were corrected. */
  drift(): number;
  /** Ends the last section, and resolves when everything was delivered. @returns the timeline's end, in microseconds. */
  finish(end: number): Promise<number>;
};

export function createSections(options: SectionsOptions): Sections {
  let muxer: Muxer | null = null;
  let cutAt: number | null = null;
  /** The end of what was closed, on the timeline; null before there was any. */
  let ended: number | null = null;
  let delivered: Promise<void> = Promise.resolve();
  let drift = 0;
  /** An encoder describes itself once, not once for each section. */
  let description: Uint8Array | null = null;

  const placeOf = (at: number): number => {
    const start = muxer?.start() ?? null;
    if (muxer === null || start === null) return ended ?? 0;
    return (muxer.base() as number) + Math.max(0, Math.min(at, cutAt ?? Infinity) - start);
  };

  const close = (end: number): void => {
    const closing = muxer;
    if (closing === null) return;
    if (closing.start() !== null) ended = placeOf(end);
    drift += closing.drift();
    muxer = null;
    cutAt = null;
    const closed = closing.finish(end).catch((error: unknown) => options.failed(error as Error));
    // one without a picture is over at once, and what was before it is not
    delivered = Promise.all([delivered, closed]).then(() => undefined);
  };

  return {
    async open() {
      if (muxer !== null) throw new TypeError('a section is open');
      muxer = await createMuxer({ ...options, base: (first) => ended ?? options.base(first), after: delivered });
    },
    video(packet) {
      const begins = muxer?.start() === null;
      description = packet.description ?? description;
      muxer?.video(begins ? { ...packet, description } : packet);
      const start = muxer?.start() ?? null;
      if (!begins || start === null) return;
      options.began(start);
      muxer?.endAt(options.until());
    },
    audio: (chunk) => muxer?.audio(chunk),
    audioReset: () => muxer?.audioReset(),
    cut(at) {
      if (muxer === null) return at;
      // one that has not begun is none
      cutAt ??= muxer.cutAt(at);
      muxer.endAt(muxer.start() === null ? -Infinity : cutAt);
      return cutAt;
    },
    close() {
      if (cutAt !== null) close(cutAt);
    },
    endAt(end) {
      if (cutAt === null) muxer?.endAt(muxer.start() === null ? -Infinity : end);
    },
    timeOf: placeOf,
    drift: () => drift + (muxer?.drift() ?? 0),
    async finish(end) {
      close(cutAt ?? end);
      await delivered;
      return ended ?? 0;
    },
  };
}
