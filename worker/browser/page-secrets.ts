/** Headers and cookies that a caller gave for the page: they go to the page's origin and nowhere else. */
import type { CDPSession, Page } from 'puppeteer-core';
import type { PageSecrets } from '../../shared/recording.ts';

/** Call before the first navigation. */
export async function sendSecrets(page: Page, url: string, secrets: PageSecrets): Promise<void> {
  const { origin } = new URL(url);
  if (secrets.cookies.length === 0 && Object.keys(secrets.headers).length === 0) return;
  const session = await page.createCDPSession();
  for (const { name, value, path } of secrets.cookies) {
    // without a domain it is the host's alone, not its subdomains'
    await session.send('Network.setCookie', { name, value, url: origin, ...(path === undefined ? {} : { path }) });
  }
  if (Object.keys(secrets.headers).length > 0) await addHeaders(session, origin, secrets.headers);
}

/**
 * Every request is looked at, not only the origin's: headers set on a request stay on it when it is redirected, and a
 * redirect may lead to another origin.
 */
async function addHeaders(session: CDPSession, origin: string, secret: Readonly<Record<string, string>>): Promise<void> {
  const ours = new Map(Object.entries(secret).map(([name, value]) => [name.toLowerCase(), value]));
  session.on('Fetch.requestPaused', ({ requestId, request }) => {
    const sameOrigin = URL.canParse(request.url) && new URL(request.url).origin === origin;
    const others = Object.entries(request.headers).filter(([name, value]) => {
      const own = ours.get(name.toLowerCase());
      return own === undefined || (!sameOrigin && own !== value);
    });
    const headers = [...others, ...(sameOrigin ? Object.entries(secret) : [])].map(([name, value]) => ({ name, value }));
    // the request may be gone already, with its frame
    session.send('Fetch.continueRequest', { requestId, headers }).catch(() => undefined);
  });
  await session.send('Fetch.enable', { patterns: [{ urlPattern: '*', requestStage: 'Request' }] });
}
