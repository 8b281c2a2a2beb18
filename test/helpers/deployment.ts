/** The processes of the service on loopback, one of each or several edges, with a Redis that has a password: as they are deployed, with settings that can be changed. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { freePort } from '../../bin/local-redis.ts';
import type { Recording, RecordingState } from '../../shared/recording.ts';
import { runProcess, type RunningProcess } from '../proxies/proxy.ts';
import { inherited } from './environment.ts';
import { startFaultyProxy } from './faulty-proxy.ts';
import type { TestKey } from './keys.ts';

export type Deployment = AsyncDisposable & {
  /** The way in: one edge, or a proxy before several. */
  url: string;
  redisUrl: string;
  directory: string;
  /** Those that run now. `edge` is the first. */
  readonly edges: readonly (RunningProcess & { url: string })[];
  readonly edge: RunningProcess;
  readonly finaliser: RunningProcess;
  readonly worker: RunningProcess;
  redis: RunningProcess;
  /** Where the way in leads, from the next connection on: to one of several edges. */
  lead(edge: number): void;
  /** Cuts all connections that came by a proxy. */
  cut(): void;
  /** Each is ended as an orchestrator does, and another is there in its place, with these settings beside its own. */
  replaceEdge(environment: Record<string, string>, edge?: number): Promise<void>;
  replaceFinaliser(environment: Record<string, string>): Promise<void>;
  /** A new worker is there, then the old one is told to leave: it takes no more, and what it records goes on. @returns the old one */
  replaceWorker(environment: Record<string, string>): Promise<RunningProcess>;
  /** What the API answers to a key. */
  call(path: string, key: TestKey, init?: { method?: string; body?: object; headers?: Record<string, string> }): Promise<{ status: number; text: string; headers: Headers }>;
  /** @returns the recording, once it is in that state */
  until(id: string, state: RecordingState, key: TestKey): Promise<Recording>;
};

export type DeploymentOptions = {
  redisPassword: string;
  /** 1 by default; more have a proxy before them. */
  edges?: number;
  /** Of all of them. */
  environment: Record<string, string>;
  /** Of the edges and the finaliser alone: what no worker is told. */
  storing?: Record<string, string>;
  /** Whether there are a finaliser and a worker too; default true. */
  whole?: boolean;
};

const absent = (part: string): never => {
  throw new Error(`this deployment has no ${part}`);
};
const root = fileURLToPath(new URL('../..', import.meta.url));

export async function startDeployment({ redisPassword, edges: count = 1, environment: given, storing = {}, whole = true }: DeploymentOptions): Promise<Deployment> {
  await using stack = new AsyncDisposableStack();
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-deployment-'));
  stack.defer(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }));
  const temporary = join(directory, 't');
  mkdirSync(temporary);
  let owner = stack;
  const redisPort = await freePort();
  const edgePorts: number[] = [];
  for (let i = 0; i < count; i += 1) edgePorts.push(await freePort());
  let lead = 0;
  const edges: (RunningProcess & { url: string })[] = [];
  const proxy = count === 1 ? null : stack.use(await startFaultyProxy(() => (edges[lead]?.child.exitCode === null ? edgePorts[lead] : edgePorts[(lead + 1) % count]) as number));
  const redisUrl = `redis://:${redisPassword}@127.0.0.1:${redisPort}`;
  const environment = {
    ...inherited,
    HOME: directory,
    TMPDIR: temporary,
    REDIS_URL: redisUrl,
    HOST: '127.0.0.1',
    LOG_LEVEL: 'debug',
    SELF_TEST: 'false',
    ADMISSION: 'slots',
    CAPTURE_ENGINE: 'self',
    CHROMIUM_SANDBOX: process.getuid?.() === 0 ? 'off' : 'on',
    // pages, push servers and receivers of webhooks are here
    OUTBOUND_ALLOW: '127.0.0.1',
    ...given,
  };
  const ofEdges = { STORAGE_URL: pathToFileURL(join(directory, 'storage')).href, ...storing };
  const healthy = (port: number) => fetch(`http://127.0.0.1:${port}/healthz`).then(({ ok }) => ok, () => false);
  const start = async (command: readonly [string, ...string[]], ready: string | (() => Promise<boolean>), more: Record<string, string> = {}): Promise<RunningProcess> => {
    const running = owner.use(runProcess(command, { cwd: root, environment: { ...environment, ...more } }));
    const isReady = async () => (typeof ready === 'string' ? running.output().includes(ready) : ready());
    for (const until = Date.now() + 90_000; !(await isReady()); await sleep(20)) {
      if (running.child.exitCode !== null || Date.now() > until) throw new Error(`it never became ready:\n${running.output().slice(-4000)}`);
    }
    return running;
  };
  const startEdge = async (i: number, more: Record<string, string> = {}) => {
    const port = edgePorts[i] as number;
    edges[i] = { ...(await start([process.execPath, 'edge/node.ts'], () => healthy(port), { ...ofEdges, PORT: String(port), ...more })), url: `http://127.0.0.1:${port}` };
  };
  const startFinaliser = (more: Record<string, string> = {}) => start([process.execPath, 'edge/finaliser.ts'], '"finaliser runs"', { ...ofEdges, ...more });
  const startWorker = (more: Record<string, string> = {}) => start([process.execPath, 'worker/main.ts'], '"worker runs"', more);
  const redis = await start(['redis-server', '--bind', '127.0.0.1', '--port', String(redisPort), '--requirepass', redisPassword, '--save', '', '--dir', directory], 'Ready to accept connections');
  let [finaliser, worker] = await Promise.all([whole ? startFinaliser() : null, whole ? startWorker() : null, ...edgePorts.map((_, i) => startEdge(i))]);

  const url = `http://127.0.0.1:${proxy?.port ?? edgePorts[0]}`;
  const call: Deployment['call'] = async (path, key, { method = 'GET', body, headers = {} } = {}) => {
    const json = body === undefined ? {} : { 'content-type': 'application/json' };
    const response = await fetch(new URL(path, url), {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      // each goes where a proxy leads now, and none meets a connection that is just being closed as idle
      headers: { ...json, ...headers, ...key.headers, connection: 'close' },
    });
    return { status: response.status, text: await response.text(), headers: response.headers };
  };
  owner = stack.move();
  return {
    url,
    redisUrl,
    directory,
    edges,
    get edge() {
      return edges[0] as RunningProcess;
    },
    get finaliser() {
      return finaliser ?? absent('finaliser');
    },
    get worker() {
      return worker ?? absent('worker');
    },
    redis,
    lead: (edge) => void (lead = edge),
    cut: () => void proxy?.cut(),
    async replaceEdge(more, i = 0) {
      await edges[i]?.[Symbol.asyncDispose]();
      await startEdge(i, more);
    },
    async replaceFinaliser(more) {
      await finaliser?.[Symbol.asyncDispose]();
      finaliser = await startFinaliser(more);
    },
    async replaceWorker(more) {
      const old = worker ?? absent('worker');
      worker = await startWorker(more);
      old.child.kill('SIGTERM');
      return old;
    },
    call,
    async until(id, state, key) {
      for (const end = Date.now() + 60_000; ; await sleep(200)) {
        const found = JSON.parse((await call(`/v1/recordings/${id}`, key)).text) as Recording;
        if (found.state === state) return found;
        if (Date.now() > end) throw new Error(`${id} is ${found.state}, not ${state}: ${JSON.stringify(found.error)}`);
      }
    },
    [Symbol.asyncDispose]: () => owner[Symbol.asyncDispose](),
  };
}
