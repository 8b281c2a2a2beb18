/** `GET /v1/origin`: what a recording that is created by the same way would get. */
import { Hono } from 'hono';
import { describeRoute } from 'hono-openapi';
import type { AppEnv } from '../app.ts';
import { originDescription } from '../docs/descriptions.ts';

export function originRoutes(): Hono<AppEnv> {
  return new Hono<AppEnv>().get('/', describeRoute(originDescription), async (c) => {
    const verdict = c.get('origin')();
    const { url: websocket, step } = await c.get('mediaBase')();
    const { scheme, host, port, prefix, source, hops, peer, trusted } = verdict;
    const steps = [...verdict.explain(), step];
    return c.json({ scheme, host, port, prefix, websocket, source, hops, peer, trusted, steps }, 200, { 'Cache-Control': 'no-store' });
  });
}
