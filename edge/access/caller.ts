/** Who a request is from, and what he may do. Everything is behind this but what is named here as open. */
import type { Context, MiddlewareHandler } from 'hono';
import { TabreelError } from '../../shared/errors.ts';
import type { AppDeps, AppEnv } from '../app.ts';
import type { ApiKey, KeyLimits, Scope } from './keys.ts';
import { whyNotLocal } from './local.ts';

export type Caller = {
  /** To whom what he makes belongs; null for whoever sees all. */
  owner: string | null;
  /** Whose recordings he sees; null for all. */
  sees: string | null;
  limits: KeyLimits;
  may(scope: Scope): boolean;
};

/** Who came with a recording's signed link, or asked for what is open: what a link is good for is looked at where it is used. */
const anyone: Caller = { owner: null, sees: null, limits: {}, may: () => false };
const local: Caller = { owner: null, sees: null, limits: {}, may: () => true };
/** ANTMEDIA_OPEN: a name that no key can have, so that no key's recordings are among its own. */
const plugin: Caller = { owner: '~antmedia', sees: '~antmedia', limits: {}, may: (scope) => scope === 'record' };

/** Tells of the code or of the process alone; the media socket has a credential of its own. */
const openPath = /^\/(?:healthz|readyz|v1\/origin|openapi\.json|docs(?:\/page\.(?:js|css))?|doctor\/page(?:\.(?:js|css))?|v1\/recordings\/[^/]+\/media)$/;
/** Players can't send headers: the link itself is the credential. */
const linkedPath = /^\/v1\/recordings\/[^/]+\/(?:events|live\.m3u8|live\/[^/]+|recording\.mp4|thumbnail\.jpg|manifest\.json)$/;
const pluginPath = /^\/[^/]+\/rest\/v1\/media-push\//;
/** Has a login: login.ts. */
const dashboardPath = /^\/dashboard(?:\/|$)/;

/** Sets `caller`. @throws {TabreelError} unauthorized, by a middleware before all routes: also for what isn't there */
export function authenticate(deps: AppDeps): MiddlewareHandler<AppEnv> {
  const { config } = deps;
  const callerOf = async (c: Context<AppEnv>): Promise<Caller> => {
    const { path, method } = c.req;
    const isRead = method === 'GET' || method === 'HEAD';
    if (openPath.test(path) || (config.metricsOpen === true && path === '/metrics')) return anyone;
    const isLink = isRead && linkedPath.test(path) && c.req.query('token') !== undefined;
    if (deps.keys === null) {
      if (config.antmediaOpen === true && pluginPath.test(path)) return plugin;
      assertLocal(deps, c, isLink);
      return local;
    }
    if (isLink) return anyone;
    if (config.antmediaOpen === true && pluginPath.test(path)) return plugin;
    if (dashboardPath.test(path)) return anyone;
    return withKey(deps, c);
  };
  return async (c, next) => {
    c.set('caller', await callerOf(c));
    await next();
  };
}

/** @throws {TabreelError} unauthorized */
export async function bearerKey({ keys }: AppDeps, c: Context<AppEnv>): Promise<ApiKey> {
  const sent = c.req.header('authorization');
  if (sent === undefined) throw new TabreelError('unauthorized', 'an API key is needed: Authorization: Bearer <key>');
  const token = /^Bearer +(\S+) *$/i.exec(sent)?.[1];
  const key = await keys?.current().find(token ?? '');
  if (!key) throw new TabreelError('unauthorized', token === undefined ? 'the Authorization header is not: Bearer <key>' : 'the API key is not known, or not any more');
  return key;
}

/** @throws {TabreelError} unauthorized */
async function withKey(deps: AppDeps, c: Context<AppEnv>): Promise<Caller> {
  const key = await bearerKey(deps, c);
  const isAdmin = key.scopes.includes('admin');
  return { owner: key.name, sees: isAdmin ? null : key.name, limits: key.limits, may: (scope) => isAdmin || key.scopes.includes(scope) };
}

/** A proxy on this machine makes strangers look local. @throws {TabreelError} unauthorized, with what to do about it */
function assertLocal({ config, factsOf }: AppDeps, c: Context<AppEnv>, anyPage: boolean): void {
  const why = whyNotLocal(factsOf(c), { publicUrl: config.publicUrl, corsOrigins: config.corsOrigins ?? [], anyPage });
  if (why === null) return;
  throw new TabreelError(
    'unauthorized',
    `without API keys only this very machine is served, and ${why}. The operator has to set API_KEYS (tabreel key NAME makes a key: docs/keys.md)`,
  );
}

/** @throws {TabreelError} forbidden */
export const needs = (scope: Scope): MiddlewareHandler<AppEnv> => async (c, next) => {
  const caller = c.get('caller');
  // a link is looked at by what it opens
  if (caller !== anyone && !caller.may(scope)) throw new TabreelError('forbidden', `the API key has not the scope ${scope}`);
  await next();
};

/** Whether a request that `authenticate` let pass has yet to show what lets it in. */
export const hasOnlyLink = (caller: Caller): boolean => caller === anyone;
