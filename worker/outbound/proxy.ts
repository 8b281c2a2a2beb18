/**
 * The loopback forward proxy of one recording: the only way out that its browser has. CONNECT tunnels, and absolute-form
 * requests for plain http and ws. It has no password, since Chromium can't be given one by flag: whoever runs as another
 * process on this machine can use it, and reaches no more than the page does.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request as httpRequest, STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http';
import { BlockList, isIPv6, type AddressInfo, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Log } from '../../shared/log.ts';
import { createJudge, type Denial, type Judge } from '../../shared/outbound/policy.ts';
import { defaultDialTimes, dial, DialError, type DialTimes, type Target } from './dial.ts';
import { absoluteTarget, authorityTarget, forwardable } from './request.ts';
import { tunnel } from './tunnel.ts';

/** Answers that the proxy itself gives instead of the target's carry the cause's code in this header; no target's answer does. */
export const PROXY_ERROR_HEADER = 'x-tabreel-error';

const MAX_CONNECTIONS = 512;
/** Failures that are remembered, the oldest forgotten first. */
const MAX_FAILURES = 256;
const MAX_HEADER_BYTES = 256 * 1024; // what Chromium takes
/** A connection on which nothing moves at all; meetings keep quiet sockets open for hours. */
const IDLE_MS = 4 * 60 * 60 * 1000;

// the empty icon keeps the browser from asking for /favicon.ico, which isn't to be had
const defaultPage =
  '<!doctype html><html lang="en"><meta charset="utf-8"><title>Tabreel</title><link rel="icon" href="data:,"><body></body></html>';

export type ProxyOptions = {
  log: Log;
  /** HTML of the page at `controllerUrl`. */
  controllerPage?: string;
  /** Asked before each dial; by default only what is public may be dialled. */
  judge?: Judge;
  /** A target was denied. */
  denied?: (target: Target, denial: Denial) => void;
  times?: Partial<DialTimes>;
};

export type ProxyCounts = {
  /** Tunnels and requests that reached their target, failed to, or were denied. */
  connections: number;
  failed: number;
  denied: number;
  /** Connections to targets open now. */
  open: number;
  bytesIn: number;
  bytesOut: number;
};

export type OutboundProxy = AsyncDisposable & {
  port: number;
  /** For `--proxy-server`. */
  url: string;
  /** Secret: answers the controller page, a secure context. Nothing else of the proxy can be fetched. */
  controllerUrl: string;
  /** Why the last dial of each `host:port` failed (see `failureKey`); a dial that works forgets it. */
  failures: ReadonlyMap<string, string>;
  counts(): ProxyCounts;
};

/** The key of `failures` for a URL: lower-case host and port, an IPv6 address in brackets. */
export function failureKey(url: string): string {
  const { protocol, hostname, port } = new URL(url);
  return `${hostname}:${port || (protocol === 'https:' || protocol === 'wss:' ? '443' : '80')}`;
}

