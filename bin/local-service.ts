/** The whole service on one's own machine: Redis, edge, finaliser and a worker, with the keys that they need. */
import { randomBytes } from 'node:crypto';
import { readEdgeConfig } from '../edge/config.ts';
import { startFinaliser } from '../edge/finishing.ts';
import { doctorPaths } from '../edge/doctor-page.ts';
import { startEdge } from '../edge/server.ts';
import type { Environment } from '../shared/config.ts';
import type { Log } from '../shared/log.ts';
import { LOCAL_ALLOW } from '../shared/outbound/policy.ts';
import { readRedisTls } from '../shared/redis-tls.ts';
import { readMachine, SHM_PER_SLOT } from '../worker/capacity.ts';
import { readWorkerConfig } from '../worker/config.ts';
import { startWorker, type RunningWorker } from '../worker/worker.ts';
import { localRedis } from './local-redis.ts';

export type LocalService = AsyncDisposable & {
  /** Where the API listens. */
  url: string;
  worker: RunningWorker;
};

export type LocalServiceOptions = {
  environment: Environment;
  /** Whether this runs as root, which browsers refuse to have a sandbox for. */
  root: boolean;
  /** Bytes: `process.constrainedMemory()`. */
  memoryLimit: number;
  /** Where files go if STORAGE_URL doesn't say. */
  storageUrl: string;
  /** Whether a page that can't be had is tried again, as a service does. */
  patient: boolean;
  log: Log;
  /** Takes a line for whoever sits there. */
  say(line: string): void;
};

/** @throws {ConfigError} {TabreelError} with a message that stands by itself. */
export async function startLocalService(options: LocalServiceOptions): Promise<LocalService> {
  const { log, say } = options;
  await using stack = new AsyncDisposableStack();
  const redis = stack.use(await localRedis(options.environment['REDIS_URL']));
  if (redis.notice !== null) say(redis.notice);
  if (options.root && options.environment['CHROMIUM_SANDBOX'] === undefined) {
    say('Running as root: the browser runs without its sandbox. Record only pages that you trust, or run as an ordinary user.');
  }
  const machine = await readMachine(options.memoryLimit);
  const roomy = machine.shm === null || machine.shm >= SHM_PER_SLOT * Number(options.environment['SLOTS'] || 1);
  if (!roomy) log.warn('/dev/shm is small: browsers use the temporary directory', { bytes: machine.shm });
  const environment: Environment = {
    ...(roomy ? {} : { SHM: 'disk' }),
    ...(options.root ? { CHROMIUM_SANDBOX: 'off' } : {}),
    TOKEN_SECRET: randomBytes(32).toString('hex'),
    SECRETS_KEY: randomBytes(32).toString('hex'),
    // who sits here sees at once whether it works
    SELF_TEST: 'false',
    // and records what is at hand: this machine, its networks
    OUTBOUND_ALLOW: LOCAL_ALLOW,
    ...options.environment,
    REDIS_URL: redis.url,
  };
  // HEALTH_PORT is the worker's: one process has one port for it
  const edgeConfig = { ...readEdgeConfig(environment, options.storageUrl), ...(await readRedisTls(environment)), healthPort: null };
  const workerConfig = await readWorkerConfig(environment, machine);
  const edge = stack.use(await startEdge(edgeConfig, log.with({ process: 'edge' })));
  stack.use(await startFinaliser(edgeConfig, log.with({ process: 'finaliser' })));
  const worker = stack.use(await startWorker(workerConfig, log.with({ process: 'worker' }), {
    handOver: false,
    patient: options.patient,
    ownPorts: [{ host: null, port: Number(new URL(edge.url).port), pages: doctorPaths }],
  }));
  const all = stack.move();
  return { url: edge.url, worker, [Symbol.asyncDispose]: () => all[Symbol.asyncDispose]() };
}

const engineWords = {
  tab: 'captures the tab, picture and sound',
  self: "lets the page's tab capture itself; a page's sound is heard but for cross-origin media without CORS and cross-origin frames",
  screencast: 'takes single pictures, without sound',
} as const;

/** One line: what browser records, how, and what it can't hear. */
export function describeBrowser({ browser }: RunningWorker): string {
  const [engine = 'screencast'] = browser.engines;
  const name = browser.kind === 'chrome' ? 'Chromium' : 'Chromium headless shell';
  return `${name} ${browser.version}, engine ${engine}: ${engineWords[engine]}.`;
}
