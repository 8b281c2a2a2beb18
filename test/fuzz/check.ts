/** What must hold of the rule for every request, told without the rule's own means. */
import { isLoopbackHost } from '../../shared/address.ts';
import { toHttpUrl } from '../../shared/origin.ts';
import type { HeaderLine, RequestFacts } from '../../edge/origin/facts.ts';
import { aliasNames } from '../../edge/origin/headers.ts';
import { reachableMediaBase } from '../../edge/origin/media.ts';
import { originPolicy } from '../../edge/origin/policy.ts';
import { OriginError, type OriginStep } from '../../edge/origin/refusal.ts';
import { resolveOrigin, type OriginVerdict } from '../../edge/origin/resolve.ts';
import { parseTrust } from '../../edge/origin/trust.ts';
import { SECRET, trustedPeers, untrustedPeers, type Policy } from './soup.ts';
import type { Way } from './way.ts';

export type Counts = Map<string, number>;

const count = (counts: Counts, key: string) => counts.set(key, (counts.get(key) ?? 0) + 1);

export class Broken extends Error {}

function must(holds: boolean, what: string): void {
  if (!holds) throw new Broken(what);
}

const forwardingName = /^(forwarded|x-forwarded-(for|proto|host|port|prefix))$/i;
const isForwarding = (name: string) => forwardingName.test(name) || (aliasNames as readonly string[]).includes(name.toLowerCase());

/** Of any request under any policy. @returns the outcome, as it is counted */
export async function checkSoup(facts: RequestFacts, policy: Policy, counts: Counts, workerHere: boolean): Promise<void> {
  const compiled = originPolicy(policy);
  let verdict: OriginVerdict | null = null;
  let outcome: string;
  let steps: OriginStep[];
  try {
    verdict = resolveOrigin(facts, compiled);
    steps = verdict.explain();
    count(counts, `source ${verdict.source}`);
    const { url } = await reachableMediaBase(verdict, compiled, async () => workerHere);
    outcome = url;
    checkUrl(url, facts, policy);
    must(workerHere || policy.mediaUrl !== null || !isLoopbackHost(new URL(url).hostname), 'no loopback without a worker here');
    count(counts, url.startsWith('wss:') ? 'media wss' : 'media ws');
  } catch (error) {
    if (!(error instanceof OriginError)) throw error;
    must(error.kind.status === 400 || error.kind.status === 421, `status of ${error.code}`);
    must(error.remedy.length > 20, `remedy of ${error.code}`);
    count(counts, `refused ${error.code}`);
    outcome = error.code;
    steps = error.explain();
    must(steps.at(-1)?.use === 'refused', 'the last step is the refusal');
    must(!`${error.message}${error.remedy}`.includes(SECRET), 'no credential in a message');
    must(error.message.length < 700, 'a message is short');
  }
  must(!JSON.stringify(steps).includes(SECRET), 'no credential in a step');
  must(steps.every(({ value, what }) => (value ?? '').length < 700 && what.length < 700), 'steps are short');

  if (verdict !== null) checkVerdict(verdict, facts, policy, steps);
  const same = async (what: string, changed: RequestFacts) => {
    const other = await outcomeOf(changed, policy, workerHere);
    must(other === outcome, `${what}: ${other} instead of ${outcome}`);
  };
  const { headers } = facts;
  await same('names in another case', { ...facts, headers: headers.map(([name, value]): HeaderLine => [name.toUpperCase(), value]) });
  await same('headers that are nobody’s', { ...facts, headers: [['X_Forwarded_Proto', 'http'], ...headers, ['X-Forwarded-Hosts', 'evil.example'], ['Cookie', 'a=b']] });
  await same('another order of the names', { ...facts, headers: sortedByName(headers) });
  if (facts.platform !== null || untrustedPeers.includes(facts.peer.address ?? '')) {
    await same('without headers that nobody may believe', { ...facts, headers: headers.filter(([name]) => !isForwarding(name)) });
  }
}

/** Lines of one name stay in their order. */
const sortedByName = (headers: readonly HeaderLine[]): HeaderLine[] =>
  headers.toSorted(([one], [two]) => (one.toLowerCase() < two.toLowerCase() ? -1 : one.toLowerCase() > two.toLowerCase() ? 1 : 0));

async function outcomeOf(facts: RequestFacts, policy: Policy, workerHere: boolean): Promise<string> {
  const compiled = originPolicy(policy);
  try {
    return (await reachableMediaBase(resolveOrigin(facts, compiled), compiled, async () => workerHere)).url;
  } catch (error) {
    if (error instanceof OriginError) return error.code;
    throw error;
  }
}

