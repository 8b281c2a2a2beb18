/**
 * The dashboard's login: a form that takes an admin's API key, and a cookie that stands for it for some hours. The cookie is
 * signed and says by which key it was had: a key that is taken from the list ends its sessions.
 */
import { Hono, type Context } from 'hono';
import { deleteCookie, getCookie, setCookie } from 'hono/cookie';
import { TabreelError } from '../../shared/errors.ts';
import { toHttpUrl } from '../../shared/origin.ts';
import { readSession, signSession } from '../../shared/token.ts';
import type { AppDeps, AppEnv } from '../app.ts';
import { readForwarded, readXForwarded } from '../origin/families.ts';
import type { RequestFacts } from '../origin/facts.ts';
import { readHeaders } from '../origin/headers.ts';
import { isTrusted, type Trust } from '../origin/trust.ts';
import { bearerKey } from './caller.ts';
import type { ApiKey } from './keys.ts';

const COOKIE = 'tabreel_dashboard';
const SESSION_MS = 8 * 3600 * 1000;
const POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const page = (title: string, body: string): string => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
<title>Tabreel: ${title}</title>
<link rel="stylesheet" href="../docs/page.css">
<main><h1>Tabreel</h1>
${body}
</main>
</html>
`;

const loginPage = (message: string) =>
  page(
    'log in',
    `<form method="post" action="login">
<p><label>API key with the scope admin<br><input type="password" name="key" autocomplete="current-password" required autofocus size="40"></label>
<p><button>Log in</button>
${message === '' ? '' : `<p role="alert">${message}`}
</form>`,
  );

const logoutPage = page('log out', '<form method="post" action="logout"><p><button>Log out</button></form>\n<p><a href="../dashboard">Back</a>');

/** Below /dashboard, before the dashboard itself: lets in who is logged in, or sends an admin's key. Without keys, everybody. */
export function dashboardLogin(deps: AppDeps): Hono<AppEnv> {
  const { keys, config, log, logins, now } = deps;
  const app = new Hono<AppEnv>();
  if (keys === null) return app;

  const html = (c: Context<AppEnv>, text: string, status: 200 | 401 | 403 | 429 = 200, headers: Record<string, string> = {}) =>
    c.html(text, status, {
      'Content-Security-Policy': POLICY,
      // without a referrer a browser calls the form's own origin null, and it couldn't be told from another's
      'Referrer-Policy': 'same-origin',
      'Cache-Control': 'no-store',
      ...headers,
    });
  const cookieOf = (c: Context<AppEnv>) => {
    const { scheme, prefix } = c.get('origin')();
    return { path: `${prefix}/dashboard`, httpOnly: true, sameSite: 'Strict' as const, secure: scheme === 'https' };
  };
  const isAdmin = (key: ApiKey | null): boolean => key?.scopes.includes('admin') === true;

  app.get('/login', (c) => html(c, loginPage('')));
  app.post('/login', async (c) => {
    assertOwnPage(c);
    const address = addressOf(deps.factsOf(c), config.trust);
    const wait = await logins.count(address);
    if (wait !== null) {
      log.warn('dashboard: too many logins', { address });
      return html(c, loginPage(`Too many attempts from your address: try again in ${wait} s.`), 429, { 'Retry-After': String(wait) });
    }
    const { key: sent } = await c.req.parseBody();
    const key = await keys.current().find(typeof sent === 'string' ? sent.trim() : '');
    if (key === null || !isAdmin(key)) {
      log.warn('dashboard: login refused', { address, key: key?.name ?? null });
      return html(c, loginPage(key === null ? 'This key is not known.' : 'This key has not the scope admin.'), key === null ? 401 : 403);
    }
    const expires = now() + SESSION_MS;
    setCookie(c, COOKIE, await signSession(config.tokenSecrets, key.sha256, expires), { ...cookieOf(c), maxAge: SESSION_MS / 1000 });
    log.info('dashboard: logged in', { address, key: key.name });
    return c.redirect('../dashboard', 303);
  });

  app.get('/logout', (c) => html(c, logoutPage));
  app.post('/logout', (c) => {
    assertOwnPage(c);
    deleteCookie(c, COOKIE, cookieOf(c));
    return c.redirect('login', 303);
  });

  app.use(async (c, next) => {
    if (!isAdmin(await keyOf(c))) return refuse(c);
    await next();
    if (!c.res.headers.has('Cache-Control')) c.res.headers.set('Cache-Control', 'private, no-cache');
    return undefined;
  });

  async function keyOf(c: Context<AppEnv>): Promise<ApiKey | null> {
    if (c.req.header('authorization') !== undefined) return bearerKey(deps, c);
    const hash = await readSession(config.tokenSecrets, getCookie(c, COOKIE) ?? '');
    return hash === null ? null : (keys as NonNullable<typeof keys>).current().withHash(hash);
  }

  /** A browser that goes to a page is shown the form. */
  function refuse(c: Context<AppEnv>): Response {
    if (c.req.method !== 'GET' || !(c.req.header('accept') ?? '').includes('text/html') || c.req.path.startsWith('/dashboard/api')) {
      throw new TabreelError('unauthorized', 'the dashboard needs a login at /dashboard/login, or an API key with the scope admin');
    }
    // relative, so that it holds behind a prefix
    const depth = c.req.path.split('/').length - 3;
    return c.redirect(depth < 0 ? 'dashboard/login' : `${'../'.repeat(depth)}login`, 302);
  }
  return app;
}

/** A page of somebody else's may not log anybody in or out. Browsers say whose page it is; other clients follow no links. */
function assertOwnPage(c: Context<AppEnv>): void {
  const site = c.req.header('sec-fetch-site');
  const sender = c.req.header('origin');
  const own = () => new URL(toHttpUrl(c.get('origin')())).origin;
  if (site === undefined ? sender === undefined || sender === own() : site === 'same-origin') return;
  throw new TabreelError('forbidden', 'the form was sent by a page of another origin');
}

/** As trusted proxies tell it, else the peer's. */
function addressOf({ peer, headers, platform }: RequestFacts, trust: Trust): string {
  const known = peer.address ?? 'unknown';
  if (platform !== null || !isTrusted(trust, peer.address)) return known;
  try {
    const seen = readHeaders(headers);
    return readForwarded(seen, trust)?.from ?? readXForwarded(seen, trust)?.from ?? known;
  } catch {
    return known;
  }
}
