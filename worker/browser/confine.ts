/**
 * What every page is denied, whatever records it: downloads, permissions, capturing itself. Windows of its own are denied by flags
 * (flags.ts), addresses by the recording's proxy, everything beside the web by Chromium itself.
 */
import type { Browser, Page } from 'puppeteer-core';

/** Before any page is opened. @throws where the browser is gone */
export async function confineBrowser(browser: Browser): Promise<void> {
  const session = await browser.target().createCDPSession();
  await session.send('Browser.setDownloadBehavior', { behavior: 'deny' });
  // "grants the given permissions and rejects all others", for all origins: in some, Chromium's default is yes
  await session.send('Browser.grantPermissions', { permissions: [] });
  // both hold for as long as the session does
}

/** Of a page that will be recorded, before it goes anywhere. */
export async function confinePage(page: Page): Promise<void> {
  await page.evaluateOnNewDocument(refuseCapture);
  // nobody is there to answer; a page that asks whether it may be left may be
  page.on('dialog', (dialog) => void (dialog.type() === 'beforeunload' ? dialog.accept() : dialog.dismiss()).catch(() => undefined));
  // a window that the flags let pass, after a gesture: it would cover the one that is recorded, and nobody would see it
  page.on('popup', (popup) => void popup?.close().catch(() => undefined));
}

/**
 * Runs in the page's own world before its scripts, in each of its frames. Headless shell grants whoever asks for a camera, a microphone
 * or its own tab (`--use-fake-ui-for-media-stream`), as our capture must; that asks from another world, whose functions are its own.
 * Injected as text: it must not refer to anything outside itself.
 */
function refuseCapture(): void {
  const refuse = <T extends (...args: never[]) => unknown>(native: T, how: (args: unknown[]) => unknown): T => new Proxy(native, { apply: (_target, _self, args: unknown[]) => how(args) });
  const error = () => new DOMException('Permission denied', 'NotAllowedError');
  const replace = (owner: object | undefined, name: string, how: (args: unknown[]) => unknown) => {
    const own = owner && Object.getOwnPropertyDescriptor(owner, name);
    if (own && typeof own.value === 'function') Object.defineProperty(owner, name, { ...own, value: refuse(own.value as () => unknown, how) });
  };
  const scope = globalThis as unknown as Record<string, { prototype: object } | undefined>;
  for (const name of ['getUserMedia', 'getDisplayMedia', 'getViewportMedia', 'getAllScreensMedia', 'selectAudioOutput']) {
    replace(scope['MediaDevices']?.prototype, name, () => Promise.reject(error()));
  }
  for (const name of ['getUserMedia', 'webkitGetUserMedia']) {
    replace(scope['Navigator']?.prototype, name, (args) => {
      const [, , failed] = args;
      if (typeof failed === 'function') queueMicrotask(() => (failed as (error: DOMException) => void)(error()));
    });
  }
}
