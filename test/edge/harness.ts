/** An edge and its helpers on loopback, and a worker that only pretends. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import type { EdgeConfig } from '../../edge/config.ts';
import { parseTrust } from '../../edge/origin/trust.ts';
import { startEdge } from '../../edge/server.ts';
import { startFinaliser } from '../../edge/finishing.ts';
import type { Storage } from '../../edge/storage/storage.ts';
import { createCommandStore } from '../../shared/commands.ts';
import { newFinishJob } from '../../shared/job.ts';
import { createLog, type Log } from '../../shared/log.ts';
import { ATTEMPT_HEADER, MEDIA_SUBPROTOCOL, encodePart, ingestMessage, type IngestMessage } from '../../shared/media-protocol.ts';
import { createFinishQueue, createRecordQueue, failFastRedis, finishJobOptions, type RedisAddress } from '../../shared/queue.ts';
import { networkIdentity } from '../../shared/network-identity.ts';
import { PRESENCE_BEAT_MS, createPresence } from '../../shared/presence.ts';
import { createRecordingStore } from '../../shared/recording-store.ts';
import { recording, type Recording } from '../../shared/recording.ts';
import { unseal } from '../../shared/token.ts';
import { keySetting, operator } from '../helpers/keys.ts';
import type { CmafPart } from './cmaf.ts';

export type TestEdge = AsyncDisposable & {
  url: string;
  directory: string;
  config: EdgeConfig;
  logs: string[];
  log: Log;
  /** JSON from a path, with its status. */
  api(path: string, init?: RequestInit): Promise<{ status: number; body: any; headers: Headers }>;
  post(body: unknown, headers?: Record<string, string>): Promise<{ status: number; body: any; headers: Headers }>;
  create(body?: Record<string, unknown>): Promise<Recording>;
  get(id: string): Promise<Recording>;
  /** What a worker's parent process does with the record and the queues. */
  control: ReturnType<typeof controlOf>;
  finaliser(): Promise<AsyncDisposable>;
};

export type TestEdgeOptions = {
  storage?: Storage;
  /** Whether the worker that these tests play says that it is on this machine, as a real one does; default true. */
  workerPresent?: boolean;
  requestLimits?: { headersTimeout: number; requestTimeout: number; connectionsCheckingInterval: number };
  /** Whether there is an API key, which `api` and `post` send; then requests may come by a proxy, or say so. */
  keyed?: boolean;
};

/** Where Redis is: a URL, or with whom a test asks it for what a fleet may not. */
type Server = string | (RedisAddress & { admin?: RedisAddress });

