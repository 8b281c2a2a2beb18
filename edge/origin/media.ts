/** Where the media of a recording goes, and whether it may. */
import { isLoopbackHost } from '../../shared/address.ts';
import { toWebSocketUrl } from '../../shared/origin.ts';
import { authorityText } from './authority.ts';
import type { OriginPolicy } from './policy.ts';
import { OriginError, type OriginStep } from './refusal.ts';
import type { OriginVerdict } from './resolve.ts';

/**
 * Whether a worker runs where this process's loopback is its own.
 * @throws {TabreelError} `redis_unavailable`
 */
export type LocalWorkers = () => Promise<boolean>;

export type MediaBase = {
  /** `wss://rec.example.com/prefix`, no slash at the end. */
  url: string;
  /** What the origin's own steps do not tell. */
  step: OriginStep;
};

/**
 * MEDIA_URL, else the caller's own origin.
 *
 * @throws {OriginError} `origin_insecure` where media and credential would cross a network in the clear
 */
export function mediaBase(origin: OriginVerdict, policy: OriginPolicy): MediaBase {
  if (policy.mediaUrl !== null) {
    return { url: policy.mediaUrl, step: step('MEDIA_URL', policy.mediaUrl, 'media goes there, whatever the origin is') };
  }
  const { wsScheme, allowInsecureWs } = policy;
  const scheme = wsScheme === 'auto' ? (origin.scheme === 'https' ? 'wss' : 'ws') : wsScheme;
  const url = toWebSocketUrl(origin, scheme);
  if (scheme === 'wss') {
    return { url, step: step(wsScheme === 'auto' ? 'scheme' : 'WS_SCHEME', scheme, wsScheme === 'auto' ? 'the caller came over TLS' : 'the operator says so') };
  }
  const cause = insecureCause(origin, policy);
  if (cause !== null) throw insecure(origin, cause);
  return { url, step: step('scheme', scheme, allowInsecureWs ? 'ALLOW_INSECURE_WS is set' : 'all say http, and loopback is no network') };
}

/** As mediaBase, and asks for a worker where only one on this machine could reach the URL. @throws also `origin_loopback` */
export async function reachableMediaBase(origin: OriginVerdict, policy: OriginPolicy, localWorkers: LocalWorkers | null): Promise<MediaBase> {
  const base = mediaBase(origin, policy);
  // where MEDIA_URL is loopback, the operator gave each worker a way from there
  if (policy.mediaUrl !== null || !isLoopbackHost(origin.host)) return base;
  if (localWorkers !== null && (await localWorkers())) return base;
  throw withSteps(
    origin,
    new OriginError('origin_loopback', {
      what: 'media URL',
      value: base.url,
      message:
        `the media would go to ${base.url}, which is this machine's loopback, and no worker is running on this machine now. ` +
        'Come in by the address of the ingress instead (not by a port-forward or a tunnel to localhost). ' +
        'If a worker of this machine is just starting, try again in a few seconds',
      remedy:
        'Callers should use the address of the ingress. If they do, a proxy there writes its own name for this service into Host: let it ' +
        'pass on the one of the caller, and send X-Forwarded-Proto. Where they can not, set PUBLIC_URL to the address that workers ' +
        'reach this service at, or MEDIA_URL to that of the deployment that takes media. On one machine, start a worker with the same REDIS_URL and QUEUE_PREFIX.',
    }),
  );
}

/**
 * The caller's own origin, for another server behind the same host: `wss://rec.example.com:8443`. Neither MEDIA_URL nor a path
 * prefix of ours counts there.
 *
 * @throws {OriginError} as reachableMediaBase
 */
export async function neighbourBase(origin: OriginVerdict, policy: OriginPolicy, localWorkers: LocalWorkers | null): Promise<string> {
  return (await reachableMediaBase({ ...origin, prefix: '' }, { ...policy, mediaUrl: null }, localWorkers)).url;
}

function insecureCause(origin: OriginVerdict, { wsScheme, allowInsecureWs }: OriginPolicy): string | null {
  if (origin.scheme === 'https') return allowInsecureWs ? null : 'the caller came over TLS, and WS_SCHEME=ws would take that away';
  if (origin.doubt !== null && wsScheme === 'auto') return `proxies contradict each other about TLS (${origin.doubt})`;
  return allowInsecureWs || isLoopbackHost(origin.host) ? null : `the request came over plain http to ${authorityText(origin)}`;
}

function insecure(origin: OriginVerdict, cause: string): OriginError {
  return withSteps(
    origin,
    new OriginError('origin_insecure', {
      what: 'media URL',
      value: `ws://${authorityText(origin)}`,
      message: `${cause}, so the media and its credential would go to a ws:// URL, unencrypted`,
      remedy: `${origin.hint ?? 'Leave WS_SCHEME at auto.'} Or set PUBLIC_URL; where plain http is meant, set ALLOW_INSECURE_WS=true.`,
    }),
  );
}

function withSteps(origin: OriginVerdict, error: OriginError): OriginError {
  error.explain = () => [...origin.explain(), error.step];
  return error;
}

const step = (what: string, value: string, why: string): OriginStep => ({ what, value, use: 'used', why });
