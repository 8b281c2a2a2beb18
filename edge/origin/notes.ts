/** What is told of headers, besides what the rule itself says while it decides. */
import type { Said } from './families.ts';
import { forwardedText } from './families.ts';
import type { RequestFacts } from './facts.ts';
import { parseForwarded } from './forwarded.ts';
import { familyNames, isLookalike, listItems, properName, type ForwardingName, type SeenHeaders } from './headers.ts';
import type { OriginStep } from './refusal.ts';
import type { Alias } from './scheme.ts';

export type Note = (what: string, value: string | null, use: OriginStep['use'], why: string) => void;

export const peerReason = (address: string | null, trusted: boolean): string => {
  if (trusted) return 'it is one of TRUSTED_PROXIES: its forwarding headers are believed';
  return address === null ? 'its address is not known, so that it is not believed' : 'it is not one of TRUSTED_PROXIES: forwarding headers are ignored';
};

/** Each forwarding header there is. */
export function noteIgnored(seen: SeenHeaders, why: string, note: Note): void {
  for (const name of Object.keys(seen.forwarding) as ForwardingName[]) note(properName(name), showable(seen, name), 'ignored', why);
}

/** Whose addresses were walked, and what the family that was not chosen says. */
export function noteFamilies(seen: SeenHeaders, said: Said | null, other: Said | null, note: Note): void {
  const hops = (one: Said) => `${one.hops} trusted ${one.hops === 1 ? 'hop' : 'hops'}, counted from the right`;
  const against = 'another family tells the scheme; this one must only not contradict it';
  for (const name of ['forwarded', 'x-forwarded-for'] as const) {
    if (seen.forwarding[name] === undefined) continue;
    const chosen = said !== null && said.family === (name === 'forwarded' ? 'forwarded' : 'x-forwarded');
    note(properName(name), showable(seen, name), chosen ? 'used' : 'ignored', chosen ? hops(said) : against);
  }
  for (const name of ['x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-port'] as const) {
    const value = seen.forwarding[name];
    if (value === undefined) continue;
    if (listItems(value).length === 0) note(properName(name), value, 'ignored', 'it is empty');
    else if (other?.family === 'x-forwarded') note(properName(name), value, 'ignored', against);
  }
}

/** @param used the one that told the scheme */
export function noteAliases(seen: SeenHeaders, used: Alias | null, why: string, note: Note): void {
  for (const name of Object.keys(seen.forwarding) as ForwardingName[]) {
    if (familyNames.has(name)) continue;
    const chosen = used?.name === name;
    note(properName(name), showable(seen, name), chosen ? 'used' : 'ignored', chosen ? `a trusted proxy says ${used.scheme}, and no X-Forwarded-Proto does` : why);
  }
}

export function noteLookalikes({ headers }: RequestFacts, note: Note): void {
  for (const [name, value] of headers) {
    if (isLookalike(name)) note(name, value, 'ignored', 'no proxy in use sets a header of this name by itself, so that any client may have');
  }
}

/** X-ARR-SSL holds a certificate's names, and Forwarded may hold a secret of the proxies'. */
function showable(seen: SeenHeaders, name: ForwardingName): string {
  const value = seen.forwarding[name] ?? '';
  if (name === 'x-arr-ssl') return '(present)';
  if (name !== 'forwarded') return value;
  try {
    return forwardedText(parseForwarded(value));
  } catch {
    return '(not valid)';
  }
}
