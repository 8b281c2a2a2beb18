/** Who may do what: every route that openapi.json names, with no key, a wrong one, one without the scope, and a link. Whose recordings a key sees: isolation.test.ts. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createApp } from '../../edge/app.ts';
import { openConnections } from '../../edge/connections.ts';
import { signToken } from '../../shared/token.ts';
import { keySetting, testKey, type TestKey } from '../helpers/keys.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { testEdge, type TestEdge } from './harness.ts';

type Security = Record<'apiKey' | 'link', string[]>;
type Route = { method: string; path: string; security: Partial<Security>[] };

const keys = {
  owner: await testKey('team-a', ['record', 'read']),
  recorder: await testKey('team-a', ['record']),
  reader: await testKey('team-a', ['read']),
  admin: await testKey('ops', ['admin']),
};
const apiKeys = keySetting(...Object.values(keys));
const page = 'https://example.com/';

let redis: TestRedis;
let edge: TestEdge;
let routes: Route[];
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis, { apiKeys });
  const { body } = await edge.api('/openapi.json');
  routes = Object.entries(body.paths as Record<string, Record<string, { security?: Partial<Security>[] }>>).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { security }]) => {
      if (security === undefined) throw new Error(`${method} ${path} does not say who may call it`);
      return { method: method.toUpperCase(), path, security };
    }),
  );
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const made = async (by: TestKey): Promise<string> => (await edge.post({ url: page }, by.headers)).body.id as string;

/** A request that would do what the route is for, were it allowed. */
async function send({ method, path }: Route, { headers }: { headers?: Record<string, string> }, id: string, more = '') {
  const filled = path.replace('{id}', id).replace('{name}', '1-1-0-init.mp4').replace('{app}', 'LiveApp').replace('{streamId}', 'nobody-pushes-this');
  const body = path.endsWith('/start') ? { url: 'no url' } : path.endsWith('/markers') ? { label: 'a' } : path.endsWith('/commands') ? { script: '1' } : { url: page };
  return edge.api(`${filled}${more}`, { method, headers: { ...headers, 'content-type': 'application/json' }, ...(method === 'POST' ? { body: JSON.stringify(body) } : {}), redirect: 'manual', signal: AbortSignal.timeout(8000) });
}
const secured = () => routes.filter(({ security }) => security.length > 0);
const named = ({ method, path }: Route) => `${method} ${path}`;