/** Listens once it resolves. Disposing cuts every connection at once. */
export async function startProxy(options: ProxyOptions): Promise<OutboundProxy> {
  const { log } = options;
  const judge = options.judge ?? onlyPublic;
  const times = { ...defaultDialTimes, ...options.times };
  const controllerPath = `/${randomBytes(24).toString('base64url')}`;
  const page = Buffer.from(options.controllerPage ?? defaultPage);

  const failures = new Map<string, string>();
  const counts = { connections: 0, failed: 0, denied: 0, bytesIn: 0, bytesOut: 0 };
  const upstreams = new Set<Socket>();
  const clients = new Set<Socket>();
  let port = 0;

  const judgeAll: Judge = async (target) => {
    if (target.port === port && target.addresses.some(isThisMachine)) return { class: 'own', reason: 'a port of this service' };
    return judge(target);
  };

  /** @throws {DialError}, having counted and noted it. */
  const dialNoted = async (target: Target, client: Duplex): Promise<Socket> => {
    const key = `${target.host.toLowerCase()}:${target.port}`;
    const gone = new AbortController();
    const onClose = () => gone.abort(new DialError('ECANCELED', 'the browser hung up'));
    client.once('close', onClose);
    try {
      const upstream = await dial(target, judgeAll, gone.signal, times);
      if (gone.signal.aborted) {
        upstream.destroy();
        throw gone.signal.reason as Error;
      }
      failures.delete(key);
      counts.connections += 1;
      upstreams.add(upstream);
      upstream.setTimeout(IDLE_MS, () => upstream.destroy());
      upstream.once('close', () => {
        upstreams.delete(upstream);
        counts.bytesIn += upstream.bytesRead;
        counts.bytesOut += upstream.bytesWritten;
      });
      upstream.on('error', () => {}); // whoever uses the socket sees it close
      return upstream;
    } catch (error) {
      const failure = error instanceof DialError ? error : new DialError('EPROXY', String(error));
      if (failure.code === 'ECANCELED') throw failure;
      counts[failure.code === 'DENIED' ? 'denied' : 'failed'] += 1;
      if (failure.denial !== null) options.denied?.(target, failure.denial);
      failures.delete(key); // so that it becomes the youngest
      failures.set(key, failure.code);
      if (failures.size > MAX_FAILURES) failures.delete(failures.keys().next().value as string);
      log.debug('outbound failed', { target: key, code: failure.code, reason: failure.message });
      throw failure;
    } finally {
      client.removeListener('close', onClose);
    }
  };

  const server = createServer({
    maxHeaderSize: MAX_HEADER_BYTES,
    keepAliveTimeout: 75_000,
    headersTimeout: 60_000,
    requestTimeout: 0, // an upload may take its time
    // only WebSockets change protocols; an offer of h2c is ignored, as HTTP lets us
    shouldUpgradeCallback: (request) => request.headers.upgrade?.toLowerCase() === 'websocket',
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.on('drop', () => log.warn('outbound connection dropped', { limit: MAX_CONNECTIONS }));
  server.on('connection', (socket) => {
    clients.add(socket);
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.once('close', () => clients.delete(socket));
    socket.on('error', () => {});
  });
  server.on('clientError', (_error, socket) => void socket.destroy());

  server.on('connect', (request, client, head) => {
    const target = authorityTarget(request.url ?? '');
    if (target === null) return answerRaw(client, 400, 'EBADTARGET', 'not a host and port');
    dialNoted(target, client).then(
      (upstream) => {
        client.write('HTTP/1.1 200 Connection Established\r\n\r\n');
        if (head.length > 0) upstream.write(head);
        tunnel(client, upstream);
      },
      (error: DialError) => answerRaw(client, statusOf(error), error.code, error.message),
    );
  });

  server.on('upgrade', (request, client, head) => {
    const asked = absoluteTarget(request.url ?? '');
    if (asked === null) return answerRaw(client, 400, 'EBADTARGET', 'this is a proxy: it takes absolute http URLs');
    dialNoted(asked.target, client).then(
      (upstream) => {
        const headers = forwardable(request.rawHeaders, asked.host);
        headers.push('Connection', 'Upgrade', 'Upgrade', 'websocket');
        upstream.write(`GET ${asked.path} HTTP/1.1\r\n${headerLines(headers)}\r\n`, 'latin1');
        if (head.length > 0) upstream.write(head);
        // whatever the target answers goes back as it is, a refusal too
        tunnel(client, upstream);
      },
      (error: DialError) => answerRaw(client, statusOf(error), error.code, error.message),
    );
  });

  server.on('request', (request, response) => {
    const own = request.url === controllerPath || request.url === `http://127.0.0.1:${port}${controllerPath}`;
    if (own) return answerPage(response, page);
    const asked = absoluteTarget(request.url ?? '');
    if (asked === null) return answer(response, 400, 'EBADTARGET', 'this is a proxy: it takes absolute http URLs');
    dialNoted({ ...asked.target, path: request.method === 'GET' ? asked.path : undefined }, request.socket).then(
      (upstream) => forward(request, response, upstream, asked),
      (error: DialError) => answer(response, statusOf(error), error.code, error.message),
    );
  });

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  port = (server.address() as AddressInfo).port;

  return {
    port,
    url: `http://127.0.0.1:${port}`,
    controllerUrl: `http://127.0.0.1:${port}${controllerPath}`,
    failures,
    counts() {
      let { bytesIn, bytesOut } = counts;
      for (const socket of upstreams) {
        bytesIn += socket.bytesRead;
        bytesOut += socket.bytesWritten;
      }
      return { ...counts, bytesIn, bytesOut, open: upstreams.size };
    },
    async [Symbol.asyncDispose]() {
      if (!server.listening) return;
      const closed = once(server, 'close');
      server.close();
      for (const socket of [...clients, ...upstreams]) socket.destroy();
      await closed;
    },
  };
}

/** One request over a connection of its own: which of a server's connections the browser reuses is its own affair. */
function forward(request: IncomingMessage, response: ServerResponse, upstream: Socket, asked: { path: string; host: string }): void {
  const headers = forwardable(request.rawHeaders, asked.host);
  headers.push('Connection', 'close');
  if (request.headers['transfer-encoding'] !== undefined) headers.push('Transfer-Encoding', 'chunked');
  const outgoing = httpRequest({
    createConnection: () => upstream,
    method: request.method ?? 'GET',
    path: asked.path,
    headers,
    setDefaultHeaders: false,
    maxHeaderSize: MAX_HEADER_BYTES,
  });
  const fail = (code: string, message: string) => {
    outgoing.destroy();
    if (response.headersSent) response.destroy();
    else answer(response, 502, code, message);
  };
  outgoing.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? 'ECONNRESET', error.message));
  outgoing.on('response', (incoming) => {
    try {
      response.sendDate = false;
      response.writeHead(incoming.statusCode ?? 502, incoming.statusMessage, forwardable(incoming.rawHeaders, null, PROXY_ERROR_HEADER));
    } catch (error) {
      return fail('EBADRESPONSE', (error as Error).message);
    }
    incoming.pipe(response);
    // an answer that was cut off must not look like a whole one
    incoming.on('error', () => response.destroy());
  });
  response.on('close', () => outgoing.destroy());
  request.pipe(outgoing);
}

