/** The whole service on loopback, with real parts only, and what a caller does with it over HTTP. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { readEvents, type ServerEvent } from '../../bin/events.ts';
import { readEdgeConfig } from '../../edge/config.ts';
import type { Manifest } from '../../edge/finish/manifest.ts';
import { startFinaliser } from '../../edge/finishing.ts';
import { startEdge } from '../../edge/server.ts';
import type { Environment } from '../../shared/config.ts';
import { LOCAL_ALLOW } from '../../shared/outbound/policy.ts';
import { createLog } from '../../shared/log.ts';
import { isEnd, type CaptureEngineName, type Recording, type RecordingState } from '../../shared/recording.ts';
import { findBrowser } from '../../worker/browser/find.ts';
import { readRedisTls } from '../../shared/redis-tls.ts';
import { readWorkerConfig } from '../../worker/config.ts';
import type { MediaSocketLimits } from '../../worker/sink/media-socket.ts';
import { startWorker, type RunningWorker } from '../../worker/worker.ts';
import { hasFfmpeg } from './analyse.ts';
import { hasOpenssl } from './certificates.ts';
import { inherited } from './environment.ts';
import { operator } from './keys.ts';
import { hasRedisServer, startRedis, type TestRedis } from './redis.ts';
import { hasS3Server } from './s3-server.ts';

export type ServiceOptions = {
  /** CAPTURE_ENGINE; by default the shell's, which comes with the packages. */
  engine?: CaptureEngineName;
  /** Recordings at once; default 1. */
  slots?: number;
  /** Measure the engine's sound before the first recording, which takes some seconds; default false. */
  calibrate?: boolean;
  /** Where files go; a temporary directory by default, which goes with the service. */
  storage?: string;
  /** Instead of one that is made for this service and ends with it. */
  redis?: TestRedis;
  /** Bounds and times of the worker's media sockets, where their own are not to be waited for. */
  mediaLimits?: Partial<MediaSocketLimits>;
  /** Further settings. Where a proxy stands before the edge: `...operatorEnvironment` (keys.ts), whose key this service's own calls then send. */
  environment?: Environment;
};

export type Answer<T> = { status: number; body: T; headers: Headers };

/** What the API answers to what it refuses. */
export type Problem = { code: string; detail: string; errors?: { path: string; message: string }[] };

export type Service = AsyncDisposable & {
  url: string;
  worker: RunningWorker;
  /** Directory that files go to. */
  storage: string;
  /** What edge, finaliser and worker logged, oldest first. */
  lines: readonly string[];
  /** JSON from a path or URL, whatever its status. */
  api<T = Problem>(path: string, init?: RequestInit): Promise<Answer<T>>;
  /** @throws where the answer is no 2xx */
  create(body: Record<string, unknown>, headers?: Record<string, string>): Promise<Recording>;
  get(id: string): Promise<Recording>;
  stop(id: string): Promise<Recording>;
  /** The recording's events from its beginning, as they come, until it is over. */
  events(id: string, signal?: AbortSignal): AsyncGenerator<ServerEvent>;
  /**
   * The recording, once it has come to one of these states.
   * @throws {Error} naming the error where it ends otherwise, or doesn't come to it in time
   */
  waitFor(id: string, states: RecordingState | readonly RecordingState[], milliseconds?: number): Promise<Recording>;
  /** Creates it, waits until it is completed, and fetches its file. */
  record(body: Record<string, unknown>): Promise<Recording & { path: string }>;
  /** Fetches the finished file. @returns its path; it goes with the service */
  download(recording: Recording): Promise<string>;
  manifest(id: string): Promise<Manifest>;
};

/** Seconds beyond its own length that a recording may take from being asked for to its file. */
const PATIENCE_MS = 45_000;

