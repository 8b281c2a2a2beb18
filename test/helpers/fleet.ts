/**
 * The service as a deployment runs it: each part a process of its own, on loopback, that can be killed at any moment and is
 * started again as an orchestrator would.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Redis } from 'ioredis';
import { freePort } from '../../bin/local-redis.ts';
import type { Manifest } from '../../edge/finish/manifest.ts';
import type { Environment } from '../../shared/config.ts';
import { LOCAL_ALLOW } from '../../shared/outbound/policy.ts';
import { createFinishQueue, createRecordQueue, failFastRedis } from '../../shared/queue.ts';
import { createRecordingStore, type RecordingStore } from '../../shared/recording-store.ts';
import { isEnd, type CaptureEngineName, type Recording, type RecordingState } from '../../shared/recording.ts';
import { inherited } from './environment.ts';
import { startFaultyProxy, type FaultyProxy } from './faulty-proxy.ts';
import { guard } from './guard.ts';
import { below, commandOf, processTable, signal, variableOf, withEnvironment, type RunningProcess } from './processes.ts';
import { tapParts, type PartsTap } from './parts-tap.ts';

export type UnitKind = 'redis' | 'edge' | 'finaliser' | 'worker';
/** `recorder`: a worker's process of one recording; `browser`: its Chromium's main process; `renderer`: that of a tab. */
export type KillKind = UnitKind | 'recorder' | 'browser' | 'renderer';

export type FleetOptions = {
  /** How many of each; 1 by default. Several edges get a way in before them, as `proxied`. */
  workers?: number;
  edges?: number;
  /** Recordings at once in each worker; default 1. */
  slots?: number;
  /** CAPTURE_ENGINE; by default the shell's, which comes with the packages. */
  engine?: CaptureEngineName;
  /** Callers and workers come through a proxy that can cut, stall and delay. */
  proxied?: boolean;
  /** Where files go; a temporary directory by default, which goes with the fleet. */
  storage?: string;
  /** Where acknowledged parts are kept, on the same file system as the storage. */
  tap?: string;
  /** Milliseconds until what has died is started again; default 1000. */
  restartAfter?: number;
  /** Further settings of edge, finaliser and worker. */
  environment?: Environment;
  /** Chooses between several processes of a kind: 0 to 1. */
  random?: () => number;
};

export type Killed = { kind: KillKind; name: string; pid: number; /** Milliseconds since the epoch. */ at: number };

/** What should not be there once all recordings are over. */
export type Leftovers = {
  /** Command lines. */
  processes: string[];
  /** Names below the temporary directory of the processes. */
  files: string[];
  /** BullMQ's jobs that are not over, `queue state: number`. */
  jobs: string[];
  /** Objects of ended recordings beside their files and parts, of canceled ones any, and of unknown ones. */
  objects: string[];
};

/** A worker that came later, as an autoscaler brings it. */
export type AddedWorker = {
  readonly name: string;
  /** It takes recordings. */
  serves(): boolean;
  /** SIGTERM, once it serves or before: it drains. @returns its exit code, once it is gone; null where a signal ended it */
  leave(): Promise<number | null>;
};

export type Fleet = AsyncDisposable & {
  readonly url: string;
  readonly storage: string;
  readonly redisUrl: string;
  /** The way in; null where the edge is reached directly. */
  readonly proxy: FaultyProxy | null;
  readonly tap: PartsTap;
  /** Of the fleet's own connection to Redis, which fails fast while it is away. */
  readonly store: RecordingStore;
  /** What each process wrote, oldest first: `name|line`. */
  readonly lines: readonly string[];
  /**
   * Sends a signal to one process of a kind, where there are several to one that is at work.
   * @returns null where there is none just now
   */
  kill(kind: KillKind, options?: { signal?: NodeJS.Signals; stayDown?: boolean }): Killed | null;
  /** Starts what was killed to stay down; resolves once all of a kind serve. */
  up(kind: UnitKind): Promise<void>;
  /** Starts one more worker. */
  addWorker(): AddedWorker;
  /** Answers as they come, whatever their status; while nobody answers, again until the patience is over. */
  api<T>(path: string, init?: RequestInit, patience?: number): Promise<{ status: number; body: T }>;
  /** Asks with an Idempotency-Key until it is answered. @throws where the answer is no 2xx */
  create(body: Record<string, unknown>, patience?: number): Promise<Recording>;
  get(id: string): Promise<Recording>;
  stop(id: string): Promise<Recording>;
  /** @throws {Error} where it ends otherwise, or does not come to it in time */
  waitFor(id: string, states: RecordingState | readonly RecordingState[], milliseconds?: number): Promise<Recording>;
  /** Fetches the finished file. @returns its path; it goes with the fleet */
  download(id: string): Promise<string>;
  manifest(id: string): Promise<Manifest>;
  leftovers(): Promise<Leftovers>;
  /** The same, once nothing is left over any more, or the time is over. */
  settled(milliseconds?: number): Promise<Leftovers>;
  /** How many keys Redis holds, ids and numbers in them as *. */
  redisKeys(): Promise<Record<string, number>>;
};

