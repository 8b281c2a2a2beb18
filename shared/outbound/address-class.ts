/** What kind of network an address belongs to. Only `public` is open by itself; what is in no list of public addresses is not. */
import ipaddr from 'ipaddr.js';

export const addressClasses = ['public', 'loopback', 'private', 'link_local', 'metadata', 'shared', 'multicast', 'unspecified', 'reserved'] as const;
export type AddressClass = (typeof addressClasses)[number];

/**
 * Where clouds keep credentials for whoever asks from the inside: AWS, GCP, Azure and others (169.254.169.254), AWS's containers
 * (169.254.170.2, 169.254.170.23) and IPv6, GKE's workload identity, Alibaba, Azure's wire server, Oracle.
 */
const metadata: ReadonlySet<string> = new Set([
  '169.254.169.254', '169.254.170.2', '169.254.170.23', '169.254.169.252', '169.254.169.253', '168.63.129.16', '100.100.100.200', '192.0.0.192',
  'fd00:ec2::254', 'fd00:ec2::23', 'fd20:ce::254', 'fe80::a9fe:a9fe',
]);

/** IANA's registry of special-purpose addresses (RFC 6890 and what came after). The first that fits counts. */
const special4: readonly (readonly [string, AddressClass])[] = [
  ['0.0.0.0/8', 'unspecified'],
  ['10.0.0.0/8', 'private'],
  ['100.64.0.0/10', 'shared'],
  ['127.0.0.0/8', 'loopback'],
  ['169.254.0.0/16', 'link_local'],
  ['172.16.0.0/12', 'private'],
  ['192.0.0.0/24', 'reserved'],
  ['192.0.2.0/24', 'reserved'],
  ['192.88.99.0/24', 'reserved'],
  ['192.168.0.0/16', 'private'],
  ['198.18.0.0/15', 'reserved'],
  ['198.51.100.0/24', 'reserved'],
  ['203.0.113.0/24', 'reserved'],
  ['224.0.0.0/4', 'multicast'],
  ['240.0.0.0/4', 'reserved'],
];
const special6: readonly (readonly [string, AddressClass])[] = [
  ['::/128', 'unspecified'],
  ['::1/128', 'loopback'],
  ['fc00::/7', 'private'],
  ['fe80::/10', 'link_local'],
  ['fec0::/10', 'private'],
  ['ff00::/8', 'multicast'],
  ['2001::/23', 'reserved'], // Teredo, ORCHID, benchmarks
  ['2001:db8::/32', 'reserved'],
  ['2002::/16', 'reserved'],
  ['3fff::/20', 'reserved'],
  ['2000::/3', 'public'],
];
const parse = (table: readonly (readonly [string, AddressClass])[]) => table.map(([range, name]) => ({ range: ipaddr.parseCIDR(range), name }));
const [ranges4, ranges6] = [parse(special4), parse(special6)];
const nat64 = ipaddr.IPv6.parseCIDR('64:ff9b::/96');
const sixToFour = ipaddr.IPv6.parseCIDR('2002::/16');

/** An address as it is dialled: one of IPv4 in the shape of IPv6 is the IPv4. @returns null for what is none, and one with a zone */
export function parseAddress(text: string): ipaddr.IPv4 | ipaddr.IPv6 | null {
  const bare = /^\[.*\]$/.test(text) ? text.slice(1, -1) : text;
  if (bare.includes('%')) return null;
  // other spellings (octal, hex, short) are for a resolver or a browser to undo, who differ on what they mean
  if (ipaddr.IPv4.isValidFourPartDecimal(bare)) return ipaddr.IPv4.parse(bare);
  // the library takes ::8.8.8.8 for ::ffff:8.8.8.8, which is another address
  const hex = bare.replace(/:(\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})$/, (_, dotted: string) => (ipaddr.IPv4.isValidFourPartDecimal(dotted) ? `:${groups(dotted)}` : ':x'));
  return ipaddr.IPv6.isValid(hex) ? ipaddr.process(hex) : null;
}

const groups = (dotted: string): string => {
  const [a = 0, b = 0, c = 0, d = 0] = dotted.split('.').map(Number);
  return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
};

/** Of an address; `reserved` for what is none. */
export function classOf(text: string): AddressClass {
  const address = parseAddress(text);
  if (address === null) return 'reserved';
  if (metadata.has(address.toString())) return 'metadata';
  if (address instanceof ipaddr.IPv4) return ranges4.find(({ range }) => address.match(range as [ipaddr.IPv4, number]))?.name ?? 'public';
  const inside = embedded(address);
  if (inside !== null) return inside;
  return ranges6.find(({ range }) => address.match(range as [ipaddr.IPv6, number]))?.name ?? 'reserved';
}

/** Ways to an IPv4 address through a gateway: they are what they lead to (RFC 6052, RFC 3056). A 6to4 relay is never public. */
function embedded(address: ipaddr.IPv6): AddressClass | null {
  const bytes = address.toByteArray();
  if (address.match(nat64)) return classOf(bytes.slice(12).join('.'));
  if (!address.match(sixToFour)) return null;
  const inner = classOf(bytes.slice(2, 6).join('.'));
  return inner === 'public' ? 'reserved' : inner;
}
