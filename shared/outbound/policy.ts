/**
 * Which addresses strangers may have dialled: pages, and whoever names a URL. Resolved addresses are judged right before they are
 * dialled, never names or URLs, which can be written in many ways and mean another thing the next time.
 */
import ipaddr from 'ipaddr.js';
import { z } from 'zod';
import { classOf, parseAddress, type AddressClass } from './address-class.ts';

/**
 * A port of this service, which nothing opens.
 * @property host a name or an address; null for all addresses of this machine
 * @property pages paths that a plain GET may have all the same: they are there to be recorded
 */
export type OwnPort = { host: string | null; port: number; pages?: readonly string[] };

/** @param url redis:// or rediss:// */
export function redisPort(url: string): OwnPort {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port || 6379) };
}

/** Plain data: it goes to the processes of recordings. */
export type OutboundRules = {
  /** Entries of OUTBOUND_ALLOW. */
  allow: readonly string[];
  own: readonly OwnPort[];
};

export type DenialClass = Exclude<AddressClass, 'public'> | 'own';
export const denialClasses: readonly DenialClass[] = ['own', 'loopback', 'private', 'link_local', 'metadata', 'shared', 'multicast', 'unspecified', 'reserved'];

/** @property reason in words, without the address: which addresses a name has in here is nobody's business out there */
export type Denial = { class: DenialClass; reason: string };

/** @property addresses all that the name has: one that is closed closes it; @property path where it is dialled for one plain GET alone */
export type Asked = { host: string; port: number; addresses: readonly string[]; path?: string | undefined };
/** @returns null where the target may be dialled */
export type Judge = (target: Asked) => Promise<Denial | null>;

export type JudgeDependencies = {
  /** All addresses of a name of our own; called only where the port is the same. */
  resolve: (host: string) => Promise<readonly string[]>;
  /** Of this machine's interfaces, at this moment. */
  localAddresses: () => readonly string[];
};

const words: Readonly<Record<DenialClass, string>> = {
  own: 'a port of this service',
  loopback: 'a loopback address',
  private: 'a private address',
  link_local: 'a link-local address',
  metadata: "a cloud's metadata service",
  shared: 'a shared address (100.64.0.0/10)',
  multicast: 'a multicast address',
  unspecified: 'no address to dial',
  reserved: 'an address that is not public',
};
/** What a rule that names a host, or `*`, does not open: that takes the address itself. */
const neverByName: ReadonlySet<AddressClass> = new Set(['metadata', 'multicast', 'unspecified']);

type Rule = {
  port: number | null;
  /** Whether it is for this host, or this address of it. */
  opens(host: string, address: ipaddr.IPv4 | ipaddr.IPv6, kind: AddressClass): boolean;
};

/** @throws {RangeError} whose message says what an entry may be */
function parseRule(entry: string): Rule {
  const wrong = () => new RangeError(`${JSON.stringify(entry)} is no address, range (10.0.0.0/8), host (intranet.example, *.intranet.example) or *, with or without a port (host:8443)`);
  if (entry === '*') return { port: null, opens: (_host, _address, kind) => !neverByName.has(kind) };
  const match = /^(\[[^\]]+\](?:\/\d{1,3})?|[^:[\]]+|[^[\]]*:[^[\]]*:[^[\]]*?)(?::(\d{1,5}))?$/.exec(entry);
  if (match?.[1] === undefined) throw wrong();
  // many colons without brackets: an IPv6 address or range, whose last part is no port
  const bare = entry.split(':').length > 2 && !entry.startsWith('[');
  const text = bare ? entry : match[1];
  const port = bare || match[2] === undefined ? null : Number(match[2]);
  if (port !== null && (port < 1 || port > 65_535)) throw wrong();
  const plain = text.replace(/[[\]]/g, '');
  const [base = '', bits, ...more] = plain.split('/');
  const address = parseAddress(base);
  if (address !== null) {
    const whole = address.kind() === 'ipv4' ? 32 : 128;
    const length = bits === undefined ? whole : /^\d{1,3}$/.test(bits) ? Number(bits) : Number.NaN;
    // a mapped range would be judged as another one than was written
    if (more.length > 0 || !(length <= whole) || (bits !== undefined && base.includes(':') && whole === 32)) throw wrong();
    return { port, opens: (_host, one) => one.kind() === address.kind() && one.match(address as ipaddr.IPv4 & ipaddr.IPv6, length) };
  }
  const name = plain.toLowerCase().replace(/\.$/, '');
  const suffix = name.startsWith('*.') ? name.slice(1) : null;
  const label = '[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?';
  // of digits and dots alone it is meant for an address
  if (bits !== undefined || /^[\d.]+$/.test(name) || name.length > 253 || !new RegExp(`^(?:\\*\\.)?${label}(?:\\.${label})*$`).test(name)) throw wrong();
  return {
    port,
    opens: (host, _address, kind) => !neverByName.has(kind) && (suffix === null ? host === name : host.endsWith(suffix)),
  };
}

/** The setting's entries, comma separated. */
export const outboundAllow = z
  .string()
  .transform((value) => value.split(',').map((item) => item.trim()).filter((item) => item !== ''))
  .check((context) => {
    for (const entry of context.value) {
      try {
        parseRule(entry);
      } catch (error) {
        context.issues.push({ code: 'custom', input: entry, message: (error as Error).message });
      }
    }
  });

/** What is open to whoever records on a machine of their own: the machine, and the networks that it is in. */
export const LOCAL_ALLOW = '127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7';

/** @throws {RangeError} for an entry that is none */
export function createJudge({ allow, own }: OutboundRules, { resolve, localAddresses }: JudgeDependencies): Judge {
  const rules = allow.map(parseRule);
  const denial = (name: DenialClass): Denial => ({ class: name, reason: words[name] });

  /** Whether one of these is where a port of ours is. One whose address can't be told might be. */
  const isOwn = async (addresses: readonly string[], { host }: OwnPort): Promise<boolean> => {
    const wanted = new Set(addresses.map(canonical));
    const here = () => addresses.some((address) => ['loopback', 'unspecified'].includes(classOf(address))) || localAddresses().some((address) => wanted.has(canonical(address)));
    if (host === null) return here();
    const literal = parseAddress(host);
    const ours = literal === null ? await resolve(host).catch(() => null) : [literal.toString()];
    if (ours === null) return true;
    // what listens on the machine is there by all of its addresses
    return ours.some((address) => wanted.has(canonical(address)) || (classOf(address) === 'loopback' && here()));
  };

  return async ({ host, port, addresses, path }) => {
    for (const one of own) {
      if (one.port === port && !(path !== undefined && one.pages?.includes(path) === true) && (await isOwn(addresses, one))) return denial('own');
    }
    const name = host.toLowerCase().replace(/\.$/, '');
    for (const text of addresses) {
      const kind = classOf(text);
      if (kind === 'public') continue;
      const address = parseAddress(text);
      const isOpen = address !== null && rules.some((rule) => (rule.port === null || rule.port === port) && rule.opens(name, address, kind));
      if (!isOpen) return denial(kind);
    }
    return null;
  };
}

const canonical = (address: string): string => parseAddress(address)?.toString() ?? address;
