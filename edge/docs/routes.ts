/** openapi.json and a page that shows it. The page loads nothing from elsewhere. */
import { Hono, type Env } from 'hono';
import { openAPIRouteHandler } from 'hono-openapi';
import { page, pageScript, pageStyle } from './page.ts';
import { securitySchemes } from './security.ts';

export function docsRoutes<E extends Env>(app: Hono<E>): Hono<E> {
  const docs = new Hono<E>();
  docs.get(
    '/openapi.json',
    openAPIRouteHandler(app, {
      excludeStaticFile: false,
      exclude: [/^\/(docs|dashboard|doctor|openapi\.json)/],
      documentation: {
        openapi: '3.1.0',
        info: { title: 'Tabreel', version: '1', description: 'Records live web pages: one HTTP call in, live HLS and an MP4 out.' },
        components: { securitySchemes },
      },
    }),
  );
  docs.get('/docs', (c) => {
    c.header('Content-Security-Policy', "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'");
    return c.html(page);
  });
  docs.get('/docs/page.js', (c) => c.body(pageScript, 200, { 'Content-Type': 'text/javascript; charset=utf-8' }));
  docs.get('/docs/page.css', (c) => c.body(pageStyle, 200, { 'Content-Type': 'text/css; charset=utf-8' }));
  return docs;
}
