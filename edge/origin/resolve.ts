/** The external origin of one request. Pure: the caller hands in what the socket and the header lines say. The rule: docs/origin.md. */
import type { ExternalOrigin } from '../../shared/origin.ts';
import { authorityText, outerPort, parseAuthority, parsePort, survives, type Authority, type Scheme } from './authority.ts';
import { forwardedText, readForwarded, readXForwarded, unequal, type Said } from './families.ts';
import type { RequestFacts } from './facts.ts';
import { parseForwarded } from './forwarded.ts';
import { isLookalike, listItems, properName, readHeaders, type ForwardingName, type SeenHeaders } from './headers.ts';
import type { OriginPolicy } from './policy.ts';
import { OriginError, shown, type OriginStep } from './refusal.ts';
import { readAliases, type Alias } from './scheme.ts';
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

type Note = (what: string, value: string | null, use: OriginStep['use'], why: string) => void;

/**
 * PUBLIC_URL, else what the platform says, else what trusted proxies say, else the socket and Host.
 *
 * @throws {OriginError} with a code for each cause; nothing else, whatever the request holds
 */
export function resolveOrigin(facts: RequestFacts, policy: OriginPolicy): OriginVerdict {
  const explain = () => stepsOf(facts, policy);
  try {
    const verdict = decide(facts, policy, null);
    verdict.explain = explain;
    return verdict;
  } catch (error) {
    if (error instanceof OriginError) error.explain = explain;
    throw error;
  }
}

function stepsOf(facts: RequestFacts, policy: OriginPolicy): OriginStep[] {
  const steps: OriginStep[] = [];
  try {
    decide(facts, policy, (what, value, use, why) => steps.push({ what, value: shown(value), use, why }));
  } catch (error) {
    if (!(error instanceof OriginError)) throw error;
    steps.push(error.step);
  }
  return steps;
}

function decide(facts: RequestFacts, policy: OriginPolicy, note: Note | null): OriginVerdict {
  const { peer, platform } = facts;
  const trusted = isTrusted(policy.trust, peer.address);
  const about = { peer: peer.address, trusted };
  if (policy.publicUrl !== null) {
    const { scheme, authority, prefix } = policy.publicUrl;
    note?.('PUBLIC_URL', `${scheme}://${authorityText(authority)}${prefix}`, 'used', 'it is the whole origin: nothing of the request counts');
    const hint = scheme === 'http' ? 'PUBLIC_URL is an http:// URL: where callers come over TLS, make it https://.' : null;
    return verdictOf({ ...about, scheme, authority, prefix, source: 'PUBLIC_URL', hops: 0, doubt: null, hint });
  }

  const seen = readHeaders(facts.headers);
  if (platform !== null) {
    const { scheme, source } = platform;
    note?.('platform', `${scheme}://${platform.authority}`, 'used', `${source} tells the origin, and no client can write it`);
    if (note) noteIgnored(seen, facts, 'the platform tells the origin', note);
    const authority = authorityOf(platform.authority, source);
    const outer = finish(authority, scheme, policy, note);
    const prefix = platform.prefix === undefined ? '' : prefixOf(platform.prefix, source);
    assertSurvival(outer, scheme, prefix, { header: source, value: platform.authority });
    const hint = scheme === 'http' ? `${source} says that the request came over plain http.` : null;
    return verdictOf({ ...about, scheme, authority: outer, prefix, source, hops: 0, doubt: null, hint });
  }

  if (seen.hosts > 1) {
    throw new OriginError('origin_host_duplicate', {
      what: 'Host',
      value: null,
      message: `the request has ${seen.hosts} Host headers`,
      remedy: 'No proxy makes such a request (RFC 9112, 3.2): let the outermost one refuse it.',
    });
  }
  const host = seen.host === null || seen.host === '' ? null : { header: 'Host', value: seen.host };
  checkTarget(facts, host, note);

  note?.('peer', peer.address, trusted ? 'used' : 'ignored', peerReason(peer.address, trusted));
  if (!trusted) {
    if (note) noteIgnored(seen, facts, 'the peer is not one of TRUSTED_PROXIES', note);
    const scheme = peer.encrypted ? 'https' : 'http';
    note?.('socket', scheme, 'used', peer.encrypted ? 'the connection is TLS' : 'the connection is not TLS');
    const authority = finish(hostOf(host, note), scheme, policy, note);
    checkScheme(facts, scheme);
    assertSurvival(authority, scheme, '', host);
    const hint = scheme === 'http' ? untrustedHint(seen, peer.address) : null;
    return verdictOf({ ...about, scheme, authority, prefix: '', source: 'socket', hops: 0, doubt: null, hint });
  }

  const forwarded = readForwarded(seen, policy.trust);
  const xForwarded = readXForwarded(seen, policy.trust);
  const [said, other] = chooseFamily(forwarded, xForwarded);
  if (note) noteFamilies(seen, said, other, note);
  const { scheme, source, doubt } = decideScheme(seen, said, facts, note);

  const named = said?.host ?? host;
  const ownAuthority = hostOf(named, note);
  const port = ownAuthority.port ?? (said === xForwarded && xForwarded !== null ? portOf(xForwarded.ports, scheme, note) : null);
  const authority = finish({ host: ownAuthority.host, port }, scheme, policy, note);
  if (said !== null && other !== null) checkAgreement(said, other, scheme, authority, ownAuthority);
  checkScheme(facts, scheme);

  const prefixText = listItems(seen.forwarding['x-forwarded-prefix']);
  const prefix = prefixText.length === 0 ? '' : prefixOf(prefixText, 'X-Forwarded-Prefix');
  if (prefixText.length > 0) note?.('X-Forwarded-Prefix', prefix, 'used', 'it goes before every path');
  if (note) noteLookalikes(facts, note);
  assertSurvival(authority, scheme, prefix, named);
  const spoke = source !== 'socket';
  return verdictOf({
    ...about,
    scheme,
    authority,
    prefix,
    // a name or a port alone is the proxies' word too
    source: spoke ? source : said !== null && (said.host !== null || port !== ownAuthority.port) ? said.family : 'socket',
    hops: said?.hops ?? (spoke ? 1 : 0),
    doubt,
    hint: scheme === 'http' ? plainHint(said, doubt, policy) : null,
  });
}

