/** One of each process of the service, on loopback, with a Redis that has a password: as they are deployed, with settings that can be changed. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { freePort } from '../../bin/local-redis.ts';
import type { Recording, RecordingState } from '../../shared/recording.ts';
import { runProcess, type RunningProcess } from '../proxies/proxy.ts';
import { inherited } from './environment.ts';
import type { TestKey } from './keys.ts';

export type Deployment = AsyncDisposable & {
  url: string;
  redisUrl: string;
  directory: string;
  edge: RunningProcess;
  finaliser: RunningProcess;
  worker: RunningProcess;
  /** The edge is ended as an orchestrator does, and another is there in its place, with these settings beside its own. */
  replaceEdge(environment: Record<string, string>): Promise<void>;
  /** What the API answers to a key. */
  call(path: string, key: TestKey, init?: { method?: string; body?: object; headers?: Record<string, string> }): Promise<{ status: number; text: string; headers: Headers }>;
  /** @returns the recording, once it is in that state */
  until(id: string, state: RecordingState, key: TestKey): Promise<Recording>;
};

export type DeploymentOptions = {
  redisPassword: string;
  /** Of all of them. */
  environment: Record<string, string>;
  /** Of the worker alone. */
  worker?: Record<string, string>;
  /** By default all. */
  parts?: readonly ('edge' | 'finaliser' | 'worker')[];
};

const absent = (part: string): never => {
  throw new Error(`this deployment has no ${part}`);
};
const root = fileURLToPath(new URL('../..', import.meta.url));

export async function startDeployment({ redisPassword, environment: given, worker: ofWorker = {}, parts = ['edge', 'finaliser', 'worker'] }: DeploymentOptions): Promise<Deployment> {
  await using stack = new AsyncDisposableStack();
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-deployment-'));
  stack.defer(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }));
  let owner = stack;
  const redisPort = await freePort();
  const edgePort = await freePort();
  const redisUrl = `redis://:${redisPassword}@127.0.0.1:${redisPort}`;
  const environment = {
    ...inherited,
    HOME: directory,
    TMPDIR: directory,
    REDIS_URL: redisUrl,
    HOST: '127.0.0.1',
    PORT: String(edgePort),
    STORAGE_URL: pathToFileURL(join(directory, 'storage')).href,
    LOG_LEVEL: 'debug',
    SELF_TEST: 'false',
    ADMISSION: 'slots',
    CAPTURE_ENGINE: 'self',
    CHROMIUM_SANDBOX: process.getuid?.() === 0 ? 'off' : 'on',
    // pages, push servers and receivers of webhooks are here
    OUTBOUND_ALLOW: '127.0.0.1',
    ...given,
  };
  const start = (command: readonly [string, ...string[]], more: Record<string, string> = {}): RunningProcess => owner.use(runProcess(command, { cwd: root, environment: { ...environment, ...more } }));
  const says = async (running: RunningProcess, text: string): Promise<void> => {
    for (const until = Date.now() + 90_000; !running.output().includes(text); await sleep(20)) {
      if (running.child.exitCode !== null || Date.now() > until) throw new Error(`it never said ${text}:\n${running.output().slice(-4000)}`);
    }
  };
  const startEdge = async (more: Record<string, string>): Promise<RunningProcess> => {
    const edge = start([process.execPath, 'edge/node.ts'], more);
    while (!(await fetch(`http://127.0.0.1:${edgePort}/healthz`).then(({ ok }) => ok, () => false))) {
      if (edge.child.exitCode !== null) throw new Error(`the edge ended:\n${edge.output().slice(-4000)}`);
      await sleep(50);
    }
    return edge;
  };
  await says(start(['redis-server', '--bind', '127.0.0.1', '--port', String(redisPort), '--requirepass', redisPassword, '--save', '', '--dir', directory]), 'Ready to accept connections');
  const finaliser = parts.includes('finaliser') ? start([process.execPath, 'edge/finaliser.ts']) : null;
  const worker = parts.includes('worker') ? start([process.execPath, 'worker/main.ts'], ofWorker) : null;
  let edge = await startEdge({});
  await Promise.all([finaliser && says(finaliser, '"finaliser runs"'), worker && says(worker, '"worker runs"')]);

  const url = `http://127.0.0.1:${edgePort}`;
  const call: Deployment['call'] = async (path, key, { method = 'GET', body, headers = {} } = {}) => {
    const json = body === undefined ? {} : { 'content-type': 'application/json' };
    const response = await fetch(new URL(path, url), { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }), headers: { ...json, ...headers, ...key.headers } });
    return { status: response.status, text: await response.text(), headers: response.headers };
  };
  owner = stack.move();
  return {
    url,
    redisUrl,
    directory,
    get finaliser() {
      return finaliser ?? absent('finaliser');
    },
    get worker() {
      return worker ?? absent('worker');
    },
    get edge() {
      return edge;
    },
    async replaceEdge(more) {
      await edge[Symbol.asyncDispose]();
      edge = await startEdge(more);
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
