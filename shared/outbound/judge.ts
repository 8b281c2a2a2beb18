/** The judge of a process on Node: by this machine's resolver and interfaces. */
import { lookup } from 'node:dns/promises';
import { isIP, type LookupFunction } from 'node:net';
import { networkInterfaces } from 'node:os';
import { isLocalhost, localhostAddresses } from '../address.ts';
import { createJudge, type Denial, type Judge, type OutboundRules } from './policy.ts';

/** @returns all addresses that a name has; throws what the resolver throws */
export type Lookup = (name: string) => Promise<string[]>;

export const systemLookup: Lookup = async (name) =>
  isLocalhost(name) ? [...localhostAddresses] : (await lookup(name, { all: true, order: 'verbatim' })).map(({ address }) => address);

export const judgeBy = (rules: OutboundRules): Judge =>
  createJudge(rules, {
    resolve: systemLookup,
    localAddresses: () => Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address)),
  });

/** A target may not be dialled. */
export class OutboundDenied extends Error {
  override readonly name = 'OutboundDenied';
  readonly denial: Denial;

  constructor(host: string, denial: Denial) {
    super(`${host} is ${denial.reason}, which is not open here`);
    this.denial = denial;
  }
}

/**
 * For Node's own requests: what it gives is what they dial. They ask for no address that is written as one: `assertLiteral` does.
 * @throws {OutboundDenied} by the callback
 */
export function judgedLookup(judge: Judge, host: string, port: number, resolve: Lookup = systemLookup): LookupFunction {
  const find = async () => {
    const addresses = await resolve(host);
    const denial = await judge({ host, port, addresses });
    if (denial !== null) throw new OutboundDenied(host, denial);
    return addresses.map((address) => ({ address, family: isIP(address) }));
  };
  return (_name, options, callback) => {
    find().then(
      (found) => {
        const [first] = found;
        if (options.all === true) callback(null, found);
        else if (first !== undefined) callback(null, first.address, first.family);
        else callback(Object.assign(new Error(`${host} has no address`), { code: 'ENOTFOUND' }), []);
      },
      (error: NodeJS.ErrnoException) => callback(error, []),
    );
  };
}

/** @param host of a URL; an IPv6 address in brackets. @throws {OutboundDenied} where it is an address that may not be dialled */
export async function assertLiteral(judge: Judge, host: string, port: number): Promise<void> {
  const literal = host.replace(/^\[(.*)\]$/, '$1');
  if (isIP(literal) === 0) return;
  const denial = await judge({ host, port, addresses: [literal] });
  if (denial !== null) throw new OutboundDenied(host, denial);
}