export async function startService(options: ServiceOptions = {}): Promise<Service> {
  await using stack = new AsyncDisposableStack();
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-system-'));
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  const storage = options.storage ?? join(directory, 'storage');
  const redis = options.redis ?? stack.use(await startRedis());
  const environment: Environment = {
    ...inherited,
    PORT: '0',
    SLOTS: String(options.slots ?? 1),
    // what else runs here is not to tell, and calibration is an option
    ADMISSION: 'slots',
    SELF_TEST: 'false',
    SPOOL_DIR: join(directory, 'spool'),
    CAPTURE_ENGINE: options.engine ?? 'self',
    CHROMIUM_SANDBOX: process.getuid?.() === 0 ? 'off' : 'on',
    // the pages are here
    OUTBOUND_ALLOW: LOCAL_ALLOW,
    TOKEN_SECRET: 'system-test-token-secret',
    SECRETS_KEY: 'system-test-secrets-key',
    // of the processes of recordings, whose lines go to this one's stderr
    LOG_LEVEL: process.env['LOG_LEVEL'] ?? 'error',
    ...options.environment,
    ...redis.environment,
    STORAGE_URL: pathToFileURL(storage).href,
  };
  const lines: string[] = [];
  const log = createLog('debug', (line) => lines.push(line));
  // HEALTH_PORT is the worker's
  const edgeConfig = { ...readEdgeConfig(environment, ''), ...(await readRedisTls(environment)), healthPort: null };
  const edge = stack.use(await startEdge(edgeConfig, log.with({ process: 'edge' })));
  stack.use(await startFinaliser(edgeConfig, log.with({ process: 'finaliser' })));
  const worker = stack.use(
    await startWorker(
      await readWorkerConfig(environment, { cores: 2, memory: 2 ** 33, shm: null }),
      log.with({ process: 'worker' }),
      {
        ...(options.calibrate === true ? {} : { measureSoundDelay: async () => ({}) }),
        ...(options.mediaLimits === undefined ? {} : { mediaLimits: options.mediaLimits }),
      },
    ),
  );
  const calibration = lines.find((line) => line.includes('"sound is calibrated"'));
  if (options.calibrate === true && calibration === undefined) throw new Error('the sound is not calibrated');

  // what the operator sends, where there are keys
  const key: Record<string, string> = environment['API_KEYS'] === undefined ? {} : operator.headers;
  const url = (path: string) => (path.startsWith('http') ? path : `${edge.url}${path}`);
  const api: Service['api'] = async <T>(path: string, init: RequestInit = {}) => {
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(key)) if (!headers.has(name)) headers.set(name, value);
    const response = await fetch(url(path), { ...init, headers });
    const text = await response.text();
    return { status: response.status, body: (text === '' ? null : JSON.parse(text)) as T, headers: response.headers };
  };
  const good = async (path: string, init?: RequestInit): Promise<Recording> => {
    const { status, body } = await api<Recording>(path, init);
    if (status >= 300) throw new Error(`${init?.method ?? 'GET'} ${path} answered ${status}: ${JSON.stringify(body)}`);
    return body;
  };
  const get = (id: string) => good(`/v1/recordings/${id}`);

  const waitFor: Service['waitFor'] = async (id, states, milliseconds = 60_000) => {
    const wanted = [states].flat();
    let last: RecordingState | null = null;
    try {
      for await (const { type, data } of readEvents(url(`/v1/recordings/${id}/events`), AbortSignal.timeout(milliseconds), key)) {
        if (type !== 'state') continue;
        last = data['state'] as RecordingState;
        if (wanted.includes(last)) return await get(id);
        if (isEnd(last)) throw new Error(`the recording is ${last}, not ${wanted.join(' or ')}: ${JSON.stringify((await get(id)).error)}`);
      }
    } catch (error) {
      if (error instanceof DOMException) throw new Error(`the recording did not become ${wanted.join(' or ')} in ${milliseconds} ms: it is ${last}`, { cause: error });
      throw error;
    }
    throw new Error(`the events ended before the recording became ${wanted.join(' or ')}: it is ${last}`);
  };
  const create: Service['create'] = (body, headers = {}) =>
    good('/v1/recordings', { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers } });
  const download: Service['download'] = async ({ id, links }) => {
    const response = await fetch(links.file);
    if (!response.ok) throw new Error(`${links.file} answered ${response.status}: ${await response.text()}`);
    const path = join(directory, `${id}.mp4`);
    await writeFile(path, await response.bytes());
    return path;
  };

  const all = stack.move();
  return {
    url: edge.url,
    worker,
    storage,
    lines,
    api,
    create,
    get,
    stop: (id) => good(`/v1/recordings/${id}/stop`, { method: 'POST' }),
    events: (id, signal) => readEvents(url(`/v1/recordings/${id}/events`), signal, key),
    waitFor,
    async record(body) {
      const { id } = await create(body);
      const recording = await waitFor(id, 'completed', Number(body['maxDuration'] ?? 30) * 1000 + PATIENCE_MS);
      return { ...recording, path: await download(recording) };
    },
    download,
    manifest: async (id) => (await api<Manifest>(`/v1/recordings/${id}/manifest.json`)).body,
    [Symbol.asyncDispose]: () => all[Symbol.asyncDispose](),
  };
}

