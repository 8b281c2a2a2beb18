/** `node edge/node.ts`: the edge as a process of its own. */
import { readEdgeConfig } from './config.ts';
import { defaultStorageUrl, runUntilSignal } from './process.ts';
import { startEdge } from './server.ts';

await runUntilSignal(process, (environment, log) => startEdge(readEdgeConfig(environment, defaultStorageUrl()), log));
