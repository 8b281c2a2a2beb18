/** Which peers may speak for a caller: CIDRs and the names `loopback` and `private`. */
import ipaddr from 'ipaddr.js';
import { ConfigError } from '../../shared/config.ts';

type Address = ipaddr.IPv4 | ipaddr.IPv6;
type Range = readonly [base: Address, prefix: number];
export type Trust = { readonly v4: readonly Range[]; readonly v6: readonly Range[] };

const names: Readonly<Record<string, readonly string[]>> = {
  loopback: ['127.0.0.0/8', '::1/128'],
  // RFC 1918, RFC 6598, link-local and unique local addresses
  private: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '169.254.0.0/16', 'fc00::/7', 'fe80::/10'],
};

/** @throws {ConfigError} naming the item that is neither an address, a CIDR nor a known name */
export function parseTrust(items: readonly string[]): Trust {
  const ranges = items.flatMap((item) =>
    (Object.hasOwn(names, item) ? (names[item] ?? []) : [item]).map((text) => {
      const range = parseRange(text);
      if (range === null) throw new ConfigError(`TRUSTED_PROXIES: ${JSON.stringify(item)} is not an address, a CIDR, loopback or private`);
      return range;
    }),
  );
  return { v4: ranges.filter(([base]) => base.kind() === 'ipv4'), v6: ranges.filter(([base]) => base.kind() === 'ipv6') };
}

/** @param address as the socket or a header tells it, without a port; an IPv4 one mapped into IPv6 counts as IPv4 */
export function isTrusted(trust: Trust, address: string | null): boolean {
  const parsed = address === null ? null : parseAddress(address);
  if (parsed === null) return false;
  for (const [base, prefix] of parsed.kind() === 'ipv4' ? trust.v4 : trust.v6) {
    if (parsed.match(base, prefix)) return true;
  }
  return false;
}

function parseRange(text: string): Range | null {
  const [address = '', length, ...rest] = text.split('/');
  const base = parseAddress(address);
  if (base === null || rest.length > 0) return null;
  const bits = base.kind() === 'ipv4' ? 32 : 128;
  if (length === undefined) return [base, bits];
  // ::ffff:10.0.0.0/104 is 10.0.0.0/8
  const prefix = /^\d{1,3}$/.test(length) ? Number(length) - (bits === 32 && address.includes(':') ? 96 : 0) : -1;
  return prefix < 0 || prefix > bits ? null : [base, prefix];
}

/** Four decimal numbers or IPv6, its zone left aside: none of the shorter or octal forms that some resolvers read. */
function parseAddress(text: string): Address | null {
  if (!text.includes(':')) return ipaddr.IPv4.isValidFourPartDecimal(text) ? ipaddr.IPv4.parse(text) : null;
  try {
    const address = ipaddr.IPv6.parse(text);
    return address.isIPv4MappedAddress() ? address.toIPv4Address() : address;
  } catch {
    return null;
  }
}