type Unit = { kind: UnitKind; name: string; start(): Promise<void>; child: ChildProcess | null; wanted: boolean; serves: boolean; ready: Promise<void> };

const entry = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
/** Until a process serves; a worker first measures its sound. */
const READY_MS = 60_000;
const LINES_KEPT = 50_000;
export const QUEUE_PREFIX = 'tabreel';

export async function startFleet(options: FleetOptions = {}): Promise<Fleet> {
  const random = options.random ?? Math.random;
  await using stack = new AsyncDisposableStack();
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-fleet-'));
  const temporary = join(directory, 't');
  const storage = options.storage ?? join(directory, 'storage');
  mkdirSync(temporary);
  mkdirSync(join(directory, 'redis'));
  stack.defer(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }));
  // a test run that is killed leaves nothing behind either; the directory's name is in the environment of all that runs
  // but for Redis, which writes over it
  const killAll = 'for p in $(cat "$1/redis/pid") $(grep -als "$1" /proc/[0-9]*/environ | cut -d/ -f3); do [ "$p" = $$ ] || kill -9 "$p"; done; rm -rf "$1"';
  stack.defer(guard(killAll, directory));
  const tap = stack.use(tapParts(storage, options.tap ?? join(directory, 'tap')));

  const ports = { redis: await freePort(), edges: [] as number[] };
  for (let i = 0; i < (options.edges ?? 1); i += 1) ports.edges.push(await freePort());
  const redisUrl = `redis://127.0.0.1:${ports.redis}`;
  const shared: Environment = {
    ...inherited,
    TMPDIR: temporary,
    TABREEL_FLEET: directory,
    TOKEN_SECRET: 'fleet-test-token-secret',
    SECRETS_KEY: 'fleet-test-secrets-key',
    LOG_LEVEL: process.env['LOG_LEVEL'] ?? 'info',
    REDIS_URL: redisUrl,
    QUEUE_PREFIX,
    STORAGE_URL: pathToFileURL(storage).href,
    SLOTS: String(options.slots ?? 1),
    SELF_TEST: 'false',
    // what else runs here is not to tell
    ADMISSION: 'slots',
    CAPTURE_ENGINE: options.engine ?? 'self',
    CHROMIUM_SANDBOX: process.getuid?.() === 0 ? 'off' : 'on',
    // the pages are here
    OUTBOUND_ALLOW: LOCAL_ALLOW,
    ...options.environment,
  };

  const lines: string[] = [];
  let closing = false;
  const note = (name: string, text: string) => {
    if (lines.length < LINES_KEPT) lines.push(`${name}|${text}`);
  };
  const units: Unit[] = [];
  const addUnit = (kind: UnitKind, name: string, command: readonly [string, ...string[]], extra: Environment, isReady: (said: () => string) => Promise<boolean>) => {
    const unit: Unit = {
      kind,
      name,
      child: null,
      wanted: true,
      serves: false,
      ready: Promise.resolve(),
      start() {
        unit.wanted = true;
        unit.serves = false;
        unit.ready = launch();
        // whoever needs it waits for it; a start that fails is tried again
        unit.ready.catch(() => undefined);
        return unit.ready;
      },
    };
    const launch = async () => {
      const child = spawn(command[0], command.slice(1), { env: { ...shared, ...extra } as NodeJS.ProcessEnv, cwd: directory, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
      unit.child = child;
      let said = '';
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on('line', (line) => {
          said = `${said}\n${line}`.slice(-20_000);
          note(name, line);
        });
      }
      note(name, `{"fleet":"started","pid":${child.pid}}`);
      child.once('exit', (code, why) => {
        note(name, `{"fleet":"ended","pid":${child.pid},"code":${code},"signal":"${why}","at":${Date.now()}}`);
        if (unit.child === child) {
          unit.child = null;
          unit.serves = false;
        }
        if (!closing && unit.wanted) setTimeout(() => !closing && unit.wanted && void unit.start(), options.restartAfter ?? 1000);
      });
      const began = performance.now();
      while (unit.child === child && performance.now() - began < READY_MS) {
        if (await isReady(() => said)) {
          unit.serves = unit.child === child;
          return;
        }
        await sleep(50);
      }
      if (unit.child === child) throw new Error(`${name} does not serve: ${said.slice(-2000)}`);
    };
    units.push(unit);
    return unit;
  };

  const redisAt = (port: number) => answersPing(port);
  addUnit(
    'redis',
    'redis',
    ['redis-server', '--port', String(ports.redis), '--bind', '127.0.0.1', '--dir', join(directory, 'redis'), '--pidfile', join(directory, 'redis/pid'), '--save', '', '--appendonly', 'yes', '--appendfsync', 'everysec'],
    {},
    () => redisAt(ports.redis),
  );
  const healthy = (port: number) => fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(1000) }).then(({ ok }) => ok, () => false);
  const edges = ports.edges.map((port, i) =>
    addUnit('edge', `edge-${i + 1}`, [process.execPath, entry('edge/node.ts')], { PORT: String(port) }, () => healthy(port)),
  );
  const saying = (text: string) => async (said: () => string) => said().includes(text);
  addUnit('finaliser', 'finaliser', [process.execPath, entry('edge/finaliser.ts')], {}, saying('finaliser runs'));
  let workers = 0;
  const newWorker = () => addUnit('worker', `worker-${(workers += 1)}`, [process.execPath, entry('worker/main.ts')], {}, saying('worker runs'));
  for (let i = 0; i < (options.workers ?? 1); i += 1) newWorker();

  let turn = 0;
  const proxy =
    options.proxied === true || edges.length > 1
      ? stack.use(
          await startFaultyProxy(() => {
            const serving = edges.flatMap(({ child }, i) => (child === null ? [] : [ports.edges[i] as number]));
            turn += 1;
            return serving[turn % serving.length] ?? (ports.edges[0] as number);
          }),
        )
      : null;
  const url = `http://127.0.0.1:${proxy?.port ?? ports.edges[0]}`;

  /** All that was ever started, also what has lost its parents since. */
  const seen = new Map<string, RunningProcess>();
  const look = () => {
    const table = processTable();
    for (const { child } of units) {
      if (child?.pid === undefined) continue;
      for (const found of [table.get(child.pid), ...below(table, child.pid)]) if (found) seen.set(`${found.pid} ${found.started}`, found);
    }
    return table;
  };
  const looking = setInterval(look, 400);
  const ours = (table: ReadonlyMap<number, RunningProcess>): RunningProcess[] => {
    const marked = withEnvironment(table, directory);
    const known = [...table.values()].filter(({ pid, started }) => seen.has(`${pid} ${started}`));
    return [...new Map([...marked, ...known].map((found) => [found.pid, found])).values()].filter(({ dead, pid }) => !dead && pid !== process.pid);
  };
  stack.defer(async () => {
    closing = true;
    clearInterval(looking);
    for (let left = ours(look()), tries = 0; left.length > 0 && tries < 50; left = ours(processTable()), tries += 1) {
      for (const { pid } of left) signal(pid, 'SIGKILL');
      await sleep(100);
    }
    const logs = process.env['FLEET_LOGS'];
    if (logs !== undefined) writeFileSync(join(logs, `fleet-${Date.now()}.log`), `${lines.join('\n')}\n`);
  });

  for (const unit of units) void unit.start();
  await Promise.all(units.map(({ ready }) => ready));

  const redis = failFastRedis(redisUrl, () => undefined);
  stack.defer(() => redis.disconnect());
  // closing connections says good-bye to a Redis that may not be there
  stack.defer(async () => {
    await Promise.race([Promise.allSettled(Object.values(queues).map((queue) => queue.close())), sleep(1000, undefined, { ref: false })]);
  });
  const store = createRecordingStore(redis, QUEUE_PREFIX);
  const queues = { record: createRecordQueue(redis, QUEUE_PREFIX, () => undefined), finish: createFinishQueue(redis, QUEUE_PREFIX, () => undefined) };

  const targetsOf = (kind: KillKind): { name: string; pid: number }[] => {
    const table = look();
    const running = units.filter(({ child }) => child?.pid !== undefined);
    const own = (wanted: UnitKind) => running.filter((unit) => unit.kind === wanted).map(({ name, child, serves }) => ({ name, pid: child?.pid as number, serves }));
    const under = (root: number, test: (command: string) => boolean) => below(table, root).filter(({ pid, dead }) => !dead && test(commandOf(pid)));
    const recorders = own('worker').flatMap(({ name, pid, serves }) =>
      // a worker that starts has a browser too, to measure its sound
      (serves ? under : () => [])(pid, (command) => command.includes('recording-process')).map((found) => ({ name: `${name}'s recorder`, pid: found.pid, browsers: under(found.pid, isBrowser) })),
    );
    const active = recorders.filter(({ browsers }) => browsers.length > 0);
    switch (kind) {
      case 'recorder':
        return active;
      case 'browser':
        return active.map(({ name, browsers }) => ({ name: `${name}'s browser`, pid: browsers[0]?.pid as number }));
      case 'renderer':
        return active.flatMap(({ name, browsers }) =>
          browsers.flatMap((browser) => under(browser.pid, (command) => command.includes('--type=renderer')).map(({ pid }) => ({ name: `${name}'s renderer`, pid }))),
        );
      case 'worker': {
        const busy = own('worker').filter(({ name }) => active.some((recorder) => recorder.name.startsWith(`${name}'`)));
        return busy.length > 0 ? busy : own('worker');
      }
      default:
        return own(kind);
    }
  };

  const api: Fleet['api'] = async <T>(path: string, init: RequestInit = {}, patience = 20_000) => {
    const until = performance.now() + patience;
    for (;;) {
      try {
        const response = await fetch(path.startsWith('http') ? path : `${url}${path}`, { ...init, signal: AbortSignal.timeout(5000) });
        const text = await response.text();
        if (response.status !== 503 || performance.now() > until) return { status: response.status, body: (text === '' ? null : JSON.parse(text)) as T };
      } catch (error) {
        if (performance.now() > until) throw error;
      }
      await sleep(100);
    }
  };
  const good = async (path: string, init?: RequestInit, patience?: number): Promise<Recording> => {
    const { status, body } = await api<Recording>(path, init, patience);
    if (status >= 300) throw new Error(`${init?.method ?? 'GET'} ${path} answered ${status}: ${JSON.stringify(body)}`);
    return body;
  };
  const get = (id: string) => good(`/v1/recordings/${id}`);

  const leftovers = async (): Promise<Leftovers> => {
    const table = look();
    const parents = new Map(units.flatMap((unit) => (unit.child?.pid === undefined ? [] : [[unit.child.pid, unit] as const])));
    const idle = new Set(
      [...table.values()]
        .filter(({ pid, parent }) => parents.get(parent)?.kind === 'worker' && commandOf(pid).includes('recording-process') && below(table, pid).length === 0)
        .map(({ pid }) => pid),
    );
    const processes = ours(table)
      .filter(({ pid }) => !parents.has(pid) && !idle.has(pid))
      .map(({ pid }) => commandOf(pid).slice(0, 160));
    const idleDirectories = new Set([...idle].map((pid) => variableOf(pid, 'TMPDIR')));
    const files = readdirSync(temporary).filter((name) => !idleDirectories.has(join(temporary, name)));
    const jobs: string[] = [];
    for (const [name, queue] of Object.entries(queues)) {
      const counts = await queue.getJobCounts('active', 'waiting', 'prioritized', 'delayed', 'failed');
      // parts are swept some minutes after their file was made
      const sweeps = (await queue.getDelayed()).filter((job) => job.name === 'sweep').length;
      counts['delayed'] = (counts['delayed'] ?? 0) - sweeps;
      for (const [state, count] of Object.entries(counts)) if (count > 0) jobs.push(`${name} ${state}: ${count}`);
    }
    const objects: string[] = [];
    for (const path of readdirSync(storage, { recursive: true, encoding: 'utf8', withFileTypes: true })) {
      if (!path.isFile()) continue;
      const key = join(path.parentPath, path.name).slice(storage.length + 1);
      const record = await store.get(key.split('/')[0] as string);
      const regular = /^[^/]+\/(recording\.mp4|thumbnail\.jpg|manifest\.json|sealed|parts\/a[^/]+)$/.test(key);
      // what may come too late for a recording is kept off for as long as it is known
      const left = record?.state === 'canceled' && !key.endsWith('/sealed');
      if (!regular || record === null || left) objects.push(`${key} (${record?.state ?? 'unknown'})`);
    }
    return { processes, files, jobs, objects };
  };

  const all = stack.move();
  return {
    url,
    storage,
    redisUrl,
    proxy,
    tap,
    store,
    lines,
    kill(kind, { signal: name = 'SIGKILL', stayDown = false } = {}) {
      const targets = targetsOf(kind);
      const target = targets[Math.floor(random() * targets.length)];
      if (target === undefined) return null;
      const unit = units.find(({ child }) => child?.pid === target.pid);
      if (unit !== undefined && stayDown) unit.wanted = false;
      const at = Date.now();
      if (!signal(target.pid, name)) return null;
      note(target.name, `{"fleet":"${name}","pid":${target.pid},"at":${at}}`);
      return { kind, name: target.name, pid: target.pid, at };
    },
    async up(kind) {
      const until = performance.now() + READY_MS;
      for (;;) {
        const mine = units.filter((unit) => unit.kind === kind);
        for (const unit of mine) if (!unit.wanted) void unit.start();
        await Promise.all(mine.map(({ ready }) => ready));
        if (mine.every(({ child }) => child !== null)) return;
        if (performance.now() > until) throw new Error(`no ${kind} comes up`);
        await sleep(50);
      }
    },
    addWorker() {
      const unit = newWorker();
      void unit.start();
      const { name, child } = unit;
      return {
        name,
        serves: () => unit.serves,
        async leave() {
          unit.wanted = false;
          if (child === null || child.exitCode !== null || child.signalCode !== null) return child?.exitCode ?? null;
          const exited = once(child, 'exit');
          signal(child.pid as number, 'SIGTERM');
          const [code] = (await exited) as [number | null];
          return code;
        },
      };
    },
    api,
    create(body, patience) {
      const headers = { 'content-type': 'application/json', 'idempotency-key': crypto.randomUUID() };
      return good('/v1/recordings', { method: 'POST', body: JSON.stringify(body), headers }, patience);
    },
    get,
    stop: (id) => good(`/v1/recordings/${id}/stop`, { method: 'POST' }),
    async waitFor(id, states, milliseconds = 30_000) {
      const wanted = [states].flat();
      const until = performance.now() + milliseconds;
      for (;;) {
        const recording = await get(id);
        if (wanted.includes(recording.state)) return recording;
        if (isEnd(recording.state)) throw new Error(`${id} is ${recording.state}, not ${wanted.join(' or ')}: ${JSON.stringify(recording.error)}`);
        if (performance.now() > until) throw new Error(`${id} did not become ${wanted.join(' or ')} in ${milliseconds} ms: it is ${recording.state}`);
        await sleep(100);
      }
    },
    async download(id) {
      const { links } = await get(id);
      const response = await fetch(links.file);
      if (!response.ok) throw new Error(`${links.file} answered ${response.status}: ${await response.text()}`);
      const path = join(directory, `${id}.mp4`);
      await writeFile(path, await response.bytes());
      return path;
    },
    manifest: async (id) => (await api<Manifest>(`/v1/recordings/${id}/manifest.json`)).body,
    leftovers,
    async settled(milliseconds = 15_000) {
      const until = performance.now() + milliseconds;
      for (;;) {
        const found = await leftovers();
        if (Object.values(found).every(({ length }) => length === 0) || performance.now() > until) return found;
        await sleep(250);
      }
    },
    async redisKeys() {
      const counts: Record<string, number> = {};
      const client = new Redis(redisUrl);
      try {
        for await (const keys of client.scanStream({ count: 1000 }) as AsyncIterable<string[]>) {
          for (const key of keys) {
            const pattern = key.replaceAll(/rec_[0-9a-z]{26}/g, '*').replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32,}/g, '*').replaceAll(/\*-\d+/g, '*-*');
            counts[pattern] = (counts[pattern] ?? 0) + 1;
          }
        }
      } finally {
        client.disconnect();
      }
      return counts;
    },
    [Symbol.asyncDispose]: () => all[Symbol.asyncDispose](),
  };
}

/** Chromium's main process: the others have a --type. */
const isBrowser = (command: string): boolean => command.includes('--user-data-dir=') && !command.includes('--type=');

async function answersPing(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  socket.setTimeout(500, () => socket.destroy());
  try {
    await once(socket, 'connect');
    socket.write('PING\r\n');
    const [data] = (await once(socket, 'data')) as [Buffer];
    return data.toString().startsWith('+PONG');
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
