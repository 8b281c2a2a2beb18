/** The external origin of one request. Pure: the caller hands in what the socket and the header lines say. */
import { TabreelError } from '../../shared/errors.ts';
import { toWebSocketUrl, type ExternalOrigin } from '../../shared/origin.ts';
import type { RequestFacts } from './facts.ts';
import { isTrusted, type Trust } from './trust.ts';

export type OriginPolicy = { publicUrl: string | null; trust: Trust };

type Scheme = ExternalOrigin['scheme'];

const schemes: Readonly<Record<string, Scheme>> = { https: 'https', wss: 'https', on: 'https', http: 'http', ws: 'http', off: 'http' };

/** Host of an authority: a name, an IPv4 address or an IPv6 one in brackets, and its port. */
const authorityPattern = /^((?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?|\[[0-9a-f:.]+\])\.?(?::(\d{1,5}))?$/i;

/** A name has at most 253 characters (RFC 1035), a port five. */
const MAX_AUTHORITY = 260;

const refuse = (detail: string): TabreelError => new TabreelError('origin_unresolved', detail);

/**
 * PUBLIC_URL, else what a trusted proxy says in X-Forwarded-*, else the socket and Host.
 *
 * @throws {TabreelError} `origin_unresolved`, naming the header that is missing or contradicts another
 */
export function resolveOrigin({ peer, ...facts }: RequestFacts, policy: OriginPolicy): ExternalOrigin {
  const headers = new Headers(facts.headers.map(([name, value]) => [name, value]));
  if (policy.publicUrl !== null) return fromUrl(policy.publicUrl, 'PUBLIC_URL');
  const trusted = isTrusted(policy.trust, peer.address);
  const forwarded = (name: string): string | null => (trusted ? single(headers, name) : null);

  const proto = forwarded('x-forwarded-proto');
  const scheme = proto === null ? null : (schemes[proto.toLowerCase()] ?? null);
  if (proto !== null && scheme === null) throw refuse(`X-Forwarded-Proto: ${JSON.stringify(proto)} is not a scheme`);
  const forwardedHost = forwarded('x-forwarded-host');
  const forwardedPort = forwarded('x-forwarded-port');

  const { host, port } = parseAuthority(forwardedHost ?? headers.get('host'), forwardedHost === null ? 'Host' : 'X-Forwarded-Host');
  const finalScheme = scheme ?? (peer.encrypted ? 'https' : 'http');
  // a port beside a name that carries one is the proxy's own listener
  const outerPort = port ?? (forwardedPort === null ? null : parsePort(forwardedPort, 'X-Forwarded-Port'));
  return {
    scheme: finalScheme,
    host,
    port: normalPort(outerPort),
    source: scheme === null && forwardedHost === null ? 'socket' : 'x-forwarded',
    prefix: '',
    hops: scheme === null && forwardedHost === null ? 0 : 1,
  };
}

/**
 * Where the media of a recording goes: MEDIA_URL, else the caller's own origin.
 *
 * @throws {TabreelError} `origin_unresolved` where media and credential would cross a network in the clear
 */
export function mediaBase(origin: ExternalOrigin, config: { mediaUrl: string | null; allowInsecureWs: boolean }): string {
  if (config.mediaUrl !== null) return config.mediaUrl;
  if (origin.scheme === 'http' && !config.allowInsecureWs && !isLoopbackName(origin.host)) {
    throw refuse(
      `the request came over plain http to ${origin.host}, so the media would go to a ws:// URL, unencrypted. ` +
        'Where a proxy ends TLS, let it send X-Forwarded-Proto and X-Forwarded-Host, or set PUBLIC_URL; ' +
        'where plain http is meant, set ALLOW_INSECURE_WS=true',
    );
  }
  return toWebSocketUrl(origin);
}

const isLoopbackName = (host: string): boolean =>
  host === 'localhost' || host.endsWith('.localhost') || host === '[::1]' || /^127(\.\d{1,3}){3}$/.test(host);

function fromUrl(url: string, source: string): ExternalOrigin {
  const { protocol, hostname, port, pathname } = new URL(url);
  return {
    scheme: protocol === 'https:' ? 'https' : 'http',
    host: hostname,
    port: port === '' ? null : Number(port),
    source,
    prefix: pathname.replace(/\/+$/, ''),
    hops: 0,
  };
}

/** The value of a header that several proxies may have written to, if they agree. */
function single(headers: Headers, name: string): string | null {
  const values = new Set((headers.get(name) ?? '').split(',').map((value) => value.trim().toLowerCase()).filter((value) => value !== ''));
  if (values.size > 1) throw refuse(`${name} has several values that differ: ${[...values].join(', ')}`);
  return values.values().next().value ?? null;
}

function parseAuthority(text: string | null, header: string): { host: string; port: number | null } {
  if (text === null || text === '') throw refuse(`the request has no ${header} header`);
  const match = text.length > MAX_AUTHORITY ? null : authorityPattern.exec(text);
  const host = match?.[1]?.toLowerCase();
  if (host === undefined || !URL.canParse(`http://${host}/`)) throw refuse(`${header}: ${JSON.stringify(text.slice(0, MAX_AUTHORITY))} is not a host and port`);
  // what the parser makes of it is what will be dialled: 127.1 and 0x7f.1 are 127.0.0.1
  return { host: new URL(`http://${host}/`).hostname, port: match?.[2] === undefined ? null : parsePort(match[2], header) };
}

function parsePort(text: string, header: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) throw refuse(`${header}: ${JSON.stringify(text)} has no valid port`);
  return port;
}

/** Null for the scheme's own port, and for the other scheme's: 80 with https is a proxy's inner port. */
const normalPort = (port: number | null): number | null => (port === 80 || port === 443 ? null : port);