const needs = {
  ffmpeg: async () => hasFfmpeg(),
  'redis-server': async () => hasRedisServer,
  chromium: () => finds('tab'),
  'headless shell': () => finds('self'),
  versitygw: async () => hasS3Server,
  root: async () => process.getuid?.() === 0 && spawnSync('mount', ['--version']).status === 0,
  nginx: async () => spawnSync('nginx', ['-v'], { env: { PATH: `${process.env['PATH']}:/usr/sbin` } }).status === 0,
  openssl: async () => hasOpenssl,
  curl: async () => spawnSync('curl', ['--version']).status === 0,
  'network namespaces': async () => process.getuid?.() === 0 && makesNamespaces(),
} as const;

const remedies: Readonly<Record<keyof typeof needs, string>> = {
  ffmpeg: 'apt-get install ffmpeg',
  'redis-server': 'apt-get install redis-server',
  chromium: 'apt-get install chromium',
  'headless shell': 'apt-get install chromium-headless-shell (the one of the packages is for Linux on x64)',
  versitygw: '.ci/run, or go install github.com/versity/versitygw/cmd/versitygw@v1.8.0',
  root: 'run them as root, who may mount',
  nginx: 'apt-get install nginx',
  openssl: 'apt-get install openssl',
  curl: 'apt-get install curl',
  'network namespaces': 'apt-get install iproute2, and run them as root, who may make some',
};

function makesNamespaces(): boolean {
  const name = `tabreel-try-${process.pid}`;
  const ip = (...args: string[]) => spawnSync('ip', args).status === 0;
  if (!ip('netns', 'add', name)) return false;
  const joined = ip('-n', name, 'link', 'add', 'name', 'try-a', 'type', 'veth', 'peer', 'name', 'try-b');
  return ip('netns', 'del', name) && joined;
}

const finds = (engine: CaptureEngineName): Promise<boolean> =>
  findBrowser({ chromiumPath: null, engine }).then(
    () => true,
    () => false,
  );

/** For `describe.skipIf`: whether something is missing here; says what, and how it is to be had. */
export async function lacks(...names: (keyof typeof needs)[]): Promise<boolean> {
  const missing: (keyof typeof needs)[] = [];
  for (const name of names) if (!(await needs[name]())) missing.push(name);
  for (const name of missing) console.warn(`Tests are skipped for want of ${name}: ${remedies[name]}`);
  return missing.length > 0;
}

export type Process = { pid: number; parent: number; command: string[] };

/** The processes that descend from one, as Linux tells them. */
export async function descendants(of: number): Promise<Process[]> {
  const children = new Map<number, number[]>();
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const parent = parentOf(name);
    if (parent !== null) children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  const found: Omit<Process, 'command'>[] = [];
  const walk = (parent: number) => {
    for (const pid of children.get(parent) ?? []) {
      found.push({ pid, parent });
      walk(pid);
    }
  };
  walk(of);
  const commandOf = async (pid: number) => (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
  return Promise.all(found.map(async (process) => ({ ...process, command: await commandOf(process.pid) })));
}

function parentOf(pid: string): number | null {
  try {
    // the name before it is in parentheses and may hold anything
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
    return Number(fields[1]);
  } catch {
    return null;
  }
}
