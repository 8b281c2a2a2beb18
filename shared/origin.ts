/** The external origin: what the caller's own client believes it talks to. */
import type { z } from 'zod';
import type { externalOrigin } from './recording.ts';

export type ExternalOrigin = z.infer<typeof externalOrigin> & {
  /** Path before ours, "" or "/prefix". */
  prefix: string;
  /** Trusted proxies passed on the way. */
  hops: number;
};

const authority = (origin: Pick<ExternalOrigin, 'host' | 'port'>): string =>
  origin.port === null ? origin.host : `${origin.host}:${origin.port}`;

/** `https://rec.example.com:8443/prefix`, no slash at the end. */
export const toHttpUrl = (origin: ExternalOrigin): string => `${origin.scheme}://${authority(origin)}${origin.prefix}`;

/** The base of media URLs: `wss` where the caller came over https, else `ws`, unless another is asked for. */
export function toWebSocketUrl(origin: ExternalOrigin, scheme: 'wss' | 'ws' = origin.scheme === 'https' ? 'wss' : 'ws'): string {
  const url = `${scheme}://${authority(origin)}${origin.prefix}`;
  const parsed = new URL(url);
  if (parsed.protocol !== `${scheme}:` || parsed.hostname.toLowerCase() !== origin.host.toLowerCase()) {
    throw new TypeError(`the origin does not survive being parsed: ${url}`);
  }
  return url;
}

/** The recording's way in, without a credential. @param base http(s) or ws(s) URL without a slash at its end. */
export const mediaUrlOf = (base: string, id: string): string => `${base}/v1/recordings/${id}/media`;
