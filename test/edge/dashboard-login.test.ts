/** The dashboard behind its login, as a browser meets it. */
import { launch } from 'puppeteer-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { keyRing, type KeyRing } from '../../edge/access/keys.ts';
import { findBrowser } from '../../worker/browser/find.ts';
import { keySetting, testKey } from '../helpers/keys.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { lacks } from '../helpers/service.ts';
import { testEdge, type TestEdge } from './harness.ts';

const admin = await testKey('ops', ['admin']);
const reader = await testKey('team-a', ['record', 'read']);

let redis: TestRedis;
beforeAll(async () => {
  redis = await startRedis();
});
afterAll(() => redis[Symbol.asyncDispose]());

const secured = () => testEdge(redis, { apiKeys: keySetting(admin, reader) });
const at = (edge: TestEdge, path: string, init: RequestInit = {}) => fetch(`${edge.url}${path}`, { redirect: 'manual', ...init });
const form = (key: string, headers: Record<string, string> = {}): RequestInit => ({ method: 'POST', body: new URLSearchParams({ key }), headers });
const cookieOf = (answer: Response) => answer.headers.get('set-cookie')?.split(';')[0] ?? '';
const html = { accept: 'text/html' };

describe('the login', () => {
  test('takes an admin’s key, and gives a cookie that scripts, other sites and other paths never see', async () => {
    await using edge = await secured();
    const answer = await at(edge, '/dashboard/login', form(` ${admin.key}\n`));
    expect([answer.status, answer.headers.get('location')]).toEqual([303, '../dashboard']);
    const cookie = answer.headers.get('set-cookie') ?? '';
    expect(cookie).toMatch(/^tabreel_dashboard=[^;]+; Max-Age=28800; Path=\/dashboard; HttpOnly; SameSite=Strict$/);
    expect(cookie).not.toContain(admin.key);
    const inside = await at(edge, '/dashboard', { headers: { ...html, cookie: cookieOf(answer) } });
    expect([inside.status, await inside.text()]).toEqual([200, expect.stringContaining('Tabreel')]);
    expect((await at(edge, '/dashboard/api/queues', { headers: { cookie: cookieOf(answer) } })).status).toBe(200);
    // it is for the dashboard alone
    expect((await at(edge, '/v1/recordings', { headers: { cookie: cookieOf(answer) } })).status).toBe(401);
    // behind a proxy with TLS, and a prefix
    const proxied = await at(edge, '/dashboard/login', form(admin.key, { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'rec.example.com', 'x-forwarded-prefix': '/tabreel' }));
    expect(proxied.headers.get('set-cookie')).toMatch(/; Path=\/tabreel\/dashboard; HttpOnly; Secure; SameSite=Strict$/);
    expect(proxied.headers.get('strict-transport-security')).toMatch(/^max-age=\d+$/);
    expect(answer.headers.get('strict-transport-security')).toBeNull();
  });

  test('is asked for where somebody is not logged in', async () => {
    await using edge = await secured();
    for (const [path, location] of [['/dashboard', 'dashboard/login'], ['/dashboard/', 'login'], ['/dashboard/queue/record', '../login']] as const) {
      const answer = await at(edge, path, { headers: html });
      expect([path, answer.status, answer.headers.get('location')]).toEqual([path, 302, location]);
      expect(new URL(location, `${edge.url}${path}`).pathname).toBe('/dashboard/login');
    }
    for (const [path, init] of [['/dashboard/api/queues', { headers: html }], ['/dashboard', {}], ['/dashboard/api/queues', { method: 'PUT' }], ['/dashboard/static/x.js', {}]] as const) {
      expect([path, (await at(edge, path, init)).status]).toEqual([path, 401]);
    }
    expect((await at(edge, '/dashboard/api/queues', { headers: admin.headers })).status).toBe(200);
    expect((await at(edge, '/dashboard/api/queues', { headers: reader.headers })).status).toBe(401);
    const page = await at(edge, '/dashboard/login');
    expect(page.headers.get('content-security-policy')).toMatch(/default-src 'none'.*form-action 'self'.*frame-ancestors 'none'/);
    expect([page.headers.get('x-content-type-options'), page.headers.get('cache-control'), page.headers.get('x-frame-options')]).toEqual(['nosniff', 'no-store', 'DENY']);
  });

  test('refuses other keys, forged and old cookies, and too many attempts from one address', async () => {
    await using edge = await secured();
    const refused = async (key: string) => {
      const answer = await at(edge, '/dashboard/login', form(key, { 'x-forwarded-for': '198.51.100.7' }));
      return { status: answer.status, cookie: answer.headers.get('set-cookie'), text: await answer.text() };
    };
    expect(await refused(reader.key)).toMatchObject({ status: 403, cookie: null, text: expect.stringContaining('scope admin') });
    for (let i = 0; i < 9; i += 1) expect(await refused(`tbr_${i}`)).toMatchObject({ status: 401, cookie: null, text: expect.not.stringContaining(`tbr_${i}`) });
    expect(await refused(admin.key)).toMatchObject({ status: 429, cookie: null });
    expect((await at(edge, '/dashboard/login', form(admin.key, { 'x-forwarded-for': '198.51.100.8' }))).status).toBe(303);
    expect(edge.logs.join('')).not.toContain(admin.key);

    const { signSession, signToken } = await import('../../shared/token.ts');
    const inWith = async (value: string) => (await at(edge, '/dashboard/api/queues', { headers: { cookie: `tabreel_dashboard=${value}` } })).status;
    const secrets = edge.config.tokenSecrets ?? [];
    const later = Date.now() + 60_000;
    expect(await inWith(await signSession(secrets, admin.entry.sha256, later))).toBe(200);
    expect(await inWith(await signSession(secrets, admin.entry.sha256, Date.now() - 1000))).toBe(401);
    expect(await inWith(await signSession(['another-secret-of-anybody'], admin.entry.sha256, later))).toBe(401);
    expect(await inWith(await signSession(secrets, reader.entry.sha256, later))).toBe(401);
    expect(await inWith(await signToken(secrets, admin.entry.sha256, 'view', later))).toBe(401);
    expect(await inWith('')).toBe(401);
  });

  test('obeys no form of another site’s', async () => {
    await using edge = await secured();
    for (const path of ['/dashboard/login', '/dashboard/logout']) {
      for (const headers of [{ origin: 'https://evil.example' }, { origin: 'null' }, { 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site', origin: edge.url }, { 'sec-fetch-site': 'none' }]) {
        const answer = await at(edge, path, form(admin.key, headers as Record<string, string>));
        expect([path, headers, answer.status, answer.headers.get('set-cookie')]).toEqual([path, headers, 403, null]);
      }
      for (const headers of [{ origin: edge.url }, { 'sec-fetch-site': 'same-origin', origin: 'null' }]) {
        expect((await at(edge, path, form(admin.key, headers as Record<string, string>))).status).toBe(303);
      }
    }
  });

  test('ends with its key', async () => {
    let ring: KeyRing = keyRing([admin.entry]);
    const changing = { find: (key: string) => ring.find(key), withHash: (hash: string) => ring.withHash(hash), size: 1 };
    await using edge = await testEdge(redis, { apiKeys: { ring: changing } });
    const cookie = cookieOf(await at(edge, '/dashboard/login', form(admin.key)));
    const status = async () => (await at(edge, '/dashboard/api/queues', { headers: { cookie } })).status;
    expect(await status()).toBe(200);
    ring = keyRing([{ ...admin.entry, scopes: ['read'] }]);
    expect(await status()).toBe(401);
    ring = keyRing([reader.entry]);
    expect(await status()).toBe(401);
  });

  test('is none without keys', async () => {
    await using edge = await testEdge(redis);
    expect((await at(edge, '/dashboard', { headers: html })).status).toBe(200);
  });
});

describe.skipIf(await lacks('headless shell'))('in a browser', () => {
  test('one logs in, looks at the queues, and logs out', async () => {
    await using edge = await secured();
    const { executable, libraryPath, fontsPath } = await findBrowser({ chromiumPath: null, engine: 'self' });
    const browser = await launch({
      executablePath: executable,
      pipe: true,
      args: ['--disable-gpu', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
      env: { ...process.env, ...(libraryPath === null ? {} : { LD_LIBRARY_PATH: libraryPath }), ...(fontsPath === null ? {} : { FONTCONFIG_PATH: fontsPath }) },
    });
    try {
      const tab = await browser.newPage();
      await tab.goto(`${edge.url}/dashboard/queue/record`);
      expect(tab.url()).toBe(`${edge.url}/dashboard/login`);
      await tab.type('input[name=key]', reader.key);
      await Promise.all([tab.waitForNavigation(), tab.click('button')]);
      expect(await tab.$eval('[role=alert]', ({ textContent }) => textContent)).toContain('scope admin');
      await tab.type('input[name=key]', admin.key);
      await Promise.all([tab.waitForNavigation(), tab.click('button')]);
      expect(tab.url()).toBe(`${edge.url}/dashboard`);
      await tab.waitForFunction(() => document.body.innerText.includes('record') && document.body.innerText.includes('finish'), { timeout: 15_000 });
      expect(await tab.evaluate(() => document.cookie)).toBe('');
      await tab.goto(`${edge.url}/dashboard/logout`);
      await Promise.all([tab.waitForNavigation(), tab.click('button')]);
      await tab.goto(`${edge.url}/dashboard`);
      expect(tab.url()).toBe(`${edge.url}/dashboard/login`);
    } finally {
      await browser.close();
    }
  });
});
