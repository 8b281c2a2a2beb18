/**
 * The recorder as the page's display: it asks for each frame (HeadlessExperimental.beginFrame), so that the page draws at
 * the recording's rate and no faster. The domain is deprecated but alive in headless shell 153.
 */
import type { CDPSession } from 'puppeteer-core';

export type FrameTicker = {
  /** Frames per second from now on, while the page changes; null for as few as a still page gets. */
  setRate(frameRate: number | null): void;
  /** Asks for no further frame. One that was asked for may still come: a page that is hung isn't waited for. */
  stop(): void;
};

/** Frames without any change until the ticks slow down, and what they slow down to, in milliseconds. */
const CALM_AFTER = 30;
const CALM_INTERVAL = 100;

/** @param frameRate frames per second while the page changes. */
export function startFrameTicker(session: CDPSession, frameRate: number): FrameTicker {
  let interval = 1000 / frameRate;
  let stopped = false;
  let unchanged = 0;
  const run = async () => {
    let next = performance.now();
    while (!stopped) {
      const wait = next - performance.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      if (stopped) break;
      try {
        const { hasDamage } = await session.send('HeadlessExperimental.beginFrame', { interval, noDisplayUpdates: false });
        unchanged = hasDamage ? 0 : unchanged + 1;
      } catch {
        // the page is between two documents, or gone: the recorder hears of that elsewhere
        unchanged = CALM_AFTER;
      }
      next += unchanged >= CALM_AFTER ? CALM_INTERVAL : interval;
      // a frame that took long is not made up for by a burst
      next = Math.max(next, performance.now());
    }
  };
  void run();
  return {
    setRate(rate) {
      interval = rate === null ? CALM_INTERVAL : 1000 / rate;
    },
    stop() {
      stopped = true;
    },
  };
}
