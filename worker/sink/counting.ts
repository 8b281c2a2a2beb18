/** The sink of a recording that is only pushed: it counts what comes, and keeps nothing. */
import { noCounts, type MediaSocketCounts } from './media-counts.ts';
import type { Sink } from './sink.ts';

export function createCountingSink(): Sink & { counts(): MediaSocketCounts } {
  let segments = 0;
  let until = 0;
  return {
    push({ header }) {
      if (header.type !== 'segment') return;
      segments += 1;
      until = header.start + header.duration;
    },
    progress: () => ({ waitingParts: 0, waitingBytes: 0, storedSegments: segments, storedBytes: 0, storedUntil: until }),
    pressure: () => 0,
    counts: noCounts,
    finish: () => Promise.resolve(),
    failed: new Promise<never>(() => undefined),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
