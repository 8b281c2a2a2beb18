/**
 * The processes that recordings run in: one each, started ahead for every free slot, so that a recording doesn't wait for
 * Node and the code to load. A process runs one recording and is never used again.
 */
import { fork } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { TabreelError } from '../shared/errors.ts';
import type { Log } from '../shared/log.ts';
import { killGroup, killTree, killUsersOf } from './kill-tree.ts';
import { wipeProcessDirectory } from './browser/profile.ts';
import { makeProcessDirectory, sweepProcessDirectories } from './leftovers.ts';
import type { FromRecorder, ToRecorder } from './process-protocol.ts';

/** How long a recording waits for a process, in milliseconds: a machine that boots may be slow. */
const TAKE_MS = 30_000;
/** Between two starts that failed. */
const RETRY_MS = 1000;

const defaultScript = new URL('./recording-process.ts', import.meta.url);

export type RecorderExit = { code: number | null; signal: string | null };

export type RecorderProcess = {
  pid: number;
  /** Lost without a word where the process is gone: `exited` tells. */
  send(message: ToRecorder): void;
  /** Whatever it says from now on. */
  onMessage(listener: (message: FromRecorder) => void): void;
  /** Resolves when it has ended and what it left is removed. */
  exited: Promise<RecorderExit>;
  /** Ends it and its browser at once. */
  kill(): void;
};

export type RecorderPool = AsyncDisposable & {
  /** A process that has loaded its code. @throws {TabreelError} `worker_lost` where none comes up in time */
  take(): Promise<RecorderProcess>;
  /** Processes that wait for a recording. */
  ready(): number;
  /** Whether the last one that was started ended before it had loaded its code. */
  isFailing(): boolean;
};

export type PoolOptions = {
  /** Processes at most, waiting and running ones together. */
  size: number;
  /**
   * All of their environment but TMPDIR: each has a directory of its own, which goes with it. Without NODE_COMPILE_CACHE they
   * share one that goes with the pool: only this user may write what others would run.
   */
  environment: Readonly<Record<string, string>>;
  log: Log;
  script?: URL | string;
  takeTimeout?: number;
};

/** Starts the processes at once, and removes what earlier ones may have left behind. */
export function createRecorderPool(options: PoolOptions): RecorderPool {
  const { log } = options;
  const ownCache = options.environment['NODE_COMPILE_CACHE'] === undefined ? makeProcessDirectory() : null;
  const environment = { ...options.environment, ...(ownCache === null ? {} : { NODE_COMPILE_CACHE: ownCache }) };
  const all = new Set<RecorderProcess>();
  const ready: RecorderProcess[] = [];
  const takers: ((recorder: RecorderProcess) => void)[] = [];
  let closed = false;
  let failing = false;
  let retry: NodeJS.Timeout | undefined;

  const refill = () => {
    clearTimeout(retry);
    while (!closed && all.size < options.size) start();
  };

  function start(): void {
    const directory = makeProcessDirectory();
    const child = fork(options.script ?? defaultScript, [], {
      env: { ...environment, TMPDIR: directory },
      // a recording holds little and lives long: a small young generation and lean code spare some 30 MB
      execArgv: ['--max-semi-space-size=2', '--optimize-for-size'],
      // a group of its own: a Ctrl-C in a terminal reaches the worker alone, which decides what that means
      detached: true,
      stdio: ['ignore', 2, 2, 'ipc'],
    });
    const exited = Promise.withResolvers<RecorderExit>();
    let listener: (message: FromRecorder) => void = () => {};
    let wasReady = false;
    let gone = false;

    const end = async (exit: RecorderExit) => {
      if (gone) return;
      gone = true;
      const index = ready.indexOf(recorder);
      if (index >= 0) ready.splice(index, 1);
      if (child.pid !== undefined) killGroup(child.pid);
      // a browser ends by itself when its pipe closes, within seconds; one that is just starting would make its files anew
      await killUsersOf(directory);
      await wipeProcessDirectory(directory).catch((error: unknown) =>
        log.warn('temporary files stay behind', { directory, error }),
      );
      all.delete(recorder);
      exited.resolve(exit);
      if (wasReady) refill();
      else if (!closed) {
        failing = true;
        log.error('a recording process does not start', exit);
        clearTimeout(retry);
        retry = setTimeout(refill, RETRY_MS);
      }
    };

    const recorder: RecorderProcess = {
      pid: child.pid ?? -1,
      send: (message) => void (child.connected && child.send(message, () => {})),
      onMessage: (next) => (listener = next),
      exited: exited.promise,
      kill() {
        if (!gone && child.pid !== undefined) void killTree(child.pid);
      },
    };
    all.add(recorder);
    child.on('message', (message: FromRecorder) => {
      if (message.type !== 'ready') return listener(message);
      wasReady = true;
      failing = false;
      const taker = takers.shift();
      if (taker) taker(recorder);
      else ready.push(recorder);
    });
    child.on('error', (error) => {
      log.error('a recording process failed', { error });
      if (child.pid === undefined) void end({ code: null, signal: null });
    });
    child.once('exit', (code, signal) => void end({ code, signal }));
  }

  const sweeping = sweepProcessDirectories(log);
  refill();

  return {
    ready: () => ready.length,
    isFailing: () => failing,
    async take() {
      const waiting = ready.shift();
      if (waiting) return waiting;
      const { promise, resolve, reject } = Promise.withResolvers<RecorderProcess>();
      takers.push(resolve);
      const timer = setTimeout(() => {
        takers.splice(takers.indexOf(resolve), 1);
        reject(new TabreelError('worker_lost', 'No process could be started for the recording'));
      }, options.takeTimeout ?? TAKE_MS);
      return promise.finally(() => clearTimeout(timer));
    },
    async [Symbol.asyncDispose]() {
      closed = true;
      clearTimeout(retry);
      sweeping.end();
      const ends = [...all].map((recorder) => {
        recorder.kill();
        return recorder.exited;
      });
      await Promise.all(ends);
      if (ownCache !== null) await rm(ownCache, { recursive: true, force: true });
    },
  };
}
