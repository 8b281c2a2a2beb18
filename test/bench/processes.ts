/** Starting the programs that a way consists of. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

export type Program = {
  child: ChildProcess;
  /** Resolves with the first line, of stdout or stderr, that matches. Rejects where the program ends before, or in time. @param timeout milliseconds */
  line(pattern: RegExp, timeout?: number): Promise<string>;
  /** Sends a signal where it still runs, and waits; SIGKILL after 10 s. */
  end(signal?: NodeJS.Signals): Promise<void>;
};

export function startProgram(path: string, args: readonly string[], env: NodeJS.ProcessEnv): Program {
  const child = spawn(path, args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
  const lines: string[] = [];
  const waiting = new Set<{ pattern: RegExp; resolve(line: string): void }>();
  const hear = (line: string) => {
    lines.push(line);
    if (lines.length > 200) lines.shift();
    for (const wait of waiting) if (wait.pattern.test(line)) wait.resolve(line);
  };
  for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', hear);
  child.stdin.on('error', () => undefined);
  const gone = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const lost = (why: string) => new Error(`${path} ${why}: ${lines.slice(-30).join('\n')}`);
  return {
    child,
    async line(pattern, timeout = 30_000) {
      const found = Promise.withResolvers<string>();
      const wait = { pattern, resolve: found.resolve };
      waiting.add(wait);
      for (const line of lines) if (pattern.test(line)) found.resolve(line);
      try {
        return await Promise.race([
          found.promise,
          gone.then(() => Promise.reject(lost('ended'))),
          sleep(timeout, undefined, { ref: false }).then(() => Promise.reject(lost(`never said ${pattern}`))),
        ]);
      } finally {
        waiting.delete(wait);
      }
    },
    async end(signal = 'SIGTERM') {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exit = once(child, 'exit');
      child.kill(signal);
      const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await exit;
      clearTimeout(late);
    },
  };
}
