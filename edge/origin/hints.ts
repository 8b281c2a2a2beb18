/** For the operator, where no TLS was seen: who would have had to tell of it. */
import type { Said } from './families.ts';
import { properName, type SeenHeaders } from './headers.ts';

/** Of a peer that is not trusted. */
export function untrustedHint({ forwarding }: SeenHeaders, address: string | null): string {
  const sent = (['forwarded', 'x-forwarded-proto'] as const).find((name) => forwarding[name] !== undefined);
  return sent === undefined
    ? 'The request came straight to this service over plain http. Where a proxy ends TLS, list it in TRUSTED_PROXIES and let it send X-Forwarded-Proto.'
    : `${address ?? 'The peer'} sent ${properName(sent)} but is not in TRUSTED_PROXIES, so that it was ignored: if it is your proxy, add its address or CIDR there.`;
}

/** @param doubt evidence of TLS beside a header that says http */
export function plainHint(said: Said | null, doubt: string | null): string {
  if (doubt !== null) return `${doubt}, but the scheme has a header of its own that says http: let the proxy that sets that one pass on what the caller used.`;
  if (said?.beyond === 'https') {
    return `https is said only from before ${said.from ?? 'the outermost trusted proxy'}: if a proxy of yours is there, add it to TRUSTED_PROXIES.`;
  }
  if (said?.scheme === 'http') return `${said.proto?.header ?? 'A proxy'} says http: where TLS ends before that proxy, let it pass on what it was told.`;
  return "No header tells the caller's scheme: where a proxy ends TLS, let it send X-Forwarded-Proto: https.";
}
