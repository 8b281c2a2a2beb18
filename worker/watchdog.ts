/**
 * Finds a recording that goes on without recording anything: by the media that comes out and by what the page and the capture
 * answer, whatever the processes look like.
 */
import type { ErrorCode } from '../shared/errors.ts';

/** Milliseconds. */
export type WatchdogTimes = {
  /** Without a packet while pictures are due. A still page's picture is repeated every two seconds. */
  frozen: number;
  /** Without an answer of the page: a script may block it for some seconds without being hung. */
  hung: number;
  /** Without an answer of the script that captures. */
  silent: number;
  /** An answer that took longer was held up: what depends on it gets another chance from then on. */
  late: number;
  /** A check that comes so much later than the one before finds that this process itself stood still. */
  stood: number;
};

export const watchdogTimes: WatchdogTimes = { frozen: 6000, hung: 8000, silent: 10_000, late: 2000, stood: 3000 };

export type Finding = { code: ErrorCode; message: string };

export type Watchdog = {
  /** Whether pictures are due from now on. */
  expect(pictures: boolean): void;
  /** A picture was encoded. */
  packet(): void;
  pageAnswered(): void;
  captureAnswered(): void;
  /** Call it about once a second. @returns what ends the attempt; null as long as nothing does */
  check(): Finding | null;
};

export function createWatchdog(times: WatchdogTimes = watchdogTimes, now: () => number = () => performance.now()): Watchdog {
  let expecting = false;
  let packetAt = now();
  let pageAt = now();
  let captureAt = now();
  let checkedAt = now();
  const seconds = (milliseconds: number) => (milliseconds / 1000).toFixed(1);
  return {
    expect(pictures) {
      expecting = pictures;
      packetAt = now();
    },
    packet() {
      packetAt = now();
    },
    pageAnswered() {
      if (now() - pageAt > times.late) packetAt = now();
      pageAt = now();
    },
    captureAnswered() {
      if (now() - captureAt > times.late) packetAt = now();
      captureAt = now();
    },
    check() {
      const at = now();
      const stood = at - checkedAt;
      checkedAt = at;
      if (stood > times.stood) {
        packetAt += stood;
        pageAt += stood;
        captureAt += stood;
        return null;
      }
      if (at - pageAt > times.hung) {
        return { code: 'page_hung', message: `The page has not answered for ${seconds(at - pageAt)} s: a script of it runs without an end` };
      }
      if (at - captureAt > times.silent) {
        return { code: 'capture_frozen', message: `The capture has not answered for ${seconds(at - captureAt)} s` };
      }
      // whoever is held up gives no pictures either, and is waited for above
      const heldUp = at - pageAt > times.late || at - captureAt > times.late;
      if (expecting && !heldUp && at - packetAt > times.frozen) {
        return { code: 'capture_frozen', message: `No picture has been encoded for ${seconds(at - packetAt)} s` };
      }
      return null;
    },
  };
}
