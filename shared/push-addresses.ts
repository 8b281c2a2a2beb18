/** Where a push may send packets: an address that a caller named, or a server told, is not taken on trust. */
import ipaddr from 'ipaddr.js';
import { isLoopbackHost } from './address.ts';

/** Cloud providers' metadata services beyond the link-local ones: AWS by IPv6, Alibaba. */
const metadata: ReadonlySet<string> = new Set(['fd00:ec2::254', '100.100.100.200']);
const never: ReadonlySet<string> = new Set(['unspecified', 'broadcast', 'multicast', 'linkLocal']);

/** @param url of the push: loopback is open to one that names it, and not to a name that resolves to it or to a server's candidates */
export function mayDialFor(url: string): (address: string) => boolean {
  const isLocal = isLoopbackHost(new URL(url).hostname);
  return (address) => {
    const text = address.replace(/%.*$/, '');
    if (!ipaddr.isValid(text)) return false;
    const parsed = ipaddr.process(text);
    const range = parsed.range();
    if (never.has(range) || metadata.has(parsed.toString())) return false;
    // ways to an IPv4 address by another name
    if (range === '6to4' || range === 'teredo' || range === 'rfc6052' || range === 'rfc6145') return false;
    return isLocal || range !== 'loopback';
  };
}

/** @param host of a URL: a name, or an address, an IPv6 one in brackets. @returns whether it is an address that the push of this URL is refused */
export function isForbidden(url: string, host: string): boolean {
  const address = host.replace(/^\[|\]$/g, '');
  return ipaddr.isValid(address) && !mayDialFor(url)(address);
}