function checkUrl(text: string, facts: RequestFacts, policy: Policy): void {
  const url = new URL(text);
  must(url.protocol === 'wss:' || url.protocol === 'ws:', 'a WebSocket URL');
  must(url.port !== '0', 'a port that can be dialled');
  must(url.username === '' && url.password === '' && url.search === '' && url.hash === '', 'nothing but host and path');
  must(url.href === text || url.href === `${text}/`, `the URL is read back as it is: ${url.href}`);
  if (policy.publicUrl === null && policy.mediaUrl === null) {
    must(policy.mayBe(url.hostname), `${url.hostname} is one of ALLOWED_HOSTS`);
    const known = JSON.stringify([facts.headers, facts.platform?.authority ?? '']).toLowerCase();
    // an IPv6 address may have been written in another way
    must(url.hostname.startsWith('[') || known.includes(url.hostname), `${url.hostname} was named by somebody`);
  }
  if (url.protocol === 'ws:' && policy.mediaUrl === null) {
    must(policy.allowInsecureWs || isLoopbackHost(url.hostname), 'ws:// to loopback only, or where it is allowed');
    if (policy.wsScheme === 'auto' && policy.publicUrl === null) must(!tlsIsTold(facts), 'no ws:// for a request that came over TLS');
  }
}

const secure = /^(https|wss|on)$/i;
const items = (facts: RequestFacts, name: string): string[] =>
  facts.headers
    .filter(([each]) => each.toLowerCase() === name)
    .flatMap(([, value]) => value.split(/[,\n]/))
    .map((item) => item.trim())
    .filter((item) => item !== '');

/** The socket, the platform, the word of the nearest proxy, or one of the other headers; as plain as it can be read. */
function tlsIsTold(facts: RequestFacts): boolean {
  if (facts.platform !== null) return facts.platform.scheme === 'https';
  if (facts.peer.encrypted) return true;
  if (!trustedPeers.includes(facts.peer.address ?? '')) return false;
  const nearest = items(facts, 'x-forwarded-proto').at(-1);
  if (nearest !== undefined && secure.test(nearest)) return true;
  const last = facts.headers.findLast(([name, value]) => name.toLowerCase() === 'forwarded' && value.trim() !== '')?.[1];
  if (last !== undefined && /(^|[;,]\s*)proto="?(https|wss|on)"?(;[^,"]*)?$/i.test(last)) return true;
  return ['x-forwarded-protocol', 'x-forwarded-scheme', 'x-forwarded-ssl', 'x-scheme', 'x-url-scheme', 'front-end-https', 'cloudfront-forwarded-proto', 'x-appengine-https'].some((name) =>
    items(facts, name).some((item) => secure.test(item)),
  );
}

function checkVerdict(verdict: OriginVerdict, facts: RequestFacts, policy: Policy, steps: readonly OriginStep[]): void {
  if (policy.publicUrl !== null) return must(toHttpUrl(verdict) === policy.publicUrl, 'PUBLIC_URL is the origin');
  must(verdict.peer === facts.peer.address, 'the peer is the socket’s');
  if (trustedPeers.includes(facts.peer.address ?? '')) must(verdict.trusted, 'a trusted peer');
  if (untrustedPeers.includes(facts.peer.address ?? '')) must(!verdict.trusted, 'a peer that is not trusted');
  if (!verdict.trusted && facts.platform === null) {
    must(verdict.scheme === (facts.peer.encrypted ? 'https' : 'http'), 'the socket’s scheme');
    must(verdict.source === 'socket' && verdict.hops === 0 && verdict.prefix === '', 'the socket alone');
  }
  must(!/\/\/|\.\.|[?#\\%\s]|\/$/.test(verdict.prefix), 'a plain prefix');
  if (facts.platform === null) checkRequestLine(facts);
  must(verdict.port !== 80 && verdict.port !== 443, 'no port that says nothing');
  must(!verdict.host.endsWith('.') && verdict.host === verdict.host.toLowerCase(), 'one form of a host');
  for (const [name] of facts.headers) {
    if (!isForwarding(name)) continue;
    must(steps.some(({ what }) => what.toLowerCase().startsWith(name.toLowerCase())), `a step tells of ${name}`);
  }
}

/** Of a request that was not refused. */
function checkRequestLine({ headers, target }: RequestFacts): void {
  const hosts = headers.filter(([name]) => name.toLowerCase() === 'host').map(([, value]) => value.trim());
  must(hosts.length <= 1, 'one Host at most');
  if (target === null || !/^[a-z]+:\/\//i.test(target)) return;
  const { protocol, host } = new URL(target);
  must(/^https?:$/.test(protocol), 'a target over HTTP');
  const plain = (text: string) => text.toLowerCase().replace(/\.(?=:|$)/, '');
  must(plain(host) === plain(new URL(`${protocol}//${hosts[0]}`).host), 'the target names the host that Host names');
}

const open = originPolicy({ publicUrl: null, mediaUrl: null, trust: parseTrust(['loopback', 'private']), allowedHosts: null, wsScheme: 'auto', allowInsecureWs: true });

/** Of a request whose way is known: the truth; where the caller forged headers, the truth or a refusal. */
export function checkWay({ facts, truth, forged }: Way, counts: Counts): void {
  let told: string;
  try {
    told = toHttpUrl(resolveOrigin(facts, open));
  } catch (error) {
    if (!(error instanceof OriginError)) throw error;
    must(forged, `an honest way is not refused (${error.code}: ${error.message}); truth ${truth}`);
    count(counts, `way forged, refused ${error.code}`);
    return;
  }
  must(told === truth, `told ${told}, truth ${truth}`);
  count(counts, forged ? 'way forged, truth told' : 'way honest, truth told');
}
