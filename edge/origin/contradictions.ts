/** Where two parts of a request tell different origins: a forged one, or proxies that do not know of each other. */
import { authorityText, outerPort, parseAuthority, type Authority, type Scheme } from './authority.ts';
import type { RequestFacts } from './facts.ts';
import type { Said } from './families.ts';
import type { Note } from './notes.ts';
import { authorityOf, type Named } from './parts.ts';
import { OriginError, shown } from './refusal.ts';

const absolute = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)/i;

const absoluteForm = (target: string | null): RegExpExecArray | null => (target === null || target.startsWith('/') ? null : absolute.exec(target));

/**
 * An absolute-form target (RFC 9112, 3.2.2) must say what Host says: routing by the one and answering by the other is how
 * hosts are forged.
 * @throws {OriginError} `origin_target_mismatch`
 */
export function checkTarget({ target }: RequestFacts, host: Named | null, note: Note | null): void {
  const match = absoluteForm(target);
  if (match === null) return;
  const [whole, scheme = '', text = ''] = match;
  const ofTarget = parseAuthority(text);
  const ofHost = host === null ? 'host' : parseAuthority(host.value);
  const portOf = ({ port }: Authority) => port ?? (/^(?:https|wss)$/i.test(scheme) ? 443 : 80);
  const agree =
    typeof ofTarget === 'object' && typeof ofHost === 'object' && ofTarget.host === ofHost.host && portOf(ofTarget) === portOf(ofHost);
  if (!agree) throw targetMismatch(whole, host === null ? 'there is no Host header' : `Host is ${shown(host.value)}`);
  note?.('request target', whole, 'ignored', 'it names the same host as the Host header; its scheme is only the client’s word');
}

/**
 * The scheme of an absolute-form target is never used, but one that neither socket nor proxies know of is a forgery.
 * @throws {OriginError} `origin_target_mismatch`
 */
export function checkTargetScheme({ target, peer }: RequestFacts, scheme: Scheme): void {
  const match = absoluteForm(target);
  if (match === null) return;
  const said = match[1]?.toLowerCase();
  if (said !== scheme && said !== (peer.encrypted ? 'https' : 'http')) throw targetMismatch(match[0], `the caller came over ${scheme}`);
}

const targetMismatch = (target: string, but: string): OriginError =>
  new OriginError('origin_target_mismatch', {
    what: 'request target',
    value: target,
    message: `the request line names ${shown(target)}, but ${but}`,
    remedy: 'Clients send such a request line to forward proxies only: one was told to use this service as its HTTP proxy, or tries to forge a host.',
  });

/**
 * @param said the family that told the scheme
 * @param own host and port as that family has them, a port beside the name left out: that is the weakest word there is, and
 *   contradicts nothing
 * @throws {OriginError} `origin_conflict`
 */
export function checkAgreement(said: Said, other: Said, own: Authority): void {
  const conflict = (what: string, one: string, two: string) =>
    new OriginError('origin_conflict', {
      what,
      value: two,
      message: `${nameOf(said)} and ${nameOf(other)} contradict each other: ${shown(one)} and ${shown(two)}`,
      remedy:
        'One of the two was set by a client, or by a proxy that knows only that one. Let the outermost proxy remove ' +
        'the header that it does not set itself (Forwarded or X-Forwarded-*).',
    });
  if (said.scheme !== null && other.scheme !== null && other.scheme !== said.scheme) {
    throw conflict(other.proto?.header ?? nameOf(other), said.scheme, other.scheme);
  }
  if (other.host === null) return;
  const { host, port } = authorityOf(other.host);
  if (host === own.host && outerPort(port) === outerPort(own.port)) return;
  throw conflict(other.host.header, authorityText({ host: own.host, port: outerPort(own.port) }), other.host.value);
}

const nameOf = ({ family }: Said): string => (family === 'forwarded' ? 'Forwarded' : 'X-Forwarded-*');
