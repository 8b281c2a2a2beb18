/** Real reverse proxies before a real edge: what each has to offer, how its processes are started and ended. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { randomInt, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import type { Leaf } from '../helpers/certificates.ts';
import { guard } from '../helpers/guard.ts';

/**
 * What a caller can come in by. Each is a listener of its own, with TLS, on 127.0.0.1; `ipv6` is on [::1].
 *
 * - `single`: the recommended lines, nothing else
 * - `bare`: only what makes it a proxy at all; `bare-address`: the same, the edge named by its address
 * - `append`, `pass`, `replace`: a second hop over plain http, which appends its own view to the X-Forwarded-* lists, leaves
 *   what the first said as it is, or puts its own view in its place
 * - `inner-port`, `port-80`: as `single`, with X-Forwarded-Port naming the listener, or 80
 * - `prefix`: /rec is taken off the path and named in X-Forwarded-Prefix
 * - `wss`: X-Forwarded-Proto is `wss`, as Traefik has it on upgrades
 * - `rename`: the Host that the edge sees is the upstream's name; the caller's is in X-Forwarded-Host
 */
export const ways = ['single', 'bare', 'bare-address', 'append', 'pass', 'replace', 'inner-port', 'port-80', 'prefix', 'ipv6', 'wss', 'rename'] as const;
export type Way = (typeof ways)[number];
export const innerWays = ['append', 'pass', 'replace'] as const satisfies readonly Way[];
export type InnerWay = (typeof innerWays)[number];

/** The lines of each way: the recommended ones, none where it is bare, and a proxy's own words for the others. */
export const linesOf = (
  recommended: string,
  special: Readonly<Record<'inner-port' | 'port-80' | 'prefix' | 'wss' | 'rename', string>>,
): Readonly<Record<Way, string>> => ({
  single: recommended,
  bare: '',
  'bare-address': '',
  append: recommended,
  pass: recommended,
  replace: recommended,
  ipv6: recommended,
  ...special,
});

/** Path before ours at `prefix`. */
export const PREFIX = '/rec';
/** What proxies call the edge where they send their own name for it as Host. */
export const UPSTREAM = 'tabreel';

export type Sites = {
  /** Of files and sockets; gone with the proxy. */
  directory: string;
  leaf: Leaf;
  /** Port of the edge on 127.0.0.1. */
  edge: number;
  ports: Readonly<Record<Way, number>>;
  /** Plain http listeners of the second hops on 127.0.0.1. */
  inner: Readonly<Record<InnerWay, number>>;
  /** Further free ports. */
  spare: readonly number[];
};

export type Setup = {
  files: Readonly<Record<string, string>>;
  /** Run in the foreground, in this order; paths are of `Sites.directory`. */
  commands: readonly (readonly [command: string, ...args: string[]])[];
  environment?: Readonly<Record<string, string>>;
};

export type Proxy = {
  name: string;
  /** Executables it needs, and the apt packages that have them. */
  binaries: Readonly<Record<string, string>>;
  /** What an operator adds, as docs/proxies.md shows it. */
  lines: { language: string; recommended: string; prefix: string; inner: string };
  /** Whether `bare` sends all that is needed. */
  bareSuffices: boolean;
  setup(sites: Sites): Setup;
};

const onPath = (binary: string): boolean =>
  spawnSync('which', [binary], { env: { PATH: `${process.env['PATH'] ?? ''}${delimiter}/usr/sbin` } }).status === 0;

/** The apt packages that are missing for it. */
export const missingPackages = ({ binaries }: Proxy): string[] =>
  [...new Set(Object.entries(binaries).flatMap(([binary, apt]) => (onPath(binary) ? [] : [apt])))];

export type RunningProxy = AsyncDisposable & Pick<Sites, 'ports' | 'directory'>;

/** @returns once every way in takes connections. @throws {Error} with its own output where it ends or does not listen in time */
export async function startProxy(proxy: Proxy, leaf: Leaf, edge: number): Promise<RunningProxy> {
  for (let tries = 3; ; tries -= 1) {
    try {
      return await startOnFreePorts(proxy, leaf, edge);
    } catch (error) {
      // another took one of the ports meanwhile
      if (tries === 1 || !/address already in use/i.test((error as Error).message)) throw error;
    }
  }
}

