/** Where a peer may send packets: asked for each of them, so verdicts are kept. */
import type { Denial, Judge } from '../../shared/outbound/policy.ts';

export type Guard = {
  /** @returns why an address may not have packets; null where it may */
  judge(address: string, port: number): Promise<Denial | null>;
  /** What was judged elsewhere, and is open. */
  open(address: string, port: number): void;
  /** Whether a packet may go there, or is heard from there. A stranger is judged meanwhile: whoever means it asks again (RFC 8489, 6.2.1). */
  passes(address: string, port: number): boolean;
};

/** One server has a handful of addresses; who asks from more of them is passed over. */
const VERDICTS_AT_MOST = 256;

/** @param host of the server: what opens it opens what it names as its own addresses */
export function createGuard(host: string, judge: Judge): Guard {
  const verdicts = new Map<string, Promise<Denial | null>>();
  const passing = new Set<string>();
  const keyOf = (address: string, port: number) => `${address} ${port}`;

  const decide = (address: string, port: number): Promise<Denial | null> => {
    const key = keyOf(address, port);
    const known = verdicts.get(key);
    if (known !== undefined) return known;
    if (verdicts.size >= VERDICTS_AT_MOST) return Promise.resolve({ class: 'reserved', reason: 'one address too many' });
    const verdict = judge({ host, port, addresses: [address] }).then((denial) => {
      if (denial === null) passing.add(key);
      return denial;
    });
    verdicts.set(key, verdict);
    return verdict;
  };

  return {
    judge: decide,
    open: (address, port) => void passing.add(keyOf(address, port)),
    passes(address, port) {
      if (passing.has(keyOf(address, port))) return true;
      // a judge that fails has opened nothing
      decide(address, port).catch(() => undefined);
      return false;
    },
  };
}
