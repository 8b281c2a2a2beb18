import { once } from 'node:events';
import { createServer as createHttpServer, type RequestListener } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { WebSocketServer } from 'ws';
import { freePort } from '../../bin/local-redis.ts';
import type { TabreelError } from '../../shared/errors.ts';
import { createLog } from '../../shared/log.ts';
import { createMediaSocketSink, type MediaSocketLimits } from '../../worker/sink/media-socket.ts';
import { mediaRemedies, type MediaCode } from '../../worker/sink/media-socket-causes.ts';
import { mediaWays } from '../../worker/sink/media-way.ts';
import { createAuthority, hasOpenssl, type Authority } from '../helpers/certificates.ts';
import { segment, startIngest as openIngest } from './fixtures/stub-ingest.ts';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const quick: Partial<MediaSocketLimits> = { firstRetry: 10, lastRetry: 40, handshake: 200, unreachable: 240, told: 60 };

function dial(url: string, options: { ca?: string; allowInsecure?: boolean; limits?: Partial<MediaSocketLimits> } = {}) {
  const lines: string[] = [];
  const warnings: { code: string; message: string }[] = [];
  const sink = createMediaSocketSink({
    url,
    credential: 'secret-credential',
    attempt: 3,
    ca: options.ca ?? null,
    allowInsecure: options.allowInsecure ?? false,
    warn: (code, message) => warnings.push({ code, message }),
    log: createLog('debug', (line) => lines.push(line), { recording: 'rec_1' }),
    limits: { ...quick, ...options.limits },
  });
  closers.push(() => sink[Symbol.asyncDispose]());
  const events = () => lines.map((line) => JSON.parse(line) as Record<string, unknown> & { event: string });
  const error = () => sink.failed.catch((thrown: unknown) => thrown as TabreelError) as Promise<TabreelError>;
  return Object.assign(sink, { lines, warnings, events, error });
}

async function startIngest(options: Parameters<typeof openIngest>[0] = {}) {
  const ingest = await openIngest(options);
  closers.push(ingest.close);
  return ingest;
}

/** @returns its port */
async function listen(server: Server | HttpsServer, port = 0): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => sockets.add(socket.on('error', () => undefined)));
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}
const listenTcp = (serve: (socket: Socket) => void, port = 0) => listen(createServer(serve), port);
/** Answers an upgrade like any other request, as a server without a handler for upgrades does. */
const listenHttp = (answer: RequestListener) => listen(createHttpServer(answer));

const MEDIA = '/v1/recordings/rec_1/media';

/** Ends with this code, having named host, cause and remedy, and dialled more than once; and said so while it went on. */
async function expectCause(url: string, code: MediaCode, words: RegExp, options: Parameters<typeof dial>[1] = {}) {
  const sink = dial(url, options);
  const error = await sink.error();
  expect(error).toMatchObject({ code, message: expect.stringMatching(words) });
  expect(error.message).toContain(`nothing could be stored for 0.24 s: ${new URL(url).host}`);
  expect(error.message).toContain(mediaRemedies[code]);
  expect(error.kind.blame).toBe('service');
  expect(sink.warnings.map((warning) => warning.code)).toContain(code);
  expect(sink.warnings.find((warning) => warning.code === code)?.message).toMatch(words);
  expect(sink.counts().dials).toBeGreaterThan(1);
  expect(sink.counts().outcomes[code]).toBeGreaterThan(1);
  expect(sink.lines.join('\n')).not.toContain('secret-credential');
  return { sink, error };
}

// all of these end by the clock: a machine that is busy elsewhere gets another try
const patient = { retry: 2 };

describe('a media URL that can not be connected to', patient, () => {
  it('has a name that does not resolve', async () => {
    await expectCause(`wss://no-such-host.invalid${MEDIA}`, 'media_dns', /no-such-host\.invalid: (the name (does not resolve|could not be resolved)|its name was not resolved)/);
  });

  it('has a port where nothing listens', async () => {
    await expectCause(`wss://127.0.0.1:${await freePort()}${MEDIA}`, 'media_connection_refused', /nothing listens there \(ECONNREFUSED\)/);
  });

  it.each([
    ['wss', /connected, and nothing answered in TLS within 0\.1 s/],
    ['ws', /connected, and nothing answered the WebSocket upgrade within 0\.1 s/],
  ])('has a listener that never answers (%s)', async (scheme, words) => {
    await expectCause(`${scheme}://127.0.0.1:${await listenTcp(() => undefined)}${MEDIA}`, 'media_timeout', words, { limits: { handshake: 100 } });
  });
});

