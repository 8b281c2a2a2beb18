/** What must not outlive a test run, however it ends: also one that is killed, where no handler of ours is called. */
import { spawn } from 'node:child_process';

/**
 * @param command of the shell, run once this process is gone; `$1` and on are `values`
 * @returns the cleanup is done: there is nothing to guard any more
 */
export function guard(command: string, ...values: readonly string[]): () => void {
  // its input ends with this process; in a session of its own, Ctrl-C does not reach it
  const child = spawn('sh', ['-c', `read -r _; ${command}`, 'guard', ...values], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  child.stdin.on('error', () => undefined);
  child.on('error', () => undefined);
  child.unref();
  return () => void child.kill('SIGKILL');
}