function verdictOf({ authority, ...rest }: Omit<OriginVerdict, 'host' | 'port' | 'explain'> & { authority: Authority }): OriginVerdict {
  return {
    scheme: rest.scheme,
    host: authority.host,
    port: outerPort(authority.port),
    prefix: rest.prefix,
    source: rest.source,
    hops: rest.hops,
    peer: rest.peer,
    trusted: rest.trusted,
    doubt: rest.doubt,
    hint: rest.hint,
    explain: () => [],
  };
}

/** The family that tells the scheme, `Forwarded` where both do; then the other one that says anything at all. */
function chooseFamily<F extends Said, X extends Said>(forwarded: F | null, xForwarded: X | null): [F | X | null, F | X | null] {
  if (forwarded === null) return [xForwarded, null];
  if (xForwarded === null) return [forwarded, null];
  const forwardedFirst = forwarded.proto !== null || (xForwarded.proto === null && forwarded.host !== null);
  return forwardedFirst ? [forwarded, xForwarded] : [xForwarded, forwarded];
}

function decideScheme(
  seen: SeenHeaders,
  said: Said | null,
  { peer }: RequestFacts,
  note: Note | null,
): { scheme: Scheme; source: string; doubt: string | null } {
  if (peer.encrypted) {
    note?.('socket', 'https', 'used', 'the connection is TLS, so that whatever proxies say, media goes over TLS too');
    const source = said?.scheme === 'https' ? said.family : 'socket';
    return { scheme: 'https', source, doubt: null };
  }
  const needsAliases = said?.scheme !== 'https';
  const alias: Alias | null = needsAliases ? readAliases(seen) : null;
  if (said !== null && said.scheme !== null) {
    const doubt = alias?.scheme === 'https' ? `${properName(alias.name)} says https` : null;
    note?.(said.proto?.header ?? said.family, said.proto?.value ?? said.scheme, 'used', `a trusted proxy says ${said.scheme}`);
    if (note) noteAliases(seen, null, 'there is a header of its own for the scheme', note);
    return { scheme: said.scheme, source: said.family, doubt };
  }
  if (said !== null && said.proto !== null) note?.(said.proto.header, said.proto.value, 'ignored', 'that is no scheme');
  if (alias !== null) {
    if (note) noteAliases(seen, alias, 'another header says it', note);
    return { scheme: alias.scheme, source: alias.name, doubt: null };
  }
  if (said !== null && said.proto !== null) {
    throw new OriginError('origin_proto_invalid', {
      what: said.proto.header,
      value: said.proto.value,
      message: `${said.proto.header}: ${JSON.stringify(shown(said.proto.value))} does not tell whether the caller came over TLS`,
      remedy: `Let the proxy send ${said.family === 'forwarded' ? 'proto=https or proto=http in Forwarded' : 'X-Forwarded-Proto: https or http'}, and replace what clients send.`,
    });
  }
  note?.('socket', 'http', 'used', 'the connection is not TLS, and no proxy says that the caller used it');
  return { scheme: 'http', source: 'socket', doubt: null };
}

