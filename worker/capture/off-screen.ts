/**
 * Takes a page off the screen that nobody looks at. Chromium's software compositor draws a captured tab twice: into a
 * bitmap of its own, which the capture reads, and from a fresh copy of that bitmap (3.7 MB at 720p, its pages cleared by the
 * kernel each time) into the window. Where the window shows nothing of the tab, only the first is left. Measured on four
 * videos at 30 frames a second: 0.07 to 0.1 core less, and half of the page faults.
 *
 * The page does not notice: a captured tab counts as visible.
 */
import type { CDPSession } from 'puppeteer-core';
import type { Log } from '../../shared/log.ts';

/**
 * Never fails: what can't be done costs some processor time, no more.
 * @param how `minimized` for Chromium's own windows; `outside` for headless shell, whose windows know no such state but take
 * any position
 */
export async function takeOffScreen(session: CDPSession, how: 'minimized' | 'outside', width: number, log: Log): Promise<void> {
  const [away, back] =
    how === 'minimized' ? [{ windowState: 'minimized' } as const, { windowState: 'normal' } as const] : [{ left: -2 * width }, { left: 0 }];
  try {
    // a minimized window would take the focus from its page; the other keeps it
    if (how === 'minimized') await session.send('Emulation.setFocusEmulationEnabled', { enabled: true });
    const { windowId } = await session.send('Browser.getWindowForTarget');
    await session.send('Browser.setWindowBounds', { windowId, bounds: away });
    const { result } = await session.send('Runtime.evaluate', { expression: 'document.visibilityState' });
    // a hidden page would stop its animations and videos
    if (result.value !== 'visible') await session.send('Browser.setWindowBounds', { windowId, bounds: back });
  } catch (error) {
    log.debug('the page stays on the screen', { error });
  }
}