const statusOf = (error: DialError): number => (error.code === 'DENIED' ? 403 : error.code === 'ETIMEDOUT' ? 504 : 502);

function answer(response: ServerResponse, status: number, code: string, message: string): void {
  if (response.destroyed) return;
  const body = `${code}: ${message}\n`;
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'content-length': Buffer.byteLength(body), [PROXY_ERROR_HEADER]: code });
  response.end(body);
}

/** Where Node has handed over the bare socket. */
function answerRaw(client: Duplex, status: number, code: string, message: string): void {
  if (client.destroyed) return;
  const body = `${code}: ${message}\n`;
  const headers = ['Content-Type', 'text/plain; charset=utf-8', 'Content-Length', String(Buffer.byteLength(body)), PROXY_ERROR_HEADER, code, 'Connection', 'close'];
  client.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${headerLines(headers)}\r\n${body}`);
}

function answerPage(response: ServerResponse, page: Buffer): void {
  response.writeHead(200, {
    'content-type': 'text/html; charset=utf-8',
    'content-length': page.length,
    'cache-control': 'no-store',
    'x-frame-options': 'DENY',
    'cross-origin-resource-policy': 'same-origin',
  });
  response.end(page);
}

const headerLines = (headers: readonly string[]): string => headers.map((text, i) => (i % 2 === 0 ? `${text}: ` : `${text}\r\n`)).join('');

const onlyPublic = createJudge({ allow: [], own: [] }, { resolve: async () => [], localAddresses: () => [] });

// connecting to an unspecified address reaches the machine itself
const thisMachine = new BlockList();
thisMachine.addSubnet('127.0.0.0', 8);
thisMachine.addSubnet('0.0.0.0', 8);
thisMachine.addAddress('::1', 'ipv6');
thisMachine.addAddress('::', 'ipv6');
// BlockList judges mapped addresses (::ffff:127.0.0.1) by the IPv4 inside
const isThisMachine = (address: string): boolean => thisMachine.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
