/** The edge as a Cloudflare Worker (workerd with nodejs_compat). Deployed with deploy/cloudflare/wrangler.jsonc. */
import { ConfigError, type Environment } from '../shared/config.ts';
import { TabreelError } from '../shared/errors.ts';
import { createLog, levelOf, type Log } from '../shared/log.ts';
import type { RequestFacts } from './origin/facts.ts';
import { problemResponse } from './problem.ts';
import { createServerless, inlineKeys, readServerlessConfig, type Serverless } from './serverless.ts';

/** https://developers.cloudflare.com/workers/runtime-apis/context/ */
type WorkerContext = { waitUntil(promise: Promise<unknown>): void };

let serverless: Serverless | null = null;

const worker = {
  async fetch(request: Request, bindings: Readonly<Record<string, unknown>>, context: WorkerContext): Promise<Response> {
    const environment = settingsOf(bindings);
    // oxlint-disable-next-line no-console -- the runtime has no other log
    const log = createLog(levelOf(environment['LOG_LEVEL']), (line) => console.log(line));
    try {
      if (serverless === null) {
        refuseAuthorities(environment);
        const config = readServerlessConfig(environment);
        serverless = createServerless(config, inlineKeys(config.apiKeys, log), log);
      }
    } catch (error) {
      return misconfigured(error, log);
    }
    // a socket belongs to the request that opened it, so each has its own
    const { app, close } = serverless.open({ metrics: null, factsOf: () => factsOf(request) });
    try {
      return await app.fetch(request);
    } finally {
      context.waitUntil(close());
    }
  },
};

// oxlint-disable-next-line import/no-default-export -- it is how the runtime finds it
export default worker;

/** Bindings of other kinds (queues, buckets) are no settings. */
const settingsOf = (bindings: Readonly<Record<string, unknown>>): Environment =>
  Object.fromEntries(Object.entries(bindings).flatMap(([name, value]) => (typeof value === 'string' ? [[name, value]] : [])));

/** Its sockets take no `ca`, `cert` or `key`, and say nothing of it (workerd 2026-11-17): whom they trust is the platform's. */
function refuseAuthorities(environment: Environment): void {
  const set = ['REDIS_CA', 'REDIS_CERT', 'REDIS_KEY'].find((name) => environment[name]);
  if (set === undefined) return;
  throw new ConfigError(
    `${set} is set: here whom sockets trust is the platform's. On Cloudflare Redis needs a certificate that browsers trust; ` +
      'a workerd of your own has tlsOptions of its network service: trustBrowserCas, trustedCertificates',
  );
}

/** The platform makes the URL from the zone that was asked and the protocol that it ended itself. */
function factsOf(request: Request): RequestFacts {
  const headers = [...request.headers];
  // a workerd of one's own makes it of whatever Host there is
  if (!URL.canParse(request.url)) return { peer: { address: null, encrypted: false }, headers, target: null, platform: null };
  const { protocol, host } = new URL(request.url);
  const scheme = protocol === 'https:' ? 'https' : 'http';
  return {
    // https://developers.cloudflare.com/fundamentals/reference/http-headers/: overwrites what a client sends by this name
    peer: { address: request.headers.get('cf-connecting-ip'), encrypted: scheme === 'https' },
    headers,
    target: null,
    platform: { scheme, authority: host, source: 'cloudflare' },
  };
}

/** There is no start that could fail: the operator finds it in the log, the caller only that it is so. */
function misconfigured(error: unknown, log: Log): Response {
  log.error('the settings are wrong', { error });
  if (!(error instanceof ConfigError)) throw error;
  return problemResponse(new TabreelError('internal', 'the deployment is not configured; what is wrong is in its log'));
}
