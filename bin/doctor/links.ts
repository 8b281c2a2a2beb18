/** From a host's name to an edge that is ready: DNS, TCP, TLS, HTTP. */
import { X509Certificate } from 'node:crypto';
import { lookup } from 'node:dns/promises';
import { connect as connectTcp, isIP } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { certificateAdvice, proxyAdvice } from './advice.ts';
import { ask, problemCode, serverOf, type Access, type Answer } from './http.ts';
import { because, codeOf, fail, ok, speaksNoTls, warn, type Finding } from './link.ts';

/** A certificate that ends sooner is worth a word, unless it was made for days: then its last quarter is. */
const EXPIRY_WARNING_DAYS = 14;
/** More addresses of one name are not tried. */
const MAX_ADDRESSES = 8;
const DAY_MS = 24 * 3600 * 1000;

/** Host without the brackets of an IPv6 address. */
export const hostOf = (url: URL): string => url.hostname.replace(/^\[|\]$/g, '');
export const portOf = (url: URL): number => (url.port === '' ? (/^(https|wss):$/.test(url.protocol) ? 443 : 80) : Number(url.port));

/** @returns the addresses, none where it fails */
export async function dnsLink(url: URL, access: Access): Promise<{ finding: Finding; addresses: string[] }> {
  const host = hostOf(url);
  if (isIP(host) !== 0) return { finding: ok(`${host} is an address`), addresses: [host] };
  try {
    const found = await within(lookup(host, { all: true, order: 'verbatim' }), access);
    const addresses = found.map(({ address }) => address).slice(0, MAX_ADDRESSES);
    return { finding: ok(`${host} is ${addresses.join(', ')}`), addresses };
  } catch (error) {
    access.signal.throwIfAborted();
    const advice = [`Look at the DNS record of ${host}, and whether this machine's resolver sees it. Workers and callers have to resolve it too.`];
    return { finding: fail(`${host}: ${because(error)}`, advice), addresses: [] };
  }
}

/** Every address is tried: clients may get any of them. */
export async function tcpLink(url: URL, addresses: readonly string[], access: Access): Promise<Finding> {
  const port = portOf(url);
  const tries = await Promise.all(
    addresses.map(async (address) => {
      const began = performance.now();
      try {
        await connectTo(address, port, access);
        return { good: true, code: '', line: `${address} port ${port} answers after ${Math.max(1, Math.round(performance.now() - began))} ms` };
      } catch (error) {
        return { good: false, code: codeOf(error), line: `${address} port ${port}: ${because(error)}` };
      }
    }),
  );
  access.signal.throwIfAborted();
  const bad = tries.filter(({ good }) => !good);
  const first = tries.find(({ good }) => good);
  if (first === undefined) {
    const advice = tries.every(({ code }) => code === 'ECONNREFUSED')
      ? [`Is the proxy, or the edge, up and listening on port ${port}? An edge without a proxy listens on loopback, port 8080, unless HOST and PORT say otherwise.`]
      : ['Look at firewalls, security groups and the load balancer on the way: packets get lost.'];
    return fail(tries.map(({ line }) => line).join('; '), advice);
  }
  if (bad.length === 0) return ok(first.line, tries.filter((each) => each !== first).map(({ line }) => line));
  const advice = ['Some clients and workers will get such an address: take it out of the DNS, or let something listen there.'];
  return warn(first.line, advice, bad.map(({ line }) => line));
}

/** @returns whether later links may believe the certificate */
export async function tlsLink(url: URL, access: Access, ownAuthority: boolean): Promise<{ finding: Finding; trusted: boolean }> {
  const host = hostOf(url);
  let socket: TLSSocket;
  try {
    socket = await connectSecurely(host, portOf(url), access);
  } catch (error) {
    access.signal.throwIfAborted();
    const advice = speaksNoTls(error)
      ? [`Is port ${portOf(url)} one for plain http? Then TLS ends elsewhere, or the scheme should be http.`]
      : ['A listener for TLS without a certificate for this name, or a load balancer without a target, ends connections like this.'];
    return { finding: fail(`${host}: ${because(error)}`, advice), trusted: false };
  }
  try {
    const certificate = socket.getPeerX509Certificate() ?? null;
    const refusals = certificate === null ? ['no certificate'] : refusalsOf(socket, host, certificate);
    const facts = [
      `${socket.getProtocol() ?? 'TLS'}, ${socket.alpnProtocol === 'h2' ? 'HTTP/2 and 1.1' : 'HTTP/1.1'}`,
      ...(certificate === null ? [] : [describeCertificate(certificate)]),
    ].join('; ');
    if (refusals.length > 0) {
      const advice = [...new Set(refusals.flatMap((code) => certificateAdvice(code, host)))];
      return { finding: fail(`${host}: ${refusals.map(because).join('; ')}`, advice, [facts, 'The links behind it are looked at all the same.']), trusted: false };
    }
    const notes = ownAuthority ? ['Workers have to trust the authority of --ca too: MEDIA_CA'] : [];
    const days = daysLeft(certificate as X509Certificate);
    if (days < Math.min(EXPIRY_WARNING_DAYS, daysLong(certificate as X509Certificate) / 4)) return { finding: warn(facts, [`The certificate ends in ${Math.floor(days)} days: look at its renewal.`], notes), trusted: true };
    return { finding: ok(facts, notes), trusted: true };
  } finally {
    socket.destroy();
  }
}

