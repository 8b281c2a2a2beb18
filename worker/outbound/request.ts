/** What a browser asks of a proxy: the target, and the headers that may go on to it. Pure. */
import type { Target } from './dial.ts';

const HOST = String.raw`(\[[0-9A-Fa-f:.]{2,45}\]|[^\s:/?#@\[\]\\]{1,253})`;
const authority = new RegExp(`^${HOST}:(\\d{1,5})$`);
const absolute = new RegExp(`^http://(${HOST}(?::(\\d{1,5}))?)([/?][^\\s#]*)?$`, 'i');

const portOf = (text: string): number | null => {
  const port = Number(text);
  return port >= 1 && port <= 65_535 ? port : null;
};

/** `host:port` of a CONNECT request; null where it is anything else. */
export function authorityTarget(text: string): Target | null {
  const match = authority.exec(text);
  const port = portOf(match?.[2] ?? '');
  return match?.[1] === undefined || port === null ? null : { host: match[1], port };
}

/** An absolute-form request target, http only, without a user; null where it is anything else. The path stays as it was sent. */
export function absoluteTarget(text: string): { target: Target; host: string; path: string } | null {
  const match = absolute.exec(text);
  const port = portOf(match?.[3] ?? '80');
  if (match?.[1] === undefined || match[2] === undefined || port === null) return null;
  const path = match[4] ?? '/';
  return { target: { host: match[2], port }, host: match[1], path: path.startsWith('?') ? `/${path}` : path };
}

// RFC 9110, 7.6.1: they belong to one connection. `expect` was answered by the proxy's own server.
const hopByHop = new Set([
  'connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer',
  'transfer-encoding', 'upgrade', 'expect',
]);

/**
 * Raw headers (name, value, name, value) that go on to the next connection, their order and spelling kept.
 * @param host in a request: becomes the Host header (RFC 9112, 3.2.2); null in a response.
 */
export function forwardable(rawHeaders: readonly string[], host: string | null, ...drop: readonly string[]): string[] {
  const dropped = new Set([...hopByHop, ...drop, ...(host === null ? [] : ['host'])]);
  const kept: string[] = host === null ? [] : ['Host', host];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.toLowerCase() !== 'connection') continue;
    for (const name of rawHeaders[i + 1]?.split(',') ?? []) dropped.add(name.trim().toLowerCase());
  }
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const [name, value] = [rawHeaders[i] as string, rawHeaders[i + 1] as string];
    if (!dropped.has(name.toLowerCase())) kept.push(name, value);
  }
  return kept;
}
