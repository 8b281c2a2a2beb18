/** `node edge/node.ts`: the edge as a process of its own. */
import { readRedisTls } from '../shared/redis-tls.ts';
import { readEdgeConfig } from './config.ts';
import { defaultStorageUrl, runUntilSignal } from './process.ts';
import { startEdge } from './server.ts';

await runUntilSignal(process, async (environment, log, onReload) =>
  startEdge({ ...readEdgeConfig(environment, defaultStorageUrl()), ...(await readRedisTls(environment)) }, log, { onReload }),
);
