/**
 * How long a sink tries on. One that was never welcome may have a wrong URL, and gives up soon. One that was, in this attempt or
 * an earlier one, tries on for as long as there is room for what it can't store; once the capture is over, for a time.
 */

export type PatienceTimes = {
  /** Milliseconds in which nothing is stored, of a sink that was never welcome. */
  unreachable: number;
  /** Of one that was, after the end of the capture and the last progress. */
  deliver: number;
  /** What a socket that is welcome gets to show what it can do, where the time runs out meanwhile. */
  stalled: number;
};

export type Patience = {
  /** Milliseconds it will go on without progress; null for no end. */
  limit(): number | null;
  /** Something goes wrong. @param waiting whether there was anything to store */
  trouble(waiting: boolean): void;
  /** Something begins to wait. */
  waits(): void;
  progressed(): void;
  welcomed(): void;
  lost(): void;
  /** The capture is over. */
  finishing(): void;
  dispose(): void;
};

/** @param found whether an earlier attempt stored media at this URL */
export function createPatience(times: PatienceTimes, found: boolean, giveUp: (milliseconds: number) => void): Patience {
  let known = found;
  let over = false;
  let timer: NodeJS.Timeout | undefined;
  let inTrouble = false;
  /** When something was last stored, or first began to wait: from here counts the time in which nothing is stored. */
  let progressedAt = performance.now();
  /** When the present connection was welcomed, where that may put off giving up. */
  let graceFrom: number | null = null;
  let graceUsed = false;

  const limit = () => (!known ? times.unreachable : over ? times.deliver : null);
  const expire = () => {
    const grace = graceFrom === null ? 0 : graceFrom + times.stalled - performance.now();
    if (grace > 0) {
      graceFrom = null;
      graceUsed = true;
      timer = setTimeout(expire, grace);
    } else giveUp(limit() ?? 0);
  };
  const plan = () => {
    clearTimeout(timer);
    const most = limit();
    if (inTrouble && most !== null) timer = setTimeout(expire, Math.max(0, progressedAt + most - performance.now()));
  };

  return {
    limit,
    trouble(waiting) {
      if (inTrouble) return;
      inTrouble = true;
      if (!waiting) progressedAt = performance.now();
      plan();
    },
    waits() {
      if (!inTrouble) progressedAt = performance.now();
    },
    progressed() {
      progressedAt = performance.now();
      inTrouble = false;
      graceUsed = false;
      clearTimeout(timer);
    },
    welcomed() {
      if (!graceUsed) graceFrom = performance.now();
      if (known) return;
      known = true;
      // it has another limit now
      plan();
    },
    lost: () => void (graceFrom = null),
    finishing() {
      over = true;
      progressedAt = performance.now();
      plan();
    },
    dispose: () => clearTimeout(timer),
  };
}
