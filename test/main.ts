/**
 * `npm test -- [file ...] [option of vitest ...]`: runs vitest, and ends when its run has. Node's own exit may wait for ever for a
 * thread that compiles (nodejs/node#54918): a run of ten minutes that passed is not lost to that.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** What vitest itself takes to close at most is 10 s, its `teardownTimeout`. */
const PATIENCE_MS = 30_000;

const vitest = fileURLToPath(new URL('vitest.mjs', import.meta.resolve('vitest/package.json')));
const child = spawn(process.execPath, [vitest, 'run', ...process.argv.slice(2)], {
  // how the run ended comes by the last, from run-end.ts
  stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
  env: { ...process.env, TABREEL_TEST_RUN_END_FD: '3' },
});
// a terminal's Ctrl-C reaches the child by itself
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => child.kill());

let reason: string | null = null;
child.stdio[3]?.on('data', (data: Buffer) => {
  reason = data.toString();
  setTimeout(() => {
    console.error(`vitest is still there ${PATIENCE_MS / 1000} s after its run has ended, and is killed`);
    child.kill('SIGKILL');
  }, PATIENCE_MS).unref();
});
const [code] = (await once(child, 'exit')) as [number | null];
process.exit(code ?? (reason === 'passed' ? 0 : 1));
