/** The edge on Node: HTTP, the media sockets and what they need, made from one config. */
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { randomBytes } from 'node:crypto';
import { RequestError, getRequestListener, type HttpBindings } from '@hono/node-server';
import { TabreelError } from '../shared/errors.ts';
import { warnOfEviction } from '../shared/eviction.ts';
import type { Log } from '../shared/log.ts';
import { networkIdentity } from '../shared/network-identity.ts';
import { patientRedis } from '../shared/queue.ts';
import { openKeys } from './access/key-file.ts';
import { createApp, createProbeApp, type AppDeps } from './app.ts';
import type { EdgeConfig } from './config.ts';
import { openConnections } from './connections.ts';
import { createDashboard } from './dashboard.ts';
import { createIngest } from './ingest/ingest.ts';
import { createLiveParts } from './ingest/live.ts';
import { handleUpgrades } from './ingest/upgrade.ts';
import { createMetrics } from './metrics.ts';
import type { HeaderLine, RequestFacts } from './origin/facts.ts';
import { warnOfAnyHost } from './origin/policy.ts';
import { listenForProbes, type Probes } from './probes.ts';
import { problemResponse, toTabreelError } from './problem.ts';
import { redisTroubleLog } from '../shared/redis-trouble.ts';
import { openStorage } from './storage/open.ts';
import type { Storage } from './storage/storage.ts';
import { createWatch } from './watch.ts';

type EdgeOptions = { storage?: Storage; onReload?: (listener: () => void) => void; requestLimits?: typeof requestLimits };

/**
 * For a request to come in, in milliseconds: Node's own are five minutes, in which a few thousand slow callers hold all there is. Proxies
 * send a request when they have it whole, and bodies are small.
 */
const requestLimits = { headersTimeout: 15_000, requestTimeout: 30_000, connectionsCheckingInterval: 5000 };

/** Milliseconds that requests have to end when the process leaves. */
const DRAIN_MS = 5000;

export type Edge = AsyncDisposable & {
  /** `http://127.0.0.1:8080`, where it listens. */
  readonly url: string;
  /** Of the listener for probes; null where there is none. */
  readonly healthPort: number | null;
};

/**
 * Listens once it resolves. Redis may be away: requests then answer 503 until it is there.
 *
 * @param config from readEdgeConfig, or made by hand
 * @param options.storage instead of what config names
 * @param options.requestLimits where its own are not to be waited for
 * @param options.onReload hears whoever wants the file of API keys read again at once
 * @returns closed with `await using` or its Symbol.asyncDispose: ends streams and sockets, then the server
 * @throws {ConfigError} where the file of API keys can't be read, or is wrong
 * @throws {Error} where it can't listen (EADDRINUSE, EACCES)
 */
export async function startEdge(config: EdgeConfig, log: Log, options: EdgeOptions = {}): Promise<Edge> {
  const keys = await openKeys(config.apiKeys ?? null, log, options.onReload);
  const tokenSecrets = config.tokenSecrets ?? [randomBytes(32).toString('hex')];
  if (config.tokenSecrets === null) {
    log.warn('TOKEN_SECRET is not set: links and queued jobs of this process end with it');
  }
  if (config.secretsKeys === null) log.warn("SECRETS_KEY is not set: workers' credentials for recordings lie in Redis in the clear, and nothing is taken in confidence");
  warnOfAnyHost(config, log);
  const redisTrouble = redisTroubleLog(log);
  const { close: closeConnections, ...connections } = openConnections(config, redisTrouble);
  const { store, recordQueue, finishQueue, ping } = connections;
  const subscriber = patientRedis(config, redisTrouble);
  void warnOfEviction(subscriber, log);
  const watch = createWatch(subscriber, store.channel);

  const storage = options.storage ?? (await openStorage(config));
  const live = createLiveParts(storage);
  const closing = new AbortController();
  const loopDelay = monitorEventLoopDelay({ resolution: 20 });
  loopDelay.enable();
  const metrics = createMetrics({
    openSockets: () => ingest.openSockets(),
    eventLoopDelay() {
      const seconds = Math.max(0, loopDelay.percentile(99) / 1e9 - 0.02);
      loopDelay.reset();
      return seconds;
    },
  });
  const ingest = createIngest({ log, store, storage, live, watch, tokenSecrets, onStored: metrics.stored, onOpened: metrics.opened, onClosed: metrics.closed });

  const deps: AppDeps = {
    ...connections,
    config: { ...config, tokenSecrets },
    log,
    keys,
    media: { storage, live, watch, end: ingest.end },
    metrics,
    factsOf: (c) => factsOf((c.env as HttpBindings).incoming),
    networkIdentity: networkIdentity(),
    closing: closing.signal,
    dashboard: createDashboard([recordQueue, finishQueue], ping, keys !== null),
    now: Date.now,
  };
  const app = createApp(deps);

  const listener = getRequestListener(app.fetch, { errorHandler });
  const server = createServer(options.requestLimits ?? requestLimits, (incoming, outgoing) => {
    // the framework answers 400 to a host that it can't make a URL of, before anything could say why; rawHeaders keep what was sent
    incoming.headers.host = 'host.invalid';
    void listener(incoming, outgoing);
  });
  const upgrades = handleUpgrades(server, ingest, log);
  let probes: Probes | null = null;
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(config.port, config.host.replace(/^\[|\]$/g, ''), resolve);
    });
    if (typeof config.healthPort === 'number') probes = await listenForProbes(config.healthPort, createProbeApp(deps).fetch, log);
  } catch (error) {
    server.close();
    await disconnect();
    throw error;
  }
  const { address, port, family } = server.address() as AddressInfo;
  const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
  log.info('edge listens', { url });

  let closed: Promise<void> | null = null;
  async function close() {
    closing.abort();
    const ended = new Promise((resolve) => server.close(resolve));
    upgrades.refuse();
    await ingest.close();
    // a connection whose answer ends now is kept alive for the next request, which is not wanted any more
    const idle = setInterval(() => server.closeIdleConnections(), 50);
    const force = setTimeout(() => {
      upgrades.close();
      server.closeAllConnections();
    }, DRAIN_MS);
    await ended;
    clearInterval(idle);
    clearTimeout(force);
    await probes?.[Symbol.asyncDispose]();
    await disconnect();
    log.info('edge closed');
  }
  async function disconnect() {
    loopDelay.disable();
    await closeConnections();
    subscriber.disconnect();
    keys?.close();
  }
  return {
    url,
    healthPort: probes === null ? null : (probes as Probes).port,
    async [Symbol.asyncDispose]() {
      closed ??= close();
      await closed;
    },
  };
}

/** For what the framework can't make a request of: a target that is no URL. */
const errorHandler = (error: unknown): Response =>
  problemResponse(
    error instanceof RequestError ? new TabreelError('invalid_request', `the request line is not valid: ${error.message}`) : toTabreelError(error),
  );

/** From the message itself: the framework's own URL may be the client's invention. */
function factsOf({ socket, rawHeaders, url }: IncomingMessage): RequestFacts {
  const headers: HeaderLine[] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) headers.push([rawHeaders[i] ?? '', rawHeaders[i + 1] ?? '']);
  return {
    peer: { address: socket.remoteAddress ?? null, encrypted: 'encrypted' in socket && socket.encrypted === true },
    headers,
    target: url ?? null,
    platform: null,
  };
}
