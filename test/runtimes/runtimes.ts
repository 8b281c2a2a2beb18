/** The edge on every runtime, each a process of its own on loopback. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../bin/local-redis.ts';
import { bundle } from '../../deploy/bundle.ts';
import { inherited } from '../helpers/environment.ts';
import { hosts, lambdaKinds, prefixes } from './lambda-events.ts';

export const INSTALL = 'npm ci --prefix test/runtimes';

const root = fileURLToPath(new URL('../..', import.meta.url));
const binary = (...names: string[]): string | null =>
  names.map((name) => join(root, 'test/runtimes/node_modules', name)).find((path) => existsSync(path)) ?? null;

const binaries = {
  bun: binary('@oven/bun-linux-x64/bin/bun', '@oven/bun-linux-aarch64/bin/bun'),
  deno: binary('@deno/linux-x64-glibc/deno', '@deno/linux-arm64-glibc/deno'),
  workerd: binary('@cloudflare/workerd-linux-64/bin/workerd', '@cloudflare/workerd-linux-arm64/bin/workerd'),
};

export type Settings = Readonly<Record<string, string>>;

export type RuntimeName = 'node' | 'bun' | 'deno' | 'workerd' | `lambda ${(typeof lambdaKinds)[number]}`;
export const runtimeNames: readonly RuntimeName[] = ['node', 'bun', 'deno', 'workerd', ...lambdaKinds.map((kind) => `lambda ${kind}` as const)];

/** Whether its binary is missing here. */
export const missing = (name: RuntimeName): boolean => name in binaries && binaries[name as keyof typeof binaries] === null;

export type Runtime = AsyncDisposable & {
  url: string;
  /** What it takes for its own origin, before /v1, when asked at `url`. */
  origin: string;
};

const own = (url: string) => ({ url, origin: url });

/** All of them that are there. @param directory for bundles and configurations */
export async function startRuntimes(settings: (name: string) => Settings, directory: string): Promise<{ runtimes: Map<RuntimeName, Runtime> } & AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const runtimes = new Map<RuntimeName, Runtime>();
  const add = (name: RuntimeName, runtime: Omit<Runtime, keyof AsyncDisposable>, process: AsyncDisposable) => runtimes.set(name, { ...runtime, ...process });
  const starts = [
    startNode(settings('node')).then((started) => add('node', own(started.url), stack.use(started))),
    startLambda(settings('lambda'), directory).then((started) => {
      stack.use(started);
      for (const kind of lambdaKinds) add(`lambda ${kind}`, { url: started.urls[kind] ?? '', origin: `https://${hosts[kind]}${prefixes[kind]}` }, started);
    }),
    ...(missing('bun') ? [] : [startBun(settings('bun')).then((started) => add('bun', own(started.url), stack.use(started)))]),
    ...(missing('deno') ? [] : [startDeno(settings('deno')).then((started) => add('deno', own(started.url), stack.use(started)))]),
    ...(missing('workerd') ? [] : [startWorkerd(settings('workerd'), directory).then((started) => add('workerd', own(started.url), stack.use(started)))]),
  ];
  // all, so that those that did start are ended
  const failed = (await Promise.allSettled(starts)).find((start) => start.status === 'rejected');
  if (failed) throw failed.reason;
  const all = stack.move();
  return { runtimes, [Symbol.asyncDispose]: () => all[Symbol.asyncDispose]() };
}

export const startNode = (settings: Settings) => listening(process.execPath, ['edge/node.ts'], settings);

export const startBun = (settings: Settings) => listening(binaries.bun ?? '', ['edge/bun.ts'], settings);

export const startDeno = (settings: Settings) =>
  listening(binaries.deno ?? '', ['run', '--no-prompt', '--allow-net', '--allow-env', '--allow-read', '--allow-sys', 'edge/deno.ts'], {
    ...settings,
    DENO_NO_UPDATE_CHECK: '1',
  });

export async function startLambda(settings: Settings, directory: string) {
  const file = join(directory, 'lambda/index.mjs');
  if (!existsSync(file)) await bundle('lambda', file);
  const process_ = start(process.execPath, ['test/runtimes/lambda-host.ts', file, ...lambdaKinds], settings);
  const { urls } = await process_.line<{ urls: Record<string, string> }>((line) => 'urls' in line);
  return { urls, ...process_ };
}

/** Real workerd, told by a configuration of its own: what wrangler.jsonc says, and loopback allowed. */
export async function startWorkerd(settings: Settings, directory: string) {
  const file = join(directory, 'index.js');
  if (!existsSync(file)) await bundle('cloudflare', file);
  const port = await freePort();
  const bindings = Object.entries(settings).map(([name, text]) => `(name = ${JSON.stringify(name)}, text = ${JSON.stringify(text)})`);
  const config = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "edge", worker = (
      modules = [(name = "index.js", esModule = embed "index.js")],
      compatibilityDate = "2026-11-01",
      globalOutbound = "network",
      bindings = [${bindings.join(', ')}],
    )),
    (name = "network", network = (allow = ["private"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "edge")],
);
`;
  const path = join(directory, `workerd-${port}.capnp`);
  await writeFile(path, config);
  const process_ = start(binaries.workerd ?? '', ['serve', path], {});
  const url = `http://127.0.0.1:${port}`;
  await answers(url, process_.ended);
  return { url, ...process_ };
}

async function listening(command: string, args: string[], settings: Settings) {
  const process_ = start(command, args, { HOST: '127.0.0.1', PORT: '0', ...settings });
  const { url } = await process_.line<{ url: string }>((line) => line['event'] === 'edge listens');
  return { url, ...process_ };
}

type Line = Record<string, unknown>;

/** A process from the project's root, with these settings and no others. */
export function start(command: string, args: string[], settings: Settings) {
  const child: ChildProcess = spawn(command, args, { cwd: root, env: { ...inherited, ...settings }, stdio: ['ignore', 'pipe', 'pipe'] });
  const onExit = () => child.kill('SIGKILL');
  process.once('exit', onExit);
  let output = '';
  const waiting = new Set<(line: Line) => void>();
  for (const stream of [child.stdout, child.stderr]) {
    if (!stream) continue;
    createInterface(stream).on('line', (text) => {
      output = `${output}${text}\n`.slice(-20_000);
      try {
        const line = JSON.parse(text) as Line;
        for (const tell of waiting) tell(line);
      } catch {
        // not one of ours
      }
    });
  }
  const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, output }));
  return {
    ended,
    output: () => output,
    signal: (name: NodeJS.Signals) => child.kill(name),
    /** The first JSON line that is wanted. @throws where the process ends before */
    line: <T>(wanted: (line: Line) => boolean): Promise<T> =>
      Promise.race([
        new Promise<T>((resolve) => waiting.add((line) => wanted(line) && resolve(line as T))),
        ended.then(({ code }) => {
          throw new Error(`${command} ${args[0]} ended with ${code}: ${output}`);
        }),
      ]),
    async [Symbol.asyncDispose]() {
      process.off('exit', onExit);
      child.kill('SIGTERM');
      const force = setTimeout(() => child.kill('SIGKILL'), 6000);
      await ended;
      clearTimeout(force);
    },
  };
}

async function answers(url: string, ended: Promise<{ output: string }>): Promise<void> {
  let gone: string | null = null;
  void ended.then(({ output }) => (gone = output));
  for (;;) {
    if (gone !== null) throw new Error(`it ended: ${String(gone)}`);
    const answer = await fetch(`${url}/healthz`).catch(() => null);
    if (answer !== null) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