describe('every route', () => {
  test('is in the table, and all but three need a key', () => {
    expect(routes.length).toBeGreaterThan(20);
    expect(routes.filter(({ security }) => security.length === 0).map(named).sort()).toEqual(['GET /healthz', 'GET /readyz', 'GET /v1/origin']);
  });

  test('that the application has is one of them, or shows nothing of anybody', async () => {
    const { close, ...connections } = openConnections(edge.config, () => undefined);
    const app = createApp({
      ...connections, config: { ...edge.config, tokenSecrets: [] }, log: edge.log, keys: null, media: null, metrics: null, dashboard: null,
      factsOf: () => ({ peer: { address: null, encrypted: false }, headers: [], target: null, platform: null }),
      networkIdentity: null, closing: new AbortController().signal, now: Date.now,
    });
    await close();
    const known = new Set(routes.map(({ method, path }) => `${method} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`));
    const rest = app.routes.filter(({ method, path }) => method !== 'ALL' && !known.has(`${method} ${path}`));
    expect([...new Set(rest.map(({ method, path }) => `${method} ${path}`))].sort()).toEqual([
      'GET /dashboard/*', 'GET /docs', 'GET /docs/page.css', 'GET /docs/page.js', 'GET /doctor/page', 'GET /doctor/page.css', 'GET /doctor/page.js', 'GET /openapi.json', 'GET /v1/recordings/:id/media',
    ]);
  });

  test('without a key, or with one that is not known: 401, and how it is to be done', async () => {
    const id = await made(keys.owner);
    const unknown = [{}, { headers: { authorization: `Bearer ${keys.owner.key}x` } }, { headers: { authorization: `Bearer tbr_${'a'.repeat(32)}` } }, { headers: { authorization: `Basic ${keys.owner.key}` } }, { headers: { authorization: keys.owner.key } }];
    for (const route of secured()) {
      for (const [i, credential] of unknown.entries()) {
        const { status, body, headers } = await send(route, credential, id);
        expect({ route: named(route), i, status, code: body.code, way: headers.get('www-authenticate') }).toEqual({ route: named(route), i, status: 401, code: 'unauthorized', way: 'Bearer realm="tabreel"' });
      }
    }
    expect((await edge.control.store.get(id))?.desired).toBe('recording');
  });

  test('with a key that has another scope: 403', async () => {
    const id = await made(keys.owner);
    for (const route of secured()) {
      const scope = route.security[0]?.apiKey?.[0];
      const without = { record: [keys.reader], read: [keys.recorder], admin: [keys.reader, keys.recorder, keys.owner] }[scope ?? ''] ?? [];
      expect(without.length, `${named(route)} names a scope`).toBeGreaterThan(0);
      for (const key of without) {
        const { status, body } = await send(route, key, id);
        expect({ route: named(route), status, code: body.code }).toEqual({ route: named(route), status: 403, code: 'forbidden' });
      }
    }
    expect((await edge.control.store.get(id))?.desired).toBe('recording');
  });

  test('with a link: read-only, for one recording, until it expires, and nothing else', async () => {
    const [id, other] = [await made(keys.owner), await made(keys.owner)];
    const secrets = edge.config.tokenSecrets ?? [];
    const token = (of: string, use: 'view' | 'media', expires = Date.now() + 60_000) => signToken(secrets, of, use, expires);
    const bad = [await token(other, 'view'), await token(id, 'media'), await token(id, 'view', Date.now() - 1000), 'x.y.z', ''];
    for (const route of secured()) {
      const byLink = route.security.some(({ link }) => link !== undefined);
      if (!byLink) {
        expect([named(route), (await send(route, {}, id, `?token=${await token(id, 'view')}`)).status]).toEqual([named(route), 401]);
        continue;
      }
      for (const each of bad) expect([named(route), (await send(route, {}, id, `?token=${each}`)).status]).toEqual([named(route), 401]);
      if (route.path.endsWith('/events')) continue;
      expect([named(route), (await send(route, {}, id, `?token=${await token(id, 'view')}`)).status]).toEqual([named(route), 404]);
    }
  });

  test('what is not there, too', async () => {
    for (const path of ['/', '/nothing', '/v1/recordings/x/y', '/v1', '/v1/recordings/rec_x/media/x', '/docs/x', '/healthz/x', '//healthz', '/HEALTHZ']) {
      expect([path, (await edge.api(path)).status]).toEqual([path, 401]);
    }
    expect((await edge.api('/nothing', { headers: keys.reader.headers })).status).toBe(404);
    expect((await edge.api('/v1/recordings', { method: 'OPTIONS' })).status).toBe(401);
  });
});

describe('the Media Push plugin’s paths', () => {
  const call = (at: TestEdge, path: string, headers: Record<string, string> = {}, body: unknown = { url: page }) =>
    at.api(`/LiveApp/rest/v1/media-push/${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) });

  test('need none with ANTMEDIA_OPEN, and see what came by them alone', async () => {
    await using own = await testEdge(redis, { apiKeys, antmediaOpen: true });
    const owned = call(own, 'start?streamId=s2', keys.owner.headers);
    const queued = async () => (await own.api('/v1/recordings', { headers: keys.admin.headers })).body.recordings.length as number;
    await expect.poll(queued, { timeout: 10_000 }).toBe(1);
    expect((await call(own, 'stop/s2')).body).toMatchObject({ success: true });
    expect((await owned).body).toMatchObject({ success: false, message: expect.stringContaining('stopped') });
    expect((await own.api('/v1/recordings')).status).toBe(401);
    expect((await own.api('/v1/recordings', { headers: keys.owner.headers })).body.recordings).toEqual([]);
  });
});
