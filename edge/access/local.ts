/** Whether a request comes from this very machine, as far as it says. Without API keys nothing else is let in. */
import { isLoopbackHost } from '../../shared/address.ts';
import { parseAuthority } from '../origin/authority.ts';
import type { RequestFacts } from '../origin/facts.ts';
import { isForwarding } from '../origin/headers.ts';
import { shown } from '../origin/refusal.ts';

/** What proxies and content networks add beside the headers that tell an origin. */
const addedByProxies = new Set([
  'via', 'x-real-ip', 'x-client-ip', 'x-cluster-client-ip', 'x-original-forwarded-for', 'x-original-host', 'x-original-url',
  'x-envoy-external-address', 'x-envoy-original-path', 'x-azure-clientip', 'x-azure-socketip', 'x-appengine-user-ip',
  'x-forwarded-server', 'x-forwarded-by', 'x-forwarded-uri', 'x-forwarded-method', 'x-forwarded-client-cert',
  'cf-connecting-ip', 'cf-ray', 'cdn-loop', 'true-client-ip', 'fastly-client-ip', 'fly-client-ip', 'x-amz-cf-id',
]);

export type LocalPolicy = {
  publicUrl: string | null;
  /** Origins of pages that may read answers. */
  corsOrigins: readonly string[];
  /** Whether a page of any origin may have sent it: it carries a credential for what it asks. */
  anyPage: boolean;
};

/** @returns why it may come from elsewhere; null where nothing says so */
export function whyNotLocal({ peer, headers, platform }: RequestFacts, { publicUrl, corsOrigins, anyPage }: LocalPolicy): string | null {
  if (publicUrl !== null && !isLoopbackHost(new URL(publicUrl).hostname)) return `PUBLIC_URL says that it is reached as ${shown(new URL(publicUrl).host)}`;
  if (peer.address !== null && !isLoopbackHost(peer.address)) return `it comes from ${shown(peer.address)}`;
  if (platform !== null && !isLoopbackName(platform.authority)) return `it came to ${shown(platform.authority)}`;
  for (const [sent, value] of headers) {
    const name = sent.toLowerCase();
    if (isForwarding(name) || addedByProxies.has(name)) return `a proxy sent it: it has the header ${shown(sent)}`;
    if (name === 'host' && platform === null && value.trim() !== '' && !isLoopbackName(value.trim())) return `it asks for the host ${shown(value)}`;
    if (name === 'origin' && !anyPage && !isLocalPage(value) && !corsOrigins.includes(value) && !corsOrigins.includes('*')) {
      return `a page of ${shown(value)} sent it`;
    }
  }
  return null;
}

function isLoopbackName(text: string): boolean {
  const authority = parseAuthority(text);
  return typeof authority !== 'string' && isLoopbackHost(authority.host);
}

const isLocalPage = (origin: string): boolean => URL.canParse(origin) && isLoopbackHost(new URL(origin).hostname);
