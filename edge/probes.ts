/** HEALTH_PORT: a listener of its own for those who watch the process, without keys and not for callers. */
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import type { Log } from '../shared/log.ts';

export type Probes = AsyncDisposable & { port: number };

/**
 * Listens on all addresses, as probes come from outside of a container.
 * @param port 0 for any free one
 * @throws where the port is taken
 */
export async function listenForProbes(port: number, fetch: (request: Request) => Response | Promise<Response>, log: Log): Promise<Probes> {
  const listener = getRequestListener(fetch);
  const server = createServer((incoming, outgoing) => {
    // whatever name it is asked by, a bare address or none
    incoming.headers.host = 'host.invalid';
    void listener(incoming, outgoing);
  });
  server.listen(port);
  await once(server, 'listening');
  const { port: actual } = server.address() as AddressInfo;
  log.info('probes are answered', { port: actual });
  return {
    port: actual,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
