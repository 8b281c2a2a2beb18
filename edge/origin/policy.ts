/** What the operator says of origins, read once. */
import { ConfigError } from '../../shared/config.ts';
import type { Log } from '../../shared/log.ts';
import { parseAuthority, type Authority, type Scheme } from './authority.ts';
import type { Trust } from './trust.ts';

export type WsScheme = 'auto' | 'wss' | 'ws';

export type OriginSettings = {
  /** Overrides the origin that requests tell. */
  publicUrl: string | null;
  /** Base of the media URLs (ws or wss) where the media goes to another deployment than this one. */
  mediaUrl: string | null;
  trust: Trust;
  /** Host names that callers may use: `name`, `name:port`, `*.name`, `*`; null for any. */
  allowedHosts: readonly string[] | null;
  wsScheme: WsScheme;
  allowInsecureWs: boolean;
};

export type OriginPolicy = Omit<OriginSettings, 'publicUrl' | 'allowedHosts'> & {
  publicUrl: { scheme: Scheme; authority: Authority; prefix: string } | null;
  allows(authority: Authority): boolean;
};

/** @throws {ConfigError} as parseAllowedHosts */
export function originPolicy({ publicUrl, allowedHosts, ...settings }: OriginSettings): OriginPolicy {
  return { ...settings, publicUrl: publicUrl === null ? null : partsOf(publicUrl), allows: parseAllowedHosts(allowedHosts) };
}

function partsOf(text: string): OriginPolicy['publicUrl'] {
  const { protocol, hostname, port, pathname } = new URL(text);
  return {
    scheme: protocol === 'https:' ? 'https' : 'http',
    authority: { host: hostname, port: port === '' ? null : Number(port) },
    prefix: pathname.replace(/\/+$/, ''),
  };
}

/** @throws {ConfigError} naming the item that is no host */
export function parseAllowedHosts(items: readonly string[] | null): (authority: Authority) => boolean {
  if (items === null || items.includes('*')) return () => true;
  const exact = new Set<string>();
  const suffixes: string[] = [];
  for (const item of items) {
    const below = item.startsWith('*.');
    const authority = parseAuthority(below ? item.slice(2) : item);
    if (typeof authority === 'string' || (below && authority.port !== null)) {
      throw new ConfigError(`ALLOWED_HOSTS: ${JSON.stringify(item)} is not a host, host:port, *.domain or *`);
    }
    if (below) suffixes.push(`.${authority.host}`);
    else exact.add(authority.port === null ? authority.host : `${authority.host}:${authority.port}`);
  }
  return ({ host, port }) =>
    exact.has(host) || (port !== null && exact.has(`${host}:${port}`)) || suffixes.some((suffix) => host.endsWith(suffix));
}

/** Once, at start. */
export function warnOfAnyHost({ allowedHosts, publicUrl }: Pick<OriginSettings, 'allowedHosts' | 'publicUrl'>, log: Log): void {
  if (allowedHosts !== null || publicUrl !== null) return;
  log.warn('ALLOWED_HOSTS is not set: a caller may name any host, and media URLs and links are made of it; list the names that callers use, or * for any');
}
