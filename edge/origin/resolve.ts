/** The external origin of one request. Pure: the caller hands in what the socket and the header lines say. The rule: docs/origin.md. */
import type { ExternalOrigin } from '../../shared/origin.ts';
import { authorityText, outerPort, type Authority, type Scheme } from './authority.ts';
import { checkAgreement, checkTarget, checkTargetScheme } from './contradictions.ts';
import { readForwarded, readXForwarded, type Said } from './families.ts';
import type { PlatformOrigin, RequestFacts } from './facts.ts';
import { listItems, properName, readHeaders, type SeenHeaders } from './headers.ts';
import { plainHint, untrustedHint } from './hints.ts';
import { noteAliases, noteFamilies, noteIgnored, noteLookalikes, peerReason, type Note } from './notes.ts';
import { allowed, assertSurvival, authorityOf, forwardedPort, hostOf, prefixOf, type Named } from './parts.ts';
import type { OriginPolicy } from './policy.ts';
import { OriginError, shown, shownName, type OriginStep } from './refusal.ts';
import { readAliases } from './scheme.ts';
import { isTrusted } from './trust.ts';

export type OriginVerdict = ExternalOrigin & {
  /** Address at the other end of the socket; null where the runtime does not tell. */
  peer: string | null;
  /** Whether the peer's forwarding headers are believed. */
  trusted: boolean;
  /** Evidence of TLS that did not make the scheme https; then there is no ws:// either. */
  doubt: string | null;
  /** For the operator, where the scheme is http: who would have had to say https. */
  hint: string | null;
  /** What was seen, used and ignored, and why. Found anew with each call: most requests never ask. */
  explain(): OriginStep[];
};

/**
 * PUBLIC_URL, else what the platform says, else what trusted proxies say, else the socket and Host.
 *
 * @throws {OriginError} with a code for each cause; nothing else, whatever the request holds
 */
export function resolveOrigin(facts: RequestFacts, policy: OriginPolicy): OriginVerdict {
  const explain = () => stepsOf(facts, policy);
  try {
    return { ...decide(facts, policy, null), explain };
  } catch (error) {
    if (error instanceof OriginError) error.explain = explain;
    throw error;
  }
}

function stepsOf(facts: RequestFacts, policy: OriginPolicy): OriginStep[] {
  const steps: OriginStep[] = [];
  try {
    decide(facts, policy, (what, value, use, why) => steps.push({ what: shown(what), value: shown(value), use, why }));
  } catch (error) {
    if (!(error instanceof OriginError)) throw error;
    steps.push(error.step);
  }
  return steps;
}

type Decision = Omit<OriginVerdict, 'explain'>;

function decide(facts: RequestFacts, policy: OriginPolicy, note: Note | null): Decision {
  const { peer, platform } = facts;
  const trusted = isTrusted(policy.trust, peer.address);
  const about = { peer: peer.address, trusted };
  if (policy.publicUrl !== null) return { ...about, ...fromSetting(policy.publicUrl, note) };

  const seen = readHeaders(facts.headers);
  if (platform !== null) {
    if (note) noteIgnored(seen, 'the platform tells the origin', note);
    return { ...about, ...fromPlatform(platform, policy, note) };
  }
  if (seen.hosts > 1) throw duplicateHost(seen.hosts);
  const host = seen.host === null || seen.host === '' ? null : { header: 'Host', value: seen.host };
  checkTarget(facts, host, note);
  note?.('peer', peer.address, trusted ? 'used' : 'ignored', peerReason(peer.address, trusted));
  if (note) noteLookalikes(facts, note);
  return { ...about, ...(trusted ? fromProxies(facts, seen, host, policy, note) : fromSocket(facts, seen, host, policy, note)) };
}

type Found = Omit<Decision, 'peer' | 'trusted'>;

const found = (
  scheme: Scheme,
  { host, port }: Authority,
  { prefix = '', source, hops = 0, doubt = null, hint }: { prefix?: string; source: string; hops?: number; doubt?: string | null; hint: string | null },
): Found => ({ scheme, host, port: outerPort(port), prefix, source, hops, doubt, hint: scheme === 'http' ? hint : null });

function fromSetting({ scheme, authority, prefix }: NonNullable<OriginPolicy['publicUrl']>, note: Note | null): Found {
  note?.('PUBLIC_URL', `${scheme}://${authorityText(authority)}${prefix}`, 'used', 'it is the whole origin: nothing of the request counts');
  return found(scheme, authority, { prefix, source: 'PUBLIC_URL', hint: 'PUBLIC_URL is an http:// URL: where callers come over TLS, make it https://.' });
}

function fromPlatform({ scheme, authority, source, prefix = '' }: PlatformOrigin, policy: OriginPolicy, note: Note | null): Found {
  note?.(source, `${scheme}://${authority}${prefix}`, 'used', 'the platform says so: forwarding headers do not count');
  const named = { header: source, value: authority };
  const outer = allowed(authorityOf(named), scheme, policy, note);
  const path = prefixOf([prefix], source);
  assertSurvival(outer, scheme, path, named);
  return found(scheme, outer, { prefix: path, source, hint: `${source} says that the request came over plain http.` });
}

