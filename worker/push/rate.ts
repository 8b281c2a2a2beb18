/**
 * How many bits a second the way to the far end bears. Two signs, whichever says less: losses (as libwebrtc's loss-based control:
 * above 10 % less, below 2 % more, between them as it is), and packets that take ever longer, which is a queue that fills.
 */

export type RateOptions = {
  /** Bits per second: the recording's own, which is never exceeded, and what is always tried. */
  most: number;
  least: number;
  /** Called where it changes by enough to tell an encoder. */
  changed(bitsPerSecond: number): void;
};

/** What the receiver said of one packet. Times in milliseconds, each on its own side's clock. */
export type PacketFate = { sentAt: number; bytes: number; receivedAt: number | null };

export type RateControl = {
  /** Transport-wide feedback, in the order of sending. @param now as `performance.now` */
  fates(fates: readonly PacketFate[], now: number): void;
  /** A receiver report: share of packets that were lost, where there is no transport-wide feedback. */
  loss(share: number, now: number): void;
  /** What the receiver says it can take, in bits per second. @param sending bits per second that are sent now */
  estimate(bitsPerSecond: number, sending: number, now: number): void;
  roundTrip(seconds: number): void;
  /** Pictures wait too long for their turn. */
  behind(now: number): void;
  target(): number;
};

/** Milliseconds that packets may be slower than the fastest of late, before that is a queue that fills. */
const QUEUE_MS = 100;
/** So long it has to last; the base is the fastest of two such windows. */
const LASTING_MS = 250;
const BASE_WINDOW_MS = 5000;
/** Losses are looked at over at least this long, and this many packets. */
const LOSS_WINDOW_MS = 500;
const LOSS_PACKETS = 20;
/** Growth a second: near the rate that was too much, and well below it; and how long after a cut there is none. */
const GROWTH = 1.08;
const FAST_GROWTH = 1.25;
/** Cuts that follow each other so closely are of one trouble. */
const TROUBLE_MS = 5000;
const HOLD_MS = 1000;
/** Changes smaller than this are kept back; and so are raises for so many milliseconds. */
const TELL_SHARE = 0.1;
const TELL_MS = 1000;

export function createRateControl({ most, least, changed }: RateOptions): RateControl {
  let target = most;
  let told = most;
  let toldAt = -Infinity;
  let roundTrip = 100;
  let cutAt = -Infinity;
  /** The target before the last trouble. */
  let tooMuch = most;
  let grownAt: number | null = null;
  /** Fastest way of a packet in this window and the one before, in milliseconds plus the clocks' difference. */
  let base = { from: 0, now: Infinity, before: Infinity };
  let slowSince: number | null = null;
  let window = { from: 0, sent: 0, lost: 0, bytes: 0 };
  let estimateBelowSince: number | null = null;

  const tell = (now: number) => {
    const share = Math.abs(target - told) / told;
    if (target === told) return;
    if (target > told && now - toldAt < TELL_MS) return;
    if (share < TELL_SHARE && target !== most) return;
    told = target;
    toldAt = now;
    changed(Math.round(target));
  };
  const cut = (to: number, now: number) => {
    if (now - cutAt < 300 + roundTrip) return;
    if (now - cutAt > TROUBLE_MS) tooMuch = target;
    cutAt = now;
    grownAt = null;
    target = Math.max(least, Math.min(target, to));
    tell(now);
  };
  const grow = (now: number) => {
    if (now - cutAt < HOLD_MS) return;
    if (grownAt !== null) target = Math.min(most, target * (target < 0.7 * tooMuch ? FAST_GROWTH : GROWTH) ** (Math.min(now - grownAt, 1000) / 1000));
    grownAt = now;
    tell(now);
  };
  const judgeLoss = (share: number, now: number) => {
    if (share > 0.1) cut(target * (1 - 0.5 * share), now);
    else if (share < 0.02) grow(now);
    else grownAt = null;
  };

  return {
    fates(fates, now) {
      let quickest = Infinity;
      for (const { sentAt, receivedAt, bytes } of fates) {
        window.sent += 1;
        if (receivedAt === null) {
          window.lost += 1;
          continue;
        }
        window.bytes += bytes;
        quickest = Math.min(quickest, receivedAt - sentAt);
      }
      if (quickest < Infinity) {
        if (now - base.from > BASE_WINDOW_MS) base = { from: now, now: quickest, before: base.now };
        base.now = Math.min(base.now, quickest);
        if (quickest - Math.min(base.now, base.before) > QUEUE_MS) slowSince ??= now;
        else slowSince = null;
      }
      const passed = now - window.from;
      if (slowSince !== null && now - slowSince >= LASTING_MS) {
        // in steps: a quiet page says little of what the way bears
        cut(Math.max((0.85 * window.bytes * 8000) / Math.max(passed, 100), target * 0.7), now);
        grownAt = null;
      }
      if (passed < LOSS_WINDOW_MS || window.sent < LOSS_PACKETS) return;
      const share = window.lost / window.sent;
      window = { from: now, sent: 0, lost: 0, bytes: 0 };
      if (slowSince === null) judgeLoss(share, now);
    },
    loss: judgeLoss,
    estimate(bitsPerSecond, sending, now) {
      // it follows what is sent: only where it stays below that, the way bears no more
      if (bitsPerSecond >= sending * 0.8) estimateBelowSince = null;
      else estimateBelowSince ??= now;
      if (estimateBelowSince !== null && now - estimateBelowSince > 2000) cut(Math.max(bitsPerSecond, target / 2), now);
    },
    roundTrip(seconds) {
      roundTrip = seconds * 1000;
    },
    behind(now) {
      cut(target * 0.7, now);
    },
    target: () => target,
  };
}