export async function testEdge(server: Server, overrides: Partial<EdgeConfig> = {}, options: TestEdgeOptions = {}): Promise<TestEdge> {
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-edge-'));
  const config: EdgeConfig = {
    ...addressOf(server),
    queuePrefix: `tabreel-${crypto.randomUUID().slice(0, 8)}`,
    host: '127.0.0.1',
    port: 0,
    publicUrl: null,
    mediaUrl: null,
    trust: parseTrust(['loopback', 'private']),
    allowedHosts: null,
    wsScheme: 'auto',
    allowInsecureWs: false,
    tokenSecrets: ['test-token-secret-0123456789'],
    secretsKeys: null,
    storageUrl: pathToFileURL(directory).href,
    maxDuration: 14_400,
    webrtc: 'proxied',
    // receivers are here
    outboundAllow: ['127.0.0.0/8', '::1'],
    ...(options.keyed === true ? { apiKeys: keySetting(operator) } : {}),
    ...overrides,
  };
  const logs: string[] = [];
  const log = createLog('debug', (line) => logs.push(line));
  const edge = await startEdge(config, log, options);
  const control = controlOf(config, typeof server === 'string' ? config : (server.admin ?? config));
  const presence = options.workerPresent === false ? null : await control.announce();
  const api: TestEdge['api'] = async (path, init = {}) => {
    const headers = new Headers(init.headers);
    if (options.keyed === true && !headers.has('authorization')) headers.set('authorization', operator.headers.authorization);
    const response = await fetch(path.startsWith('http') ? path : `${edge.url}${path}`, { ...init, headers });
    const text = await response.text();
    const body: unknown = /json/.test(response.headers.get('content-type') ?? '') ? JSON.parse(text) : text;
    return { status: response.status, body, headers: response.headers };
  };
  const post: TestEdge['post'] = (body, headers = {}) =>
    api('/v1/recordings', { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers } });
  return {
    url: edge.url,
    directory,
    config,
    logs,
    log,
    api,
    post,
    control,
    async create(body = {}) {
      const { status, body: answer } = await post({ url: 'https://example.com/page?key=1', ...body });
      if (status !== 202) throw new Error(`create answered ${status}: ${JSON.stringify(answer)}`);
      return recording.parse(answer);
    },
    async get(id) {
      return recording.parse((await api(`/v1/recordings/${id}`)).body);
    },
    finaliser: () => startFinaliser(config, log, options),
    async [Symbol.asyncDispose]() {
      clearInterval(presence ?? undefined);
      await edge[Symbol.asyncDispose]();
      await control.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

const addressOf = (server: Server): RedisAddress =>
  typeof server === 'string' ? { redisUrl: server } : { redisUrl: server.redisUrl, redisTls: server.redisTls };

function controlOf(config: EdgeConfig, admin: RedisAddress) {
  const redis = failFastRedis(config, () => undefined);
  const byHand = failFastRedis(admin, () => undefined);
  const store = createRecordingStore(redis, config.queuePrefix);
  const recordQueue = createRecordQueue(redis, config.queuePrefix, () => undefined);
  const finishQueue = createFinishQueue(redis, config.queuePrefix, () => undefined);
  return {
    /** For what no part of the service does. */
    redis: byHand,
    admin,
    commands: createCommandStore(redis, config.queuePrefix),
    store,
    recordQueue,
    finishQueue,
    /** starting, then recording. @returns the attempt */
    async run(id: string): Promise<number> {
      const { attempt } = (await store.claim(id)) ?? {};
      if (attempt === undefined) throw new Error('the recording is not to be run');
      await store.change(id, { from: ['starting'], to: 'recording', attempt, engine: 'tab', startedAt: Date.now() });
      return attempt;
    },
    /** What a worker's heartbeat says. @returns the beat, to be cleared */
    async announce(): Promise<NodeJS.Timeout> {
      const presence = createPresence(redis, config.queuePrefix);
      const beat = () => presence.beat(networkIdentity(), 'the test').catch(() => undefined);
      // some tests have no Redis yet
      await Promise.race([beat(), sleep(300)]);
      return setInterval(() => void beat(), PRESENCE_BEAT_MS);
    },
    async finish(id: string): Promise<void> {
      await store.change(id, { from: ['starting', 'recording', 'paused'], to: 'finishing' });
      await finishQueue.add('finish', newFinishJob(id, 'finish'), finishJobOptions(id, 'finish'));
    },
    async credential(id: string): Promise<string> {
      const { credential = '', sealed = null } = (await store.get(id))?.job ?? {};
      if (sealed === null) return credential;
      return ((await unseal(config.secretsKeys ?? [], id, sealed)) as { credential: string }).credential;
    },
    async close() {
      await Promise.allSettled([recordQueue.close(), finishQueue.close()]);
      redis.disconnect();
      byHand.disconnect();
    },
  };
}

export type FakeWorker = {
  messages: IngestMessage[];
  send(...parts: CmafPart[]): void;
  sendRaw(data: string | Uint8Array): void;
  /** Resolves at the ack of this part. */
  acked(seq: number): Promise<void>;
  welcome: Promise<number>;
  closed: Promise<{ code: number; reason: string }>;
  close(): void;
  ws: WebSocket;
};

export async function dial(
  edge: TestEdge,
  { id, mediaUrl }: Pick<Recording, 'id' | 'mediaUrl'>,
  attempt: number,
  headers: Record<string, string> = {},
): Promise<FakeWorker> {
  const ws = new WebSocket(mediaUrl, MEDIA_SUBPROTOCOL, {
    headers: { authorization: `Bearer ${await edge.control.credential(id)}`, [ATTEMPT_HEADER]: String(attempt), ...headers },
    perMessageDeflate: false,
  });
  ws.setMaxListeners(0);
  const messages: IngestMessage[] = [];
  const waiters = new Set<() => void>();
  ws.on('message', (data) => {
    messages.push(ingestMessage.parse(JSON.parse(String(data))));
    for (const waiter of waiters) waiter();
  });
  const closed = new Promise<{ code: number; reason: string }>((resolve) => ws.on('close', (code, reason) => resolve({ code, reason: String(reason) })));
  const until = async (found: () => boolean) => {
    while (!found()) {
      if (ws.readyState === ws.CLOSED) throw new Error('the media socket is closed');
      await new Promise<void>((resolve) => {
        waiters.add(resolve);
        ws.once('close', () => resolve());
      });
      waiters.clear();
    }
  };
  await new Promise<void>((resolve, reject) => {
    ws.on('open', resolve);
    ws.on('unexpected-response', (_request, response) => reject(new Error(`refused: ${response.statusCode}`)));
    ws.on('error', reject);
  });
  const isAck = (seq: number) => () => messages.some((message) => message.type === 'ack' && message.seq >= seq);
  const welcome = until(() => messages.length > 0).then(() => {
    const first = messages[0];
    return first?.type === 'welcome' ? first.acked : -1;
  });
  welcome.catch(() => undefined);
  return {
    ws,
    messages,
    send: (...parts) => parts.forEach((part) => ws.send(Buffer.concat(encodePart(part)))),
    sendRaw: (data) => ws.send(data),
    acked: (seq) => until(isAck(seq)),
    welcome,
    closed,
    close: () => ws.close(),
  };
}

/** Polls until the check holds. */
export async function eventually<T>(probe: () => Promise<T>, holds: (value: T) => boolean, timeout = 25_000): Promise<T> {
  const until = Date.now() + timeout;
  for (;;) {
    const value = await probe();
    if (holds(value)) return value;
    if (Date.now() > until) throw new Error(`it did not come to pass; last: ${JSON.stringify(value)}`);
    await sleep(30);
  }
}