/** OpenSSL stops at the first thing that is wrong; what is cheap to see besides is added. */
function refusalsOf(socket: TLSSocket, host: string, certificate: X509Certificate): string[] {
  const refusals = new Set<string>();
  if (!socket.authorized) refusals.add(String((socket.authorizationError as unknown) ?? 'not trusted'));
  if (daysLeft(certificate) < 0) refusals.add('CERT_HAS_EXPIRED');
  if ((isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host)) === undefined) refusals.add('ERR_TLS_CERT_ALTNAME_INVALID');
  return [...refusals];
}

const daysLeft = (certificate: X509Certificate): number => (certificate.validToDate.getTime() - Date.now()) / DAY_MS;

const daysLong = ({ validFromDate, validToDate }: X509Certificate): number => (validToDate.getTime() - validFromDate.getTime()) / DAY_MS;

function describeCertificate(certificate: X509Certificate): string {
  const names = (certificate.subjectAltName ?? certificate.subject ?? '').replaceAll(/DNS:|IP Address:/g, '');
  const issuer = (/^CN=(.*)$/m.exec(certificate.issuer)?.[1] ?? certificate.issuer.replaceAll('\n', ', ')).trim();
  const days = Math.floor(daysLeft(certificate));
  return `${names} by ${issuer}, until ${certificate.validToDate.toISOString().slice(0, 10)} (${days < 0 ? 'over' : `${days} ${days === 1 ? 'day' : 'days'}`})`;
}

/** @returns the server's own words for itself, where an edge answered; else `edge` is false */
export async function healthLink(base: string, access: Access): Promise<{ finding: Finding; edge: boolean; server: string | null }> {
  let answer: Answer;
  try {
    answer = await ask(`${base}/healthz`, access);
  } catch (error) {
    access.signal.throwIfAborted();
    const advice = ['Something took the connection and gave no HTTP answer: a proxy without an edge behind it, or a port of another protocol.'];
    return { finding: fail(`GET /healthz: ${because(error)}`, advice), edge: false, server: null };
  }
  const server = serverOf(answer);
  const said = `GET /healthz: ${answer.status}, HTTP/${answer.version}${server === null ? '' : `, ${server}`}`;
  if (answer.status === 200 && answer.json?.['status'] === 'ok') return { finding: ok(said), edge: true, server };
  return { finding: fail(said, healthAdvice(base, answer)), edge: false, server };
}

function healthAdvice(base: string, answer: Answer): string[] {
  const { status, headers } = answer;
  const server = serverOf(answer);
  const { pathname } = new URL(base);
  // an edge with keys says of what isn't there only that a key is needed
  if (['not_found', 'unauthorized'].includes(problemCode(answer) ?? '')) {
    return [
      `An edge answers, but it has nothing at ${pathname.replace(/\/$/, '')}/healthz: the proxy has to take the prefix off and tell it.`,
      ...proxyAdvice('prefix', server, pathname.replace(/\/+$/, '') || '/prefix'),
    ];
  }
  if (status >= 300 && status < 400) {
    const to = URL.canParse(headers.location ?? '', base) ? new URL(headers.location ?? '', base) : null;
    const where = to === null ? 'elsewhere' : `${to.origin}${to.pathname}`;
    const secure = to?.protocol === 'https:' && base.startsWith('http:') && to.hostname === new URL(base).hostname;
    return secure
      ? [`It redirects to https: ask for ${to?.origin}, which callers and workers should use too.`]
      : [`It redirects to ${where}: a login or another site stands before the edge. Let the edge's paths pass; it checks its own credentials.`];
  }
  if (status === 400 && /https port/i.test(answer.text)) return ['Plain http was sent to a port for TLS: ask for https.'];
  if ([401, 403, 407].includes(status)) {
    return ["Something before the edge wants a login, or forbids it. Let the edge's paths pass, /v1/recordings/*/media above all: a worker has only the edge's credential."];
  }
  if ([502, 503, 504].includes(status)) {
    return [
      'The proxy finds no edge behind it. Is the edge up, and does the proxy use its address and port?',
      'An edge listens on loopback only unless HOST says otherwise: a proxy on another machine, or in another pod, can not reach it there.',
    ];
  }
  if (status === 404) return [`${server ?? 'What answers'} has no route to the edge for ${new URL(base).host}${pathname}: look at its hosts and paths.`];
  return ['This is no answer of an edge: another service has the address.'];
}

