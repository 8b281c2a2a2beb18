/** The page alone: the browser that an engine uses, launched as the worker launches it, nothing captured. */
import { createLog } from '../../../shared/log.ts';
import type { FoundBrowser } from '../../../worker/browser/find.ts';
import { launchBrowser } from '../../../worker/browser/launch.ts';
import { startProxy } from '../../../worker/outbound/proxy.ts';
import { picture, type Way } from '../way.ts';

const silent = createLog('error', () => undefined);

/** What the worker's browser is launched with where nothing is captured. */
export const plainLaunch = (found: FoundBrowser, proxyPort: number) => ({
  ...found,
  ...picture,
  sandbox: process.getuid?.() !== 0,
  devShm: true,
  proxyPort,
  captureTitle: 'nothing',
  paced: false,
  webrtc: 'proxied' as const,
});

export const alone = (name: string, found: FoundBrowser): Way => ({
  name,
  what: `${found.kind === 'chrome' ? 'Chromium' : 'headless shell'} ${found.version} shows the page; nothing is captured`,
  draws: null,
  async start({ url, group }) {
    const proxy = await startProxy({ log: silent, judge: async () => null });
    const launched = await launchBrowser(
      { ...plainLaunch(found, proxy.port), executable: group.wrap(found.executable) },
      AbortSignal.timeout(30_000),
    );
    const page = (await launched.browser.pages())[0] ?? (await launched.browser.newPage());
    await page.setViewport({ width: picture.width, height: picture.height });
    await page.goto(url);
    return {
      group,
      edge: null,
      async stop() {
        await launched[Symbol.asyncDispose]();
        await proxy[Symbol.asyncDispose]();
        return null;
      },
    };
  },
});
