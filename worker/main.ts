/**
 * `node worker/main.ts`: a worker as a process of its own. SIGTERM drains it; SIGINT, or a second signal, hands over what it
 * records at once. With LEAVE_AFTER it leaves by itself. Exits with 0 once it has left in order; with 1 where it can not start, or at a third signal.
 */
import { ConfigError } from '../shared/config.ts';
import { TabreelError } from '../shared/errors.ts';
import { createLog } from '../shared/log.ts';
import { readMachine } from './capacity.ts';
import { readWorkerConfig } from './config.ts';
import { startWorker } from './worker.ts';

const leave = Promise.withResolvers<void>();
const now = new AbortController();
let signals = 0;
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    signals += 1;
    // captures are ended in good order even now; only a third signal gives up on that
    if (signals > 2) process.exit(1);
    if (signals > 1 || signal === 'SIGINT') now.abort();
    leave.resolve();
  });
}

try {
  const config = await readWorkerConfig(process.env, await readMachine(process.constrainedMemory()));
  const log = createLog(config.logLevel, (line) => process.stdout.write(`${line}\n`));
  const worker = await startWorker(config, log);
  await Promise.race([leave.promise, worker.spent]);
  await worker.drain(now.signal);
  await worker[Symbol.asyncDispose]();
  log.info('worker left');
} catch (error) {
  // an operator's mistake is told in a line of its own, anything else with where it came from
  const plain = error instanceof ConfigError || error instanceof TabreelError;
  process.stderr.write(`${plain ? error.message : ((error as Error).stack ?? String(error))}\n`);
  process.exit(1);
}
process.exit(0);
