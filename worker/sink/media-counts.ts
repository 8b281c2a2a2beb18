/** What one sink counts for the worker's metrics. Plain numbers: they cross from the recording's process as they are. */
import type { MediaCode } from './media-socket-causes.ts';

/** How a dial ended: with the ingest's welcome, with a cause, with a refusal, or because nobody wanted it any more. */
export type DialOutcome = 'open' | MediaCode | 'media_refused' | 'abandoned';

/** Seconds. */
export const roundTripBuckets = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5] as const;

export type MediaSocketCounts = {
  /** Whether a socket is open and welcome. */
  open: boolean;
  /** Sockets dialled, how their dials ended, and those that got as far as a welcome. */
  dials: number;
  outcomes: Partial<Record<DialOutcome, number>>;
  connections: number;
  /** Those after the first. */
  reconnects: number;
  /** Messages sent, those among them that had been sent on an earlier socket, and the bytes of all. */
  sentParts: number;
  resentParts: number;
  sentBytes: number;
  /** Parts that the ingest has acknowledged. */
  ackedParts: number;
  /** Bytes that wait to be stored, those of them that are on disk, and the share of all that can be kept that they take. */
  waitingBytes: number;
  spooledBytes: number;
  pressure: number;
  /** Milliseconds of the last ping; null before the first answer. */
  roundTrip: number | null;
  /** All pings answered: how many, their seconds together, and how many took no longer than each of `roundTripBuckets`. */
  roundTrips: { count: number; sum: number; within: number[] };
};

export const noCounts = (): MediaSocketCounts => ({
  open: false,
  dials: 0,
  outcomes: {},
  connections: 0,
  reconnects: 0,
  sentParts: 0,
  resentParts: 0,
  sentBytes: 0,
  ackedParts: 0,
  waitingBytes: 0,
  spooledBytes: 0,
  pressure: 0,
  roundTrip: null,
  roundTrips: { count: 0, sum: 0, within: roundTripBuckets.map(() => 0) },
});

export function countDial({ outcomes }: MediaSocketCounts, outcome: DialOutcome): void {
  outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
}

export function countRoundTrip(counts: MediaSocketCounts, milliseconds: number): void {
  const seconds = milliseconds / 1000;
  counts.roundTrip = milliseconds;
  counts.roundTrips.count += 1;
  counts.roundTrips.sum += seconds;
  roundTripBuckets.forEach((limit, i) => {
    if (seconds <= limit) counts.roundTrips.within[i] = (counts.roundTrips.within[i] ?? 0) + 1;
  });
}