describe('a media URL that does not pass WebSockets on', patient, () => {
  it.each<[string, MediaCode, RegExp, RequestListener]>([
    ['a gateway whose upstream is down', 'media_http_status', /answered HTTP status 502\./, (_request, response) => response.writeHead(502).end('<html>')],
    ['an edge that is leaving', 'media_http_status', /HTTP status 503 \(dial again\)/, (_request, response) => response.writeHead(503, { 'content-type': 'application/problem+json' }).end('{"detail":"dial again"}')],
    ['a redirect', 'media_http_status', /HTTP status 301 \(to https:\/\/a\.example\/b\)/, (_request, response) => response.writeHead(301, { location: 'https://a.example/b?secret=1' }).end()],
    ['an ingress that does not know the host yet', 'media_http_status', /HTTP status 404/, (_request, response) => response.writeHead(404).end('default backend - 404')],
    ['a page', 'media_upgrade_cut', /the WebSocket upgrade with HTTP status 200/, (_request, response) => response.end('<html>')],
    ['an edge behind a proxy that drops the upgrade', 'media_upgrade_cut', /HTTP status 426 \(no Upgrade came\)/, (_request, response) => response.writeHead(426, { 'content-type': 'application/problem+json' }).end('{"detail":"no Upgrade came"}')],
  ])('is answered by %s', async (_name, code, words, answer) => {
    await expectCause(`ws://127.0.0.1:${await listenHttp(answer)}${MEDIA}`, code, words);
  });

  it.each([401, 403, 409, 410])('is refused at once with a %i, whoever says so', async (status) => {
    const sink = dial(`ws://127.0.0.1:${await listenHttp((_request, response) => response.writeHead(status).end('no'))}${MEDIA}`);
    expect(await sink.error()).toMatchObject({ code: 'media_refused', message: expect.stringContaining(`HTTP status ${status}`) });
    expect(sink.counts()).toMatchObject({ dials: 1, outcomes: { media_refused: 1 } });
  });

  it.each<[string, RegExp, (socket: Socket) => void]>([
    ['cut in the midst of the handshake', /closed before the WebSocket upgrade was answered \(ECONNRESET\)/, (socket) => socket.once('data', () => socket.destroy())],
    ['cut in the midst of the answer', /closed before the WebSocket upgrade was answered/, (socket) => socket.once('data', () => socket.end('HTTP/1.1 101 Swi'))],
    ['answered without the key', /is no good: Invalid Sec-WebSocket-Accept header/, (socket) => socket.once('data', () => socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'))],
    ['answered with 101 and no upgrade', /HTTP status 101/, (socket) => socket.once('data', () => socket.write('HTTP/1.1 101 Switching Protocols\r\n\r\n'))],
    ['answered by something else', /does not speak HTTP/, (socket) => socket.write('220 mail.example ESMTP\r\n')],
  ])('is %s', async (_name, words, serve) => {
    await expectCause(`ws://127.0.0.1:${await listenTcp(serve)}${MEDIA}`, 'media_upgrade_cut', words);
  });

  it('loses the subprotocol', async () => {
    const wss = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: () => false });
    await once(wss, 'listening');
    closers.push(() => wss.close());
    await expectCause(`ws://127.0.0.1:${(wss.address() as AddressInfo).port}${MEDIA}`, 'media_subprotocol', /Server sent no subprotocol/);
  });

  it('opens and sends no welcome', async () => {
    const ingest = await startIngest();
    ingest.welcomes = false;
    await expectCause(ingest.url, 'media_timeout', /the ingest sent no welcome within 0\.1 s/, { limits: { handshake: 100 } });
  });
});

if (!hasOpenssl) console.warn('Tests are skipped for want of openssl: apt-get install openssl');

