/**
 * Lets packets out evenly: a key frame of 100 kB at once would overflow the first small queue on its way. Sound goes first and at
 * once; what was lost goes before what is new. What waits is bounded by time: pictures that can't leave in time are dropped.
 */

export type PacedPacket = {
  bytes: number;
  /** @returns whether it left */
  send(): boolean | void;
};

/** The packets of one picture. */
type Frame = { packets: PacedPacket[]; since: number };

export type Pacer = {
  /** Leaves now. */
  sound(packet: PacedPacket): void;
  again(packet: PacedPacket): void;
  picture(packets: PacedPacket[]): void;
  /** Milliseconds for which the oldest picture has waited. */
  waited(): number;
  /** Drops all pictures that wait. @returns how many, one whose first packets have left included */
  dropPictures(): number;
  close(): void;
};

/** Milliseconds between two looks, and the longest stretch that is caught up with at once: timers come late on a busy machine. */
const TICK = 5;
const CATCH_UP = 40;

/** Lost packets that wait to be sent again: more of them is no loss to be mended by sending more. */
const AGAIN_MOST = 512;

/** @param rate bits per second, now */
export function createPacer(rate: () => number): Pacer {
  let frames: Frame[] = [];
  let again: PacedPacket[] = [];
  let timer: NodeJS.Timeout | undefined;
  /** Bytes that may leave; below 0 where more has left. */
  let budget = 0;
  let lookedAt = 0;

  const next = (): PacedPacket | undefined => {
    const lost = again.shift();
    if (lost !== undefined) return lost;
    const [first] = frames;
    const packet = first?.packets.shift();
    if (first?.packets.length === 0) frames.shift();
    return packet;
  };
  const look = () => {
    timer = undefined;
    const now = performance.now();
    const bytesPerMs = rate() / 8000;
    budget = Math.min(budget + Math.min(now - lookedAt, CATCH_UP) * bytesPerMs, CATCH_UP * bytesPerMs);
    lookedAt = now;
    while (budget > 0) {
      const packet = next();
      if (packet === undefined) return;
      if (packet.send() !== false) budget -= packet.bytes;
    }
    timer = setTimeout(look, TICK);
  };
  const wake = () => {
    if (timer !== undefined) return;
    const now = performance.now();
    // after a rest, one tick's worth
    if (now - lookedAt > TICK) lookedAt = now - TICK;
    look();
  };

  return {
    sound(packet) {
      packet.send();
      budget -= packet.bytes;
    },
    again(packet) {
      if (again.length >= AGAIN_MOST) return;
      again.push(packet);
      wake();
    },
    picture(packets) {
      if (packets.length === 0) return;
      frames.push({ packets, since: performance.now() });
      wake();
    },
    waited: () => (frames[0] === undefined ? 0 : performance.now() - frames[0].since),
    dropPictures() {
      const dropped = frames.length;
      frames = [];
      return dropped;
    },
    close() {
      clearTimeout(timer);
      frames = [];
      again = [];
    },
  };
}