type Named = { header: string; value: string };

function hostOf(named: Named | null, note: Note | null): Authority {
  if (named === null) {
    throw new OriginError('origin_host_missing', {
      what: 'Host',
      value: null,
      message: 'the request has no Host header',
      remedy: 'Let the proxy pass on the Host header, or set PUBLIC_URL.',
    });
  }
  note?.(named.header, named.value, 'used', 'it names the host');
  return authorityOf(named.value, named.header);
}

function authorityOf(value: string, header: string): Authority {
  const authority = parseAuthority(value);
  if (typeof authority !== 'string') return authority;
  if (authority === 'port') throw invalidPort(header, value);
  throw invalidHost(header, value);
}

const invalidHost = (header: string, value: string): OriginError =>
  new OriginError('origin_host_invalid', {
    what: header,
    value,
    message: `${header}: ${JSON.stringify(shown(value))} is not a host name or address with at most a port`,
    remedy: `Let the outermost proxy replace ${header} with the name that callers use, or set PUBLIC_URL.`,
  });

const invalidPort = (header: string, value: string): OriginError =>
  new OriginError('origin_port_invalid', {
    what: header,
    value,
    message: `${header}: ${JSON.stringify(shown(value))} has no port from 1 to 65535`,
    remedy: `Let the outermost proxy replace ${header}, or set PUBLIC_URL.`,
  });

/** Ports that a listener behind TLS, or before it, would have are no sign of the caller's. */
function portOf(ports: readonly string[], scheme: Scheme, note: Note | null): number | null {
  const found = new Set<number | null>();
  for (const text of ports) {
    const port = parsePort(text);
    if (port === null) throw invalidPort('X-Forwarded-Port', ports.join(', '));
    const leak = (scheme === 'https' && port === 80) || (scheme === 'http' && port === 443);
    if (!leak) found.add(outerPort(port));
  }
  if (found.size > 1) throw unequal('x-forwarded-port', ports.join(', '), ports.length, 0);
  const port = found.values().next().value ?? null;
  if (ports.length > 0) {
    note?.('X-Forwarded-Port', ports.join(', '), port === null ? 'ignored' : 'used', port === null ? `no port is needed with ${scheme}` : 'the host names none');
  }
  return port;
}

function finish(authority: Authority, scheme: Scheme, policy: OriginPolicy, note: Note | null): Authority {
  if (authority.port === (scheme === 'https' ? 80 : 443)) {
    note?.('port', String(authority.port), 'ignored', `with ${scheme} it is the port of another listener than the caller's`);
  }
  const outer = { host: authority.host, port: outerPort(authority.port) };
  if (!policy.allows(outer)) {
    throw new OriginError('origin_host_not_allowed', {
      what: 'ALLOWED_HOSTS',
      value: authorityText(outer),
      message: `${authorityText(outer)} is not served here`,
      remedy: `If callers may use this name, add ${authorityText(outer)} to ALLOWED_HOSTS. Else a client made it up, or a proxy rewrites Host.`,
    });
  }
  return outer;
}