describe.skipIf(!hasOpenssl)('a media URL over TLS', patient, () => {
  let authority: Authority;
  let good: { key: string; cert: string };
  beforeAll(async () => {
    authority = await createAuthority();
    good = await authority.issue(['127.0.0.1', 'localhost']);
  });
  afterAll(() => authority[Symbol.asyncDispose]());

  const urlOf = async (leaf: { key: string; cert: string }) => {
    const server = createHttpsServer(leaf, () => expect.fail('a request came over TLS that is not to be trusted'));
    return `wss://127.0.0.1:${await listen(server)}${MEDIA}`;
  };

  it("is taken with the operator's authority, also by name, and not without it", async () => {
    const ingest = await startIngest({ tls: good });
    for (const host of ['127.0.0.1', 'localhost']) {
      const trusted = dial(ingest.url.replace('127.0.0.1', host), { ca: authority.ca });
      trusted.push(segment(0));
      await ingest.stored(1);
      await trusted[Symbol.asyncDispose]();
    }
    const handshakes = ingest.handshakes.length;
    await expectCause(ingest.url, 'media_tls_authority', /the authority of its certificate is not trusted.* it is of "leaf", by "test authority"/);
    expect(ingest.handshakes.length).toBe(handshakes);
  });

  it('is not taken by the authority of somebody else', async () => {
    await using other = await createAuthority('Kubernetes Ingress Controller Fake Certificate');
    await expectCause(await urlOf(await other.issue(['127.0.0.1'])), 'media_tls_authority', /by "Kubernetes Ingress Controller Fake Certificate"/, { ca: authority.ca });
  });

  it('whose certificate has expired', async () => {
    await expectCause(await urlOf(await authority.issue(['127.0.0.1'], { expired: true })), 'media_tls_expired', /has expired \(CERT_HAS_EXPIRED\)/, { ca: authority.ca });
  });

  it('whose certificate is for another name', async () => {
    await expectCause(await urlOf(await authority.issue(['media.example'])), 'media_tls_name', /is for another name \(ERR_TLS_CERT_ALTNAME_INVALID\)/, { ca: authority.ca });
  });

  it.each<[string, RegExp, (socket: Socket) => void]>([
    ['is a port of plain http', /speaks no TLS, as a port of plain http \(EPROTO\)/, (socket) => socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))],
    ['is cut in the midst of the TLS handshake', /closed in the midst of the TLS handshake \(ECONNRESET\)/, (socket) => socket.once('data', () => socket.destroy())],
  ])('that %s', async (_name, words, serve) => {
    await expectCause(`wss://127.0.0.1:${await listenTcp(serve)}${MEDIA}`, 'media_tls', words, { ca: authority.ca });
  });

  it('that wants a certificate of the worker', async () => {
    const server = createHttpsServer({ ...good, requestCert: true, rejectUnauthorized: true });
    server.on('tlsClientError', () => undefined);
    await expectCause(`wss://127.0.0.1:${await listen(server)}${MEDIA}`, 'media_tls', /in the midst of the TLS handshake|CERTIFICATE_REQUIRED|TLS failed/i, { ca: authority.ca });
  });

  it('whose ingress starts with a certificate of its own making is dialled on, warned of, and then taken', async () => {
    await using other = await createAuthority('Kubernetes Ingress Controller Fake Certificate');
    const fake = await other.issue(['ingress.local']);
    const starting = createHttpsServer(fake);
    const port = await listen(starting);
    const sink = dial(`wss://127.0.0.1:${port}${MEDIA}`, { ca: authority.ca, limits: { unreachable: 5000 } });
    sink.push(segment(0));
    await expect.poll(() => sink.warnings).toHaveLength(1);
    starting.close();
    const ingest = await startIngest({ port, tls: good });
    await sink.finish(2_000_000);
    expect(ingest.headers.length).toBe(2);
    expect(sink.warnings).toEqual([{ code: 'media_tls_authority', message: expect.stringContaining('kept and dialled again, for 5 s at most') }]);
  });

  describe('where nobody speaks TLS', () => {
    it('ends with that where going without is not allowed, and no credential has left', async () => {
      const ingest = await startIngest();
      await expectCause(ingest.url.replace('ws:', 'wss:'), 'media_tls', /speaks no TLS/);
      expect(ingest.handshakes).toEqual([]);
    });

    it('goes without where that is allowed, once TLS has been tried for a while, and says so', async () => {
      const ingest = await startIngest();
      const sink = dial(ingest.url.replace('ws:', 'wss:'), { allowInsecure: true, limits: { unreachable: 5000 } });
      sink.push(segment(0));
      await sink.finish(2_000_000);
      expect(ingest.headers.length).toBe(2);
      const dials = sink.events().filter(({ event }) => event === 'media socket dials').map(({ tls }) => tls);
      expect(dials.length).toBeGreaterThan(2);
      expect(dials.indexOf(false)).toBe(dials.length - 1);
      expect(sink.warnings.map(({ code }) => code)).toContain('media_insecure');
      expect(sink.warnings.find(({ code }) => code === 'media_insecure')?.message).toMatch(/127\.0\.0\.1:\d+.*credential cross the network in the clear/);
    });

    it('takes TLS as soon as it is there, and never goes without again', async () => {
      const plain = await startIngest();
      const sink = dial(plain.url.replace('ws:', 'wss:'), { allowInsecure: true, ca: authority.ca, limits: { deliver: 1500 } });
      sink.push(segment(0));
      await plain.stored(1);
      await plain.close();
      const secure = await startIngest({ port: plain.port, tls: good });
      secure.headers.push(...plain.headers);
      sink.push(segment(1));
      await secure.stored(2);
      await secure.close();
      const again = await startIngest({ port: plain.port });
      sink.push(segment(2));
      await expect(sink.finish(6_000_000)).rejects.toMatchObject({ code: 'media_unreachable', message: expect.stringContaining('speaks no TLS') });
      expect(again.handshakes).toEqual([]);
    });

    it('is told as that, not as what answers beside it', async () => {
      const port = await listenHttp((_request, response) => response.writeHead(401).end());
      const { sink } = await expectCause(`wss://127.0.0.1:${port}${MEDIA}`, 'media_tls', /speaks no TLS/, { allowInsecure: true });
      expect((await sink.error()).message).toMatch(/; without TLS, 127\.0\.0\.1:\d+ answered HTTP status 401/);
    });
  });

  it('is never dialled without TLS because of its certificate', async () => {
    const { sink } = await expectCause(await urlOf(await authority.issue(['127.0.0.1'], { expired: true })), 'media_tls_expired', /expired/, { ca: authority.ca, allowInsecure: true });
    expect(sink.events().filter(({ event, tls }) => event === 'media socket dials' && tls === false)).toEqual([]);
    expect(sink.warnings.map(({ code }) => code)).toEqual(['media_tls_expired']);
  });
});

