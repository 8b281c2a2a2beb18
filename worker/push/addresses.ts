/** All addresses of a name, to be judged before one is dialled. */
import { lookup as resolve } from 'node:dns/promises';
import { isIP } from 'node:net';
import { isLocalhost, localhostAddresses } from '../../shared/address.ts';

/** @returns all addresses that a name has */
export type Lookup = (name: string) => Promise<string[]>;

export const systemLookup: Lookup = async (name) =>
  isLocalhost(name) ? [...localhostAddresses] : (await resolve(name, { all: true, order: 'verbatim' })).map(({ address }) => address);

/** @param host a name or an address; an IPv6 one without brackets. @throws what the look-up throws */
export async function resolveAll(host: string, lookup: Lookup): Promise<string[]> {
  return isIP(host) === 0 ? lookup(host) : [host];
}