const segment = /^[A-Za-z0-9._~!$&'()*+;=:@-]+$/;

function prefixOf(text: string | readonly string[], header: string): string {
  const values = new Set((typeof text === 'string' ? [text] : text).map((value) => value.replace(/\/$/, '')));
  const [prefix = ''] = values;
  const segments = prefix.split('/').slice(1);
  const good = prefix.length <= 256 && segments.every((part) => segment.test(part) && part !== '.' && part !== '..');
  if (values.size > 1 || !good || (prefix !== '' && !prefix.startsWith('/'))) {
    throw new OriginError('origin_prefix_invalid', {
      what: header,
      value: [...values].join(', '),
      message: `${header}: ${JSON.stringify(shown([...values].join(', ')))} is not one path of plain segments`,
      remedy: `Let the outermost proxy replace ${header} with the path that it takes off, or remove it.`,
    });
  }
  return prefix;
}

function assertSurvival(authority: Authority, scheme: Scheme, prefix: string, named: Named | null): void {
  if (!survives(scheme, authority, prefix)) throw invalidHost(named?.header ?? 'Host', named?.value ?? '');
}

const absolute = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)/i;

/** An absolute-form target (RFC 9112, 3.2.2) must say what Host says: routing by the one and answering by the other is how hosts are forged. */
function checkTarget({ target }: RequestFacts, host: Named | null, note: Note | null): void {
  const match = target === null || target.startsWith('/') ? null : absolute.exec(target);
  if (match === null) return;
  const [shownTarget, scheme = '', text = ''] = match;
  const ofTarget = parseAuthority(text);
  const ofHost = host === null ? null : parseAuthority(host.value);
  const agree =
    typeof ofTarget === 'object' &&
    ofHost !== null &&
    typeof ofHost === 'object' &&
    ofTarget.host === ofHost.host &&
    portWith(scheme, ofTarget.port) === portWith(scheme, ofHost.port);
  if (!agree) throw targetMismatch(shownTarget, `Host is ${host === null ? 'missing' : shown(host.value)}`);
  note?.('request target', shownTarget, 'ignored', 'it names the same host as the Host header; its scheme is only the client’s word');
}

const portWith = (scheme: string, port: number | null): number => port ?? (/^(?:https|wss)$/i.test(scheme) ? 443 : 80);

/** The scheme of an absolute-form target is never used, but one that neither socket nor proxies know of is a forgery. */
function checkScheme({ target, peer }: RequestFacts, scheme: Scheme): void {
  const match = target === null || target.startsWith('/') ? null : absolute.exec(target);
  if (match === null) return;
  const said = match[1]?.toLowerCase();
  if (said !== scheme && said !== (peer.encrypted ? 'https' : 'http')) throw targetMismatch(match[0], `the connection is ${scheme}`);
}

const targetMismatch = (target: string, but: string): OriginError =>
  new OriginError('origin_target_mismatch', {
    what: 'request target',
    value: target,
    message: `the request line names ${shown(target)}, but ${but}`,
    remedy: 'Clients send such a request line to forward proxies only: one was told to use this service as its HTTP proxy, or tries to forge a host.',
  });

function checkAgreement(said: Said, other: Said, scheme: Scheme, authority: Authority, own: Authority): void {
  const conflict = (what: string, one: string, two: string) =>
    new OriginError('origin_conflict', {
      what,
      value: two,
      message: `${familyName(said)} and ${familyName(other)} contradict each other: ${shown(one)} and ${shown(two)}`,
      remedy:
        'One of the two was set by a client, or by a proxy that knows only that one. Let the outermost proxy remove ' +
        'the header that it does not set itself (Forwarded or X-Forwarded-*).',
    });
  if (other.scheme !== null && other.scheme !== scheme) {
    throw conflict(other.proto?.header ?? familyName(other), scheme, other.scheme);
  }
  if (other.host !== null) {
    const { host, port } = authorityOf(other.host.value, other.host.header);
    // a port beside the name (X-Forwarded-Port) is the weakest word there is, so that it contradicts nothing
    if (host !== authority.host || outerPort(port) !== outerPort(own.port)) {
      throw conflict(other.host.header, authorityText({ host: authority.host, port: outerPort(own.port) }), other.host.value);
    }
  }
}

