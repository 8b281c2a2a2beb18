/** `node edge/finaliser.ts`: the finaliser as a process of its own. */
import { readRedisTls } from '../shared/redis-tls.ts';
import { readFinaliserConfig } from './config.ts';
import { startFinaliser } from './finishing.ts';
import { defaultStorageUrl, runUntilSignal } from './process.ts';

await runUntilSignal(process, async (environment, log) =>
  startFinaliser({ ...readFinaliserConfig(environment, defaultStorageUrl()), ...(await readRedisTls(environment)) }, log),
);