type ReadyCheck = { ok?: unknown; detail?: unknown };

const readyAdvice: Readonly<Record<string, string>> = {
  redis: 'Redis: is it up, and does the edge reach it at REDIS_URL? Nothing can be recorded until it answers.',
  storage: 'Storage: is STORAGE_URL writable for the edge, and is there room?',
  process: 'The process is being stopped: ask again.',
};

export async function readyLink(base: string, access: Access): Promise<Finding> {
  const answer = await ask(`${base}/readyz`, access);
  const checks = answer.json?.['checks'];
  if (checks === null || typeof checks !== 'object') return fail(`GET /readyz: ${answer.status}, which is no answer of an edge`);
  const each = Object.entries(checks as Record<string, ReadyCheck>);
  const line = each.map(([name, check]) => `${name} ${check.ok === true ? 'ok' : 'FAILS'}${typeof check.detail === 'string' ? ` (${check.detail})` : ''}`).join(', ');
  const bad = each.filter(([, check]) => check.ok !== true).map(([name]) => name);
  if (answer.status === 200 && bad.length === 0) return ok(line);
  return fail(`GET /readyz: ${answer.status}: ${line}`, bad.map((name) => readyAdvice[name] ?? `${name}: see the log of the edge.`));
}

/** Whether the edge knows the key that was given. */
export async function keyLink(base: string, access: Access): Promise<Finding> {
  const answer = await ask(`${base}/v1/recordings?limit=1`, access);
  const code = problemCode(answer);
  if (answer.status === 200) return ok('the edge knows the API key');
  if (code === 'forbidden') return ok('the edge knows the API key, which may not read');
  const said = `GET /v1/recordings: ${answer.status}${code === null ? ', which is no answer of an edge' : ` ${code}: ${String(answer.json?.['detail'] ?? '')}`}`;
  if (code === 'unauthorized') return fail(said, ['Is it a key of this deployment, as `tabreel key` printed it, and its entry in the file that API_KEYS names? Does a proxy take the Authorization header away?']);
  return fail(said, code === null ? ['Something before the edge wants a login of its own: let the Authorization header and /v1 pass.'] : []);
}

function connectTo(address: string, port: number, access: Access): Promise<void> {
  const socket = connectTcp({ host: address, port });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.on('connect', () => resolve());
  socket.on('error', reject);
  return within(promise, access).finally(() => socket.destroy());
}

/** A certificate that is refused is still told: the caller looks at `authorized`. */
function connectSecurely(host: string, port: number, access: Access): Promise<TLSSocket> {
  const socket = connectTls({
    host,
    port,
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ca: [...access.ca],
    rejectUnauthorized: false,
    ALPNProtocols: ['h2', 'http/1.1'],
  });
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>();
  socket.on('secureConnect', () => resolve(socket));
  socket.on('error', reject);
  socket.on('close', () => reject(Object.assign(new Error('the connection was closed'), { code: 'ECONNRESET' })));
  return within(promise, access).catch((error: unknown) => {
    socket.destroy();
    throw error;
  });
}

/** The link's time limit. */
async function within<T>(promise: Promise<T>, { timeout, signal }: Access): Promise<T> {
  const limit = Promise.withResolvers<never>();
  const timer = setTimeout(() => limit.reject(Object.assign(new Error(`no answer within ${timeout / 1000} s`), { code: 'ETIMEDOUT' })), timeout);
  const abort = () => limit.reject(signal.reason as Error);
  signal.addEventListener('abort', abort);
  if (signal.aborted) abort();
  return Promise.race([promise, limit.promise]).finally(() => {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  });
}