describe('the way without TLS', () => {
  const end = (cause: Partial<Parameters<ReturnType<typeof mediaWays>['ended']>[1]['cause']>, more = {}) => ({
    cause: { code: 'media_tls' as const, what: 'h', ...cause },
    refusal: null,
    opened: false,
    secured: false,
    ...more,
  });
  const allowed = { allowInsecure: true, after: 0 };

  it.each([
    ['wss://h.example/m', { code: 'media_connection_refused' as const }, 'ws://h.example/m'],
    ['wss://h.example:8443/m', { code: 'media_connection_refused' as const }, null],
    ['wss://h.example/m', { speaksNoTls: true }, 'ws://h.example:443/m'],
    ['wss://h.example:8443/m?a', { speaksNoTls: true }, 'ws://h.example:8443/m?a'],
    ['wss://[::1]:8443/m', { speaksNoTls: true }, 'ws://[::1]:8443/m'],
    ['wss://h.example/m', {}, null],
    ['wss://h.example/m', { code: 'media_timeout' as const }, null],
    ['wss://h.example/m', { code: 'media_tls_authority' as const }, null],
  ])('of %s after %j is %s', (url, cause, insecure) => {
    const ways = mediaWays(url, allowed);
    const first = ways.next();
    expect(first).toEqual({ url, insecure: false });
    ways.ended(first, end(cause));
    expect(ways.next()).toEqual({ url: insecure ?? url, insecure: insecure !== null });
  });

  it('is not taken without leave, nor after TLS has worked, nor twice in turn', () => {
    const cause = { speaksNoTls: true };
    const forbidden = mediaWays('wss://h/m', { allowInsecure: false, after: 0 });
    forbidden.ended(forbidden.next(), end(cause));
    expect(forbidden.next().insecure).toBe(false);

    const worked = mediaWays('wss://h/m', allowed);
    worked.ended(worked.next(), end({ code: 'media_http_status' }, { secured: true }));
    worked.ended(worked.next(), end(cause));
    expect(worked.next().insecure).toBe(false);

    const turns = mediaWays('wss://h/m', allowed);
    turns.ended(turns.next(), end(cause));
    const without = turns.next();
    turns.ended(without, end({}));
    expect([without.insecure, turns.next().insecure]).toEqual([true, false]);
  });
});