async function startOnFreePorts(proxy: Proxy, leaf: Leaf, edge: number): Promise<RunningProxy> {
  const directory = mkdtempSync(join(tmpdir(), `tabreel-${proxy.name.toLowerCase()}-`));
  const free = await freePorts(ways.length + innerWays.length + 4);
  const ports = Object.fromEntries(ways.map((way) => [way, free.pop() ?? 0])) as Record<Way, number>;
  const inner = Object.fromEntries(innerWays.map((way) => [way, free.pop() ?? 0])) as Record<InnerWay, number>;
  const { files, commands, environment } = proxy.setup({ directory, leaf, edge, ports, inner, spare: free });
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeFileSync(join(directory, name), content);
  }
  const running = commands.map((command) => runProcess(command, { cwd: directory, environment: { HOME: directory, ...environment } }));
  const stop = async () => {
    await Promise.all(running.map((each) => each[Symbol.asyncDispose]()));
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await Promise.all([
      ...ways.map((way) => listens(ports[way], way === 'ipv6' ? '::1' : '127.0.0.1', running, leaf)),
      ...innerWays.map((way) => listens(inner[way], '127.0.0.1', running)),
    ]);
  } catch (error) {
    await stop();
    throw new Error(`${proxy.name}: ${(error as Error).message}`, { cause: error });
  }
  return { ports, directory, [Symbol.asyncDispose]: stop };
}

export type RunningProcess = AsyncDisposable & { child: ChildProcess; output(): string };

/** In a process group of its own, which is ended as a whole: a proxy's master does not always take its workers along. */
export function runProcess(
  [command, ...args]: readonly [string, ...string[]],
  { cwd, environment = {} }: { cwd?: string; environment?: Readonly<Record<string, string>> } = {},
): RunningProcess {
  const env = { PATH: `${process.env['PATH'] ?? ''}${delimiter}/usr/sbin`, ...environment };
  const child = spawn(command, args, { ...(cwd === undefined ? {} : { cwd }), env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const chunks: string[] = [];
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => chunks.push(chunk.toString()));
  child.on('error', (error) => chunks.push(error.message));
  const ended = once(child, 'close').catch(() => undefined);
  const signal = (name: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, name);
    } catch {
      // it is gone
    }
  };
  const done = guard('kill -KILL -- "-$1"', String(child.pid));
  return {
    child,
    output: () => chunks.join(''),
    async [Symbol.asyncDispose]() {
      signal('SIGTERM');
      await Promise.race([ended, sleep(5000, undefined, { ref: false })]);
      signal('SIGKILL');
      await ended;
      done();
    },
  };
}

/**
 * Resolves once something takes connections there, with this certificate if one is given.
 * @throws {Error} with the output of a process that ended, or after 15 s
 */
export async function listens(port: number, host: string, processes: readonly RunningProcess[], leaf: Leaf | null = null): Promise<void> {
  const output = () => processes.map((each) => each.output()).join('\n').slice(-4000);
  for (const until = Date.now() + 15_000; ; await sleep(20)) {
    if (leaf === null ? await accepts(port, host) : await presents(leaf, port, host)) return;
    if (processes.some(({ child }) => child.exitCode !== null || child.signalCode !== null || child.pid === undefined)) {
      throw new Error(`it ended:\n${output()}`);
    }
    if (Date.now() > until) throw new Error(`nothing listens on ${host} port ${port}:\n${output()}`);
  }
}

const accepts = (port: number, host: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, host);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });

/** Whether what listens there is ours: another may have taken the port. */
const presents = ({ cert }: Leaf, port: number, host: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connectTls({ port, host, rejectUnauthorized: false, timeout: 3000 });
    const end = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.on('secureConnect', () => end(socket.getPeerX509Certificate()?.raw.equals(new X509Certificate(cert).raw) === true));
    socket.on('timeout', () => end(false));
    socket.on('error', () => end(false));
  });

/**
 * Ports that were free a moment ago on 127.0.0.1. Below those that Linux gives out by itself (32768 and up), so that hardly
 * anything else takes them before they are listened on.
 */
export async function freePorts(count: number): Promise<number[]> {
  const servers = new Map<number, Server>();
  while (servers.size < count) {
    const port = randomInt(15_000, 32_000);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (free) servers.set(port, server);
  }
  await Promise.all([...servers.values()].map((server) => once(server.close(), 'close')));
  return [...servers.keys()];
}
