/** `node edge/finaliser.ts`: the finaliser as a process of its own. */
import { readFinaliserConfig } from './config.ts';
import { startFinaliser } from './finishing.ts';
import { defaultStorageUrl, runUntilSignal } from './process.ts';

await runUntilSignal(process, (environment, log) => startFinaliser(readFinaliserConfig(environment, defaultStorageUrl()), log));