const familyName = ({ family }: Said): string => (family === 'forwarded' ? 'Forwarded' : 'X-Forwarded-*');

const schemeNames: readonly ForwardingName[] = ['forwarded', 'x-forwarded-proto'];

function untrustedHint({ forwarding }: SeenHeaders, address: string | null): string {
  const sent = schemeNames.find((name) => forwarding[name] !== undefined);
  return sent === undefined
    ? 'The request came straight to this service over plain http. Where a proxy ends TLS, list it in TRUSTED_PROXIES and let it send X-Forwarded-Proto.'
    : `${address ?? 'The peer'} sent ${properName(sent)} but is not in TRUSTED_PROXIES, so that it was ignored: if it is your proxy, add its address or CIDR there.`;
}

function plainHint(said: Said | null, doubt: string | null, { wsScheme }: OriginPolicy): string {
  if (doubt !== null) return `${doubt}, but the scheme has a header of its own that says http: let the proxy that sets that one pass on what the caller used.`;
  if (said?.beyond === 'https') {
    return `https is said only from before ${said.from ?? 'the outermost trusted proxy'}: if a proxy of yours is there, add it to TRUSTED_PROXIES.`;
  }
  if (said?.scheme === 'http') return `${said.proto?.header ?? 'a proxy'} says http: where TLS ends before that proxy, let it pass on what it was told.`;
  return `No header tells the caller's scheme: where a proxy ends TLS, let it send X-Forwarded-Proto: https${wsScheme === 'auto' ? '' : ', or set PUBLIC_URL'}.`;
}

const peerReason = (address: string | null, trusted: boolean): string => {
  if (trusted) return 'it is one of TRUSTED_PROXIES: its forwarding headers are believed';
  return address === null ? 'its address is not known, so that it is not believed' : 'it is not one of TRUSTED_PROXIES: forwarding headers are ignored';
};

function noteIgnored(seen: SeenHeaders, facts: RequestFacts, why: string, note: Note): void {
  for (const name of Object.keys(seen.forwarding) as ForwardingName[]) note(properName(name), showable(seen, name), 'ignored', why);
  noteLookalikes(facts, note);
}

function noteFamilies(seen: SeenHeaders, said: Said | null, other: Said | null, note: Note): void {
  for (const name of ['x-forwarded-for', 'forwarded'] as const) {
    if (seen.forwarding[name] === undefined) continue;
    const family = name === 'forwarded' ? 'forwarded' : 'x-forwarded';
    const one = [said, other].find((each) => each?.family === family);
    const chosen = said?.family === family;
    const why = chosen ? `${said.hops} trusted ${said.hops === 1 ? 'hop' : 'hops'}, counted from the right` : 'the other family tells the scheme; this one must only not contradict it';
    note(properName(name), showable(seen, name), chosen ? 'used' : 'ignored', one === undefined ? 'it is empty' : why);
  }
}

function noteAliases(seen: SeenHeaders, used: Alias | null, why: string, note: Note): void {
  for (const name of Object.keys(seen.forwarding) as ForwardingName[]) {
    if (name.startsWith('x-forwarded-') ? !/^x-forwarded-(?:protocol|scheme|ssl)$/.test(name) : name === 'forwarded') continue;
    const chosen = used?.name === name;
    note(properName(name), showable(seen, name), chosen ? 'used' : 'ignored', chosen ? `a trusted proxy says ${used.scheme}, and no X-Forwarded-Proto does` : why);
  }
}

function noteLookalikes({ headers }: RequestFacts, note: Note): void {
  for (const [name, value] of headers) {
    if (isLookalike(name)) note(shown(name), value, 'ignored', 'no proxy in use sets a header of this name by itself, so that any client may have');
  }
}

/** X-ARR-SSL holds a certificate's names, and Forwarded may hold a proxy's own secret. */
function showable(seen: SeenHeaders, name: ForwardingName): string {
  const value = seen.forwarding[name] ?? '';
  if (name === 'x-arr-ssl') return '(present)';
  if (name !== 'forwarded') return value;
  try {
    return forwardedText(parseForwarded(value));
  } catch {
    return '(not valid)';
  }
}
