/** The STUN and TURN servers of a push: resolved here, so that what is judged is what is dialled. */
import { isIP } from 'node:net';
import type { Lookup } from '../../shared/outbound/judge.ts';
import type { Judge } from '../../shared/outbound/policy.ts';

export type IceServer = { urls: string | readonly string[]; username?: string | undefined; credential?: string | undefined };

/** As the peer takes it: addresses instead of names. One server for STUN and one for TURN. */
export type IceSetup = {
  servers: { urls: string; username?: string; credential?: string }[];
  stun: boolean;
  /** Of a TURN server over TLS: the name that its certificate is for, and what is trusted. */
  tls: { servername: string; ca?: string[]; rejectUnauthorized: true } | null;
  /** What was judged of them, and is open: where packets go. */
  open: { address: string; port: number }[];
  /** Local addresses that are offered beside those of the network's interfaces. */
  additionalHosts: string[];
};

/** A server that can't be used, and why. */
export type IceProblem = { url: string; denied: boolean; what: string };

const FORM = /^(stuns?|turns?):(?:\[([0-9a-f:.]+)\]|([^:?[\]]+))(?::(\d{1,5}))?(?:\?transport=(udp|tcp))?$/i;

/**
 * @param judge asked for all addresses that a name has
 * @param trusted PEMs, for TURN over TLS
 * @returns what can be used, and what can't
 */
export async function setUpIce(
  servers: readonly IceServer[],
  judge: Judge,
  trusted: string[],
  lookup: Lookup,
): Promise<{ setup: IceSetup; problems: IceProblem[] }> {
  const setup: IceSetup = { servers: [], stun: false, tls: null, open: [], additionalHosts: [] };
  const problems: IceProblem[] = [];
  let turn = false;
  for (const server of servers) {
    for (const url of [server.urls].flat()) {
      const [, scheme = '', six, name, givenPort, transport] = FORM.exec(url.trim()) ?? [];
      const kind = scheme.toLowerCase();
      const host = six ?? name;
      if (host === undefined || kind === 'stuns') {
        problems.push({ url, denied: false, what: 'is not a STUN or TURN URL that can be used' });
        continue;
      }
      const isTurn = kind !== 'stun';
      if (isTurn ? turn : setup.stun) continue;
      const port = Number(givenPort ?? (kind === 'turns' ? 5349 : 3478));
      const addresses = isIP(host) === 0 ? await lookup(host).catch(() => []) : [host];
      const denial = await judge({ host, port, addresses });
      if (denial !== null || addresses.length === 0) {
        problems.push({ url, denied: denial !== null, what: denial === null ? 'does not resolve' : `leads to ${denial.reason}, which is not open here` });
        continue;
      }
      // STUN goes out of IPv4 sockets
      const address = addresses.find((each) => isIP(each) === 4) ?? (addresses[0] as string);
      const literal = isIP(address) === 6 ? `[${address}]` : address;
      const suffix = transport === undefined ? '' : `?transport=${transport.toLowerCase()}`;
      setup.open.push({ address, port });
      const { username, credential } = server;
      setup.servers.push({
        urls: `${kind}:${literal}:${port}${suffix}`,
        ...(username === undefined ? {} : { username }),
        ...(credential === undefined ? {} : { credential }),
      });
      if (!isTurn) setup.stun = true;
      else {
        turn = true;
        if (kind === 'turns') setup.tls = { servername: isIP(host) === 0 ? host : '', ca: trusted, rejectUnauthorized: true };
      }
    }
  }
  return { setup, problems };
}
