/** Host, port and prefix of the origin, each from the header that names it. */
import { authorityText, outerPort, parseAuthority, parsePort, survives, type Authority, type Scheme } from './authority.ts';
import { unequal } from './families.ts';
import type { Note } from './notes.ts';
import type { OriginPolicy } from './policy.ts';
import { OriginError, shown, shownName } from './refusal.ts';

/** A value and the header that it stands in. */
export type Named = { header: string; value: string };

/** @throws {OriginError} `origin_host_missing`, `origin_host_invalid`, `origin_port_invalid` */
export function hostOf(named: Named | null, note: Note | null): Authority {
  if (named === null) {
    throw new OriginError('origin_host_missing', {
      what: 'Host',
      value: null,
      message: 'the request has no Host header',
      remedy: 'Let the proxy pass on the Host header, or set PUBLIC_URL.',
    });
  }
  const authority = authorityOf(named);
  note?.(named.header, named.value, 'used', 'it names the host');
  return authority;
}

export function authorityOf({ header, value }: Named): Authority {
  const authority = parseAuthority(value);
  if (typeof authority !== 'string') return authority;
  if (authority === 'port') throw invalidPort({ header, value });
  throw invalidHost({ header, value });
}

export const invalidHost = ({ header, value }: Named): OriginError =>
  new OriginError('origin_host_invalid', {
    what: header,
    value: shownName(value),
    message: `${header}: ${JSON.stringify(shownName(value))} is not a host name or address with at most a port`,
    remedy: `Let the outermost proxy replace ${header} with the name that callers use, or set PUBLIC_URL.`,
  });

const invalidPort = ({ header, value }: Named): OriginError =>
  new OriginError('origin_port_invalid', {
    what: header,
    value: shownName(value),
    message: `${header}: ${JSON.stringify(shownName(value))} has no port from 1 to 65535`,
    remedy: `Let the outermost proxy replace ${header}, or set PUBLIC_URL.`,
  });

/** Of X-Forwarded-Port. Ports that a listener behind the one that ended TLS would have are no sign of the caller's. */
export function forwardedPort(ports: readonly string[], scheme: Scheme, note: Note | null): number | null {
  const found = new Set<number | null>();
  for (const text of ports) {
    const port = parsePort(text);
    if (port === null) throw invalidPort({ header: 'X-Forwarded-Port', value: ports.join(', ') });
    // one that is dropped still says that the host has none: else a client's port before it would stand alone
    found.add(outerPort(port));
  }
  if (found.size > 1) throw unequal('x-forwarded-port', ports.join(', '), ports.length);
  const port = found.values().next().value ?? null;
  if (ports.length > 0) {
    note?.('X-Forwarded-Port', ports.join(', '), port === null ? 'ignored' : 'used', port === null ? `${scheme} needs no port, and none of another listener` : 'the host names none');
  }
  return port;
}

/** 80 with https, 443 with http. */
const isLeak = (port: number | null, scheme: Scheme): boolean => port === (scheme === 'https' ? 80 : 443);

/** @throws {OriginError} `origin_host_not_allowed` */
export function allowed(authority: Authority, scheme: Scheme, policy: OriginPolicy, note: Note | null): Authority {
  if (isLeak(authority.port, scheme)) {
    note?.('port', String(authority.port), 'ignored', `with ${scheme} it is the port of another listener than the caller's`);
  }
  const outer = { host: authority.host, port: outerPort(authority.port) };
  if (policy.allows(outer)) return outer;
  throw new OriginError('origin_host_not_allowed', {
    what: 'ALLOWED_HOSTS',
    value: authorityText(outer),
    message: `${authorityText(outer)} is not served here`,
    remedy: `If callers may use this name, add ${authorityText(outer)} to ALLOWED_HOSTS. Else a client made it up, or a proxy rewrites Host.`,
  });
}

/** Characters of RFC 3986's pchar that are no list's; nothing percent-encoded, which could be read twice. */
const segment = /^[A-Za-z0-9._~!$&'()*+;=:@-]+$/;
const MAX_PREFIX = 256;

/** @returns "" or "/path". @throws {OriginError} `origin_prefix_invalid` */
export function prefixOf(texts: readonly string[], header: string): string {
  const values = new Set(texts.map((text) => text.replace(/\/$/, '')));
  const [prefix = ''] = values;
  const segments = prefix.split('/').slice(1);
  const plain = prefix === '' || (prefix.startsWith('/') && segments.every((part) => segment.test(part) && part !== '.' && part !== '..'));
  if (values.size <= 1 && plain && prefix.length <= MAX_PREFIX) return prefix;
  const value = texts.join(', ');
  throw new OriginError('origin_prefix_invalid', {
    what: header,
    value,
    message: `${header}: ${JSON.stringify(shown(value))} is not one path of plain segments`,
    remedy: `Let the outermost proxy replace ${header} with the path that it takes off, or remove it.`,
  });
}

/** @throws {OriginError} `origin_host_invalid` where a URL would be read as another host */
export function assertSurvival(authority: Authority, scheme: Scheme, prefix: string, named: Named | null): void {
  if (!survives(scheme, authority, prefix)) throw invalidHost(named ?? { header: 'Host', value: '' });
}
