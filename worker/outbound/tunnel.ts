/** Bytes both ways between two sockets, until both have said all. */
import type { Duplex } from 'node:stream';

/** How long one side may keep quiet once the other has hung up, in milliseconds. */
const HALF_OPEN_MS = 60_000;

/** Joins them, with backpressure and half-closes; an end by force of one ends the other. Returns at once. */
export function tunnel(one: Duplex, other: Duplex): void {
  flow(one, other);
  flow(other, one);
}

function flow(from: Duplex, to: Duplex): void {
  from.pipe(to); // ends `to` when `from` ends
  from.once('error', () => to.destroy());
  from.once('end', () => {
    const timer = setTimeout(() => from.destroy(), HALF_OPEN_MS);
    timer.unref();
    // as long as something still flows the other way, it isn't over
    to.on('data', () => timer.refresh());
    from.once('close', () => clearTimeout(timer));
  });
  from.once('close', () => {
    // closed before its end: the other must not wait for more; closed after it: `to` still flushes what it has
    if (!from.readableEnded) to.destroy();
  });
}