function fromSocket(facts: RequestFacts, seen: SeenHeaders, host: Named | null, policy: OriginPolicy, note: Note | null): Found {
  const { peer } = facts;
  if (note) noteIgnored(seen, 'the peer is not one of TRUSTED_PROXIES', note);
  const scheme = peer.encrypted ? 'https' : 'http';
  note?.('socket', scheme, 'used', `the connection is ${peer.encrypted ? '' : 'not '}TLS`);
  checkTargetScheme(facts, scheme);
  const outer = allowed(hostOf(host, note), scheme, policy, note);
  assertSurvival(outer, scheme, '', host);
  return found(scheme, outer, { source: 'socket', hint: scheme === 'http' ? untrustedHint(seen, peer.address) : null });
}

function fromProxies(facts: RequestFacts, seen: SeenHeaders, host: Named | null, policy: OriginPolicy, note: Note | null): Found {
  const forwarded = readForwarded(seen, policy.trust);
  const xForwarded = readXForwarded(seen, policy.trust);
  const [said, other] = chooseFamily(forwarded, xForwarded);
  if (note) noteFamilies(seen, said, other, note);
  const { scheme, source, doubt } = decideScheme(seen, said, facts.peer.encrypted, note);
  checkTargetScheme(facts, scheme);

  const named = said?.host ?? host;
  const own = hostOf(named, note);
  const ports = said === xForwarded && xForwarded !== null ? xForwarded.ports : [];
  let { port } = own;
  if (port === null) port = forwardedPort(ports, scheme, note);
  else if (ports.length > 0) note?.('X-Forwarded-Port', ports.join(', '), 'ignored', 'the host has a port of its own');
  if (said !== null && other !== null) checkAgreement(said, other, own);
  const outer = allowed({ host: own.host, port }, scheme, policy, note);

  const prefixes = listItems(seen.forwarding['x-forwarded-prefix']);
  const prefix = prefixes.length === 0 ? '' : prefixOf(prefixes, 'X-Forwarded-Prefix');
  if (seen.forwarding['x-forwarded-prefix'] !== undefined) {
    note?.('X-Forwarded-Prefix', prefix, prefix === '' ? 'ignored' : 'used', prefix === '' ? 'it is empty' : 'it goes before every path');
  }
  assertSurvival(outer, scheme, prefix, named);
  const portSaid = own.port === null && outerPort(port) !== null;
  return found(scheme, outer, {
    prefix,
    // a name or a port alone is the proxies' word too
    source: source === 'socket' && said !== null && (said.host !== null || portSaid) ? said.family : source,
    hops: said?.hops ?? (source === 'socket' ? 0 : 1),
    doubt,
    hint: scheme === 'http' ? plainHint(said, doubt) : null,
  });
}

/** First the family that tells the scheme, `Forwarded` where both do; then the other one, if it says anything at all. */
function chooseFamily<F extends Said, X extends Said>(forwarded: F | null, xForwarded: X | null): [F | X | null, F | X | null] {
  if (forwarded === null) return [xForwarded, null];
  if (xForwarded === null) return [forwarded, null];
  const forwardedFirst = forwarded.scheme !== null || (xForwarded.scheme === null && (forwarded.proto !== null || forwarded.host !== null));
  return forwardedFirst ? [forwarded, xForwarded] : [xForwarded, forwarded];
}

/** @throws {OriginError} `origin_proto_invalid` */
function decideScheme(
  seen: SeenHeaders,
  said: Said | null,
  encrypted: boolean,
  note: Note | null,
): { scheme: Scheme; source: string; doubt: string | null } {
  const proto = said?.proto ?? null;
  if (encrypted) {
    note?.('socket', 'https', 'used', 'the connection is TLS: whatever proxies say, media goes over TLS too');
    if (proto !== null) note?.(proto.header, proto.value, said?.scheme === 'https' ? 'used' : 'ignored', 'the connection is TLS anyway');
    if (note) noteAliases(seen, null, 'the connection is TLS anyway', note);
    return { scheme: 'https', source: said !== null && said.scheme === 'https' ? said.family : 'socket', doubt: null };
  }
  const alias = said?.scheme === 'https' ? null : readAliases(seen);
  if (said !== null && said.scheme !== null) {
    note?.(proto?.header ?? said.family, proto?.value ?? null, 'used', `a trusted proxy says ${said.scheme}`);
    if (note) noteAliases(seen, null, 'another header tells the scheme', note);
    return { scheme: said.scheme, source: said.family, doubt: alias?.scheme === 'https' ? `${properName(alias.name)} says https` : null };
  }
  if (proto !== null) note?.(proto.header, shownName(proto.value), 'ignored', 'that is no scheme');
  if (note) noteAliases(seen, alias, alias === null ? 'that is no scheme' : 'another header tells the scheme', note);
  if (alias !== null) return { scheme: alias.scheme, source: alias.name, doubt: null };
  if (said !== null && proto !== null) {
    throw new OriginError('origin_proto_invalid', {
      what: proto.header,
      value: shownName(proto.value),
      message: `${proto.header}: ${JSON.stringify(shownName(proto.value))} does not tell whether the caller came over TLS`,
      remedy: `Let the proxy send ${said.family === 'forwarded' ? 'proto=https or proto=http in Forwarded' : 'X-Forwarded-Proto: https or http'}, and replace what clients send.`,
    });
  }
  note?.('socket', 'http', 'used', 'the connection is not TLS, and no proxy says that the caller used it');
  return { scheme: 'http', source: 'socket', doubt: null };
}

const duplicateHost = (count: number): OriginError =>
  new OriginError('origin_host_duplicate', {
    what: 'Host',
    value: null,
    message: `the request has ${count} Host headers`,
    remedy: 'No proxy makes such a request (RFC 9112, 3.2): let the outermost one refuse it.',
  });
