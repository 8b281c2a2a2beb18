/** Host and port of an origin: strict where they come in, in one form from then on. */

export type Scheme = 'http' | 'https';
export type Authority = {
  /** Lower case, an IPv6 address in brackets, no dot at the end. */
  host: string;
  /** As it stands there; null where none does. */
  port: number | null;
};

/** RFC 1123's letters, digits and hyphens, and the underscore of names that Compose and Windows give. */
const name = /^(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i;
const MAX_NAME = 253;
const MAX_AUTHORITY = MAX_NAME + '.:65535'.length;

/** @returns what is wrong, in a word, where it is no host and port */
export function parseAuthority(text: string): Authority | 'host' | 'port' {
  if (text.length > MAX_AUTHORITY || text.includes('@')) return 'host';
  const bracket = text.startsWith('[') ? text.indexOf(']') + 1 : 0;
  const colon = text.indexOf(':', bracket);
  let host = colon === -1 ? text : text.slice(0, colon);
  if (text.startsWith('[')) {
    if (!/^\[[0-9a-f:.]+\]$/i.test(host) || !URL.canParse(`http://${host}/`)) return 'host';
    host = new URL(`http://${host}/`).hostname;
  } else {
    if (host.endsWith('.')) host = host.slice(0, -1);
    if (host.length > MAX_NAME || !name.test(host)) return 'host';
    host = host.toLowerCase();
  }
  if (colon === -1) return { host, port: null };
  const port = parsePort(text.slice(colon + 1));
  return port === null ? 'port' : { host, port };
}

/** 1 to 65535 in decimal digits; null for anything else. */
export function parsePort(text: string): number | null {
  if (!/^\d{1,5}$/.test(text)) return null;
  const port = Number(text);
  return port >= 1 && port <= 65_535 ? port : null;
}

/** Null for the scheme's own port and for the other scheme's: 80 with https is the port of a listener behind the one that ended TLS. */
export const outerPort = (port: number | null): number | null => (port === 80 || port === 443 ? null : port);

/** `host` or `host:port`. */
export const authorityText = ({ host, port }: Authority): string => (port === null ? host : `${host}:${port}`);

/**
 * Whether a URL made of these is read back as the same: 127.1, 0x7f000001 and broken punycode are not.
 * @param prefix "" or "/path"
 */
export function survives(scheme: Scheme, { host, port }: Authority, prefix: string): boolean {
  let url;
  try {
    url = new URL(`${scheme}://${authorityText({ host, port })}${prefix}`);
  } catch {
    return false;
  }
  return (
    url.protocol === `${scheme}:` &&
    url.hostname === host &&
    url.port === (port === null ? '' : String(port)) &&
    url.pathname === (prefix === '' ? '/' : prefix) &&
    url.username === '' &&
    url.search === '' &&
    url.hash === ''
  );
}
