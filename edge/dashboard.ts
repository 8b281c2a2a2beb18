/** Bull Board over both queues, to look only: its retry would run a live page's job again. */
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { HonoAdapter } from '@bull-board/hono';
import { serveStatic } from '@hono/node-server/serve-static';
import type { Queue } from 'bullmq';
import { Hono } from 'hono';
import { withoutQuery } from '../shared/log.ts';

const PATH = '/dashboard';
// its script puts styles into the page; fonts and everything else come from here or not at all
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'self'; frame-ancestors 'none'";
const foreignLinks = /<link[^>]+href="https?:[^>]*>\s*/g;

/**
 * @param ping rejects where Redis is away: the board would answer in a form of its own
 * @param hasLogin whether there is one to log out of
 */
export function createDashboard(queues: readonly Queue[], ping: () => Promise<void>, hasLogin: boolean): Hono {
  const server = new HonoAdapter(serveStatic);
  server.setBasePath(PATH);
  createBullBoard({
    queues: queues.map((queue) => {
      const adapter = new BullMQAdapter(queue, { readOnlyMode: true });
      adapter.setFormatter('data', withoutSecrets);
      return adapter;
    }),
    serverAdapter: server,
    options: {
      // whoever asks Redis for its workers (CLIENT LIST) is told of all who use it
      uiConfig: { boardTitle: 'Tabreel', hideRedisDetails: true, showWorkers: false, ...(hasLogin ? { miscLinks: [{ text: 'Log out', url: `${PATH}/logout` }] } : {}) },
    },
  });
  const app = new Hono();
  app.use('/api/*', async (_c, next) => {
    await ping();
    await next();
  });
  app.use(async (c, next) => {
    await next();
    c.res.headers.set('Content-Security-Policy', POLICY);
    if (!c.res.headers.get('content-type')?.startsWith('text/html')) return;
    // the policy stops the fonts of another host; without the link the browser has nothing to complain about
    const html = (await c.res.text()).replaceAll(foreignLinks, '');
    c.res = new Response(html, { status: c.res.status, headers: c.res.headers });
  });
  app.route('/', server.registerPlugin());
  return app;
}

/** A job as it may be looked at: the credential opens the recording's way in, and a page's query may hold keys. */
function withoutSecrets(data: unknown): unknown {
  if (data === null || typeof data !== 'object') return data;
  const { credential, sealed, spec, ...rest } = data as { credential?: unknown; sealed?: unknown; spec?: { url?: unknown } };
  return {
    ...rest,
    ...(spec === undefined ? {} : { spec: { ...spec, url: withoutQuery(String(spec.url)) } }),
    ...(credential === undefined ? {} : { credential: '(hidden)' }),
    ...(sealed === undefined || sealed === null ? {} : { sealed: '(hidden)' }),
  };
}
