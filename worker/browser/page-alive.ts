/** Asks a page whether it still runs scripts: one that is hung has a living process and a picture that stands still. */
import type { Page } from 'puppeteer-core';

/**
 * A question that the page's own thread answers, at a price of next to nothing. Resolves when it is answered, in whatever way:
 * that there is another document now, or none, is an answer too. A dialog would hold it up, and is closed by `openPage`.
 */
export async function createPageQuestion(page: Page): Promise<() => Promise<void>> {
  const session = await page.createCDPSession();
  return async () => {
    await session.send('Runtime.evaluate', { expression: '0', returnByValue: true, silent: true }).catch(() => undefined);
  };
}