describe('what an operator is told meanwhile', patient, () => {
  it('is nothing where the trouble is over soon', async () => {
    const ingest = await startIngest();
    const sink = dial(ingest.url, { limits: { told: 2000 } });
    sink.push(segment(0));
    await ingest.stored(1);
    ingest.sockets[0]?.terminate();
    sink.push(segment(1));
    await sink.finish(4_000_000);
    expect(sink.warnings).toEqual([]);
  });

  it('is each cause once, and the recording is whole where it is mended in time', async () => {
    const port = await freePort();
    const sink = dial(`ws://127.0.0.1:${port}${MEDIA}`, { limits: { unreachable: 5000 } });
    sink.push(segment(0));
    await expect.poll(() => sink.warnings.length).toBe(1);
    const gateway = createHttpServer((_request, response) => response.writeHead(502).end());
    await listen(gateway, port);
    await expect.poll(() => sink.warnings.length).toBe(2);
    await sleep(100);
    gateway.close();
    gateway.closeAllConnections();
    const ingest = await startIngest({ port });
    await sink.finish(2_000_000);
    expect(ingest.headers.length).toBe(2);
    expect(sink.warnings.map(({ code }) => code)).toEqual(['media_connection_refused', 'media_http_status']);
    expect(sink.counts()).toMatchObject({ open: true, connections: 1, reconnects: 0, outcomes: { open: 1 } });
  });

  it('is one line for each event of a connection, by which a proxy that cuts it is found', async () => {
    const ingest = await startIngest();
    const sink = dial(ingest.url, { limits: { ping: 5000 } });
    sink.push(segment(0));
    await ingest.stored(1);
    await sleep(120);
    ingest.sockets[0]?.terminate();
    sink.push(segment(1));
    await sink.finish(4_000_000);
    await sink[Symbol.asyncDispose]();
    const all = sink.events();
    const of = (dialled: number) => all.filter(({ dial: number }) => number === dialled).map(({ event }) => event);
    expect(of(1).toSorted()).toEqual(['media socket dials', 'media socket is closed', 'media socket is open', 'media socket is welcome', 'media socket round trip']);
    expect(of(2)).toEqual(expect.arrayContaining(['media socket dials', 'media socket is open', 'media socket is back', 'media socket is closed']));
    for (const line of all.filter(({ event }) => event.startsWith('media socket'))) {
      expect(line).toMatchObject({ recording: 'rec_1', host: `127.0.0.1:${ingest.port}` });
    }
    const cut = all.find(({ event }) => event === 'media socket is closed');
    expect(cut).toMatchObject({ code: 1006, kind: 'media_unreachable', ackedParts: 1, sentBytes: expect.any(Number) });
    expect(cut?.['cause']).toMatch(/the connection was cut 0\.\d s after it was opened, silent for 0\.\d s/);
    expect(cut?.['lived']).toBeGreaterThanOrEqual(100);
    expect(cut?.['silent']).toBeGreaterThanOrEqual(80);
    expect(all.find(({ event }) => event === 'media socket is back')).toMatchObject({ reconnect: 1, away: expect.any(Number) });
    expect(sink.counts()).toMatchObject({ open: false, connections: 2, reconnects: 1, roundTrips: { count: 2 } });
    expect(sink.lines.join('\n')).not.toContain('secret-credential');
  });
});
