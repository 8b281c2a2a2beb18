/** `bun edge/bun.ts`: the edge's API on Bun. Media goes to MEDIA_URL. */
import { readRedisTls } from '../shared/redis-tls.ts';
import { openKeys } from './access/key-file.ts';
import { createMetrics } from './metrics.ts';
import type { RequestFacts } from './origin/facts.ts';
import { runUntilSignal } from './process.ts';
import { createServerless, readServerlessConfig } from './serverless.ts';

/** What is used of https://bun.com/docs/runtime/http/server. */
type BunServer = {
  readonly url: URL;
  requestIP(request: Request): { address: string } | null;
  stop(): Promise<void>;
};
declare const Bun: {
  serve(options: { hostname: string; port: number; fetch(request: Request, server: BunServer): Response | Promise<Response> }): BunServer;
};

await runUntilSignal(process, async (environment, log, onReload) => {
  const config = { ...readServerlessConfig(environment), ...(await readRedisTls(environment)) };
  const keys = await openKeys(config.apiKeys ?? null, log, onReload);
  const { app, close } = createServerless(config, keys, log).open({
    metrics: createMetrics(null),
    factsOf: (c) => c.env as RequestFacts,
  });
  const server = Bun.serve({
    hostname: config.host.replace(/^\[|\]$/g, ''),
    port: config.port,
    fetch: (request, own) => app.fetch(withHost(request), factsOf(request, own)),
  });
  log.info('edge listens', { url: server.url.origin });
  return {
    async [Symbol.asyncDispose]() {
      await server.stop();
      await close();
      keys?.close();
      log.info('edge closed');
    },
  };
});

function factsOf(request: Request, server: BunServer): RequestFacts {
  return {
    peer: { address: server.requestIP(request)?.address ?? null, encrypted: server.url.protocol === 'https:' },
    headers: [...request.headers],
    target: null,
    platform: null,
  };
}

/** A request without Host (HTTP/1.0, as health checks send it) comes with its bare target for a URL, which no router reads. */
function withHost(request: Request): Request {
  return request.url.startsWith('/') ? new Request(`http://localhost${request.url}`, request) : request;
}
