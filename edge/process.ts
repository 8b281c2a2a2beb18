/** What the edge's entry files share: log to stdout, run until a signal, leave in order. */
import { pathToFileURL } from 'node:url';
import { resolve } from 'node:path';
import { ConfigError, type Environment } from '../shared/config.ts';
import { createLog, levelOf, type Log } from '../shared/log.ts';

/** What entry files hand in of `process`. */
type Process = {
  env: Environment;
  stdout: { write(text: string): unknown };
  stderr: { write(text: string): unknown };
  once(event: 'SIGTERM' | 'SIGINT', listener: () => void): unknown;
  on(event: 'SIGHUP', listener: () => void): unknown;
  exit(code: number): never;
};

/** Files go below the working directory where nothing else is said. */
export const defaultStorageUrl = (): string => pathToFileURL(resolve('recordings')).href;

/** Where a process reads again what it was set up with. */
export type OnReload = (listener: () => void) => void;

/** Starts, waits for SIGTERM or SIGINT, closes, and exits 0; 1 where it can't start, with one line that says why. */
export async function runUntilSignal(self: Process, start: (environment: Environment, log: Log, onReload: OnReload) => Promise<AsyncDisposable>): Promise<void> {
  const log = createLog(levelOf(self.env['LOG_LEVEL']), (line) => self.stdout.write(`${line}\n`));
  const signal = new Promise<void>((resolved) => {
    self.once('SIGTERM', resolved);
    self.once('SIGINT', resolved);
  });
  try {
    const running = await start(self.env, log, (listener) => self.on('SIGHUP', listener));
    await signal;
    await running[Symbol.asyncDispose]();
  } catch (error) {
    if (error instanceof ConfigError) self.stderr.write(`${error.message}\n`);
    else log.error('the process failed', { error });
    self.exit(1);
  }
  self.exit(0);
}
