/** `deno run --allow-net --allow-env --allow-read --allow-sys edge/deno.ts`: the edge's API on Deno. Media goes to MEDIA_URL. */
import { readRedisTls } from '../shared/redis-tls.ts';
import { openKeys } from './access/key-file.ts';
import { createMetrics } from './metrics.ts';
import type { RequestFacts } from './origin/facts.ts';
import { runUntilSignal } from './process.ts';
import { createServerless, readServerlessConfig } from './serverless.ts';

/** What is used of https://docs.deno.com/api/deno/~/Deno.serve. */
type DenoInfo = { remoteAddr: { hostname: string } };
declare const Deno: {
  serve(
    options: { hostname: string; port: number; onListen(address: { hostname: string; port: number }): void },
    handler: (request: Request, info: DenoInfo) => Response | Promise<Response>,
  ): { shutdown(): Promise<void> };
};

await runUntilSignal(process, async (environment, log, onReload) => {
  const config = { ...readServerlessConfig(environment), ...(await readRedisTls(environment)) };
  const keys = await openKeys(config.apiKeys ?? null, log, onReload);
  const { app, close } = createServerless(config, keys, log).open({
    metrics: createMetrics(null),
    factsOf: (c) => c.env as RequestFacts,
  });
  const server = Deno.serve(
    {
      hostname: config.host.replace(/^\[|\]$/g, ''),
      port: config.port,
      onListen: ({ hostname, port }) => log.info('edge listens', { url: `http://${hostname.includes(':') ? `[${hostname}]` : hostname}:${port}` }),
    },
    (request, info) => app.fetch(request, factsOf(request, info)),
  );
  return {
    async [Symbol.asyncDispose]() {
      await server.shutdown();
      await close();
      keys?.close();
      log.info('edge closed');
    },
  };
});

/** Without a certificate given to Deno.serve it speaks plain http. */
function factsOf(request: Request, { remoteAddr }: DenoInfo): RequestFacts {
  return {
    peer: { address: remoteAddr.hostname, encrypted: false },
    headers: [...request.headers],
    target: null,
    platform: null,
  };
}
