/**
 * The last resort: pictures as JPEGs over the debugging protocol, encoded on a controller page of ours. It works on any page
 * in any Chromium, at 10 to 15 frames a second, at a high price, and deaf.
 */
import type { Protocol } from 'puppeteer-core';
import { TabreelError } from '../../shared/errors.ts';
import { monotonicMicros } from '../media/clock.ts';
import type { CaptureEngine } from './capture.ts';
import { mainContext } from './execution-context.ts';
import { startStreamSession } from './stream-session.ts';

/** JPEGs being decoded at once; more are dropped. */
const MAX_DECODING = 3;
/** A frame that comes so little before its time is taken for punctual. */
const EARLY_MS = 4;

export const screencastCapture: CaptureEngine = {
  name: 'screencast',
  deafTo: 'all sound',
  async open(browser, settings) {
    const page = (await browser.pages())[0] ?? (await browser.newPage());
    await page.setViewport({ width: settings.width, height: settings.height });
    return {
      page,
      async attach(events) {
        const controller = await browser.newPage();
        await controller.goto(settings.controllerUrl);
        const encoding = await controller.createCDPSession();
        const stream = await startStreamSession(encoding, settings, events, {
          world: null,
          executionContextId: await mainContext(encoding),
          source: 'images',
          active: false,
          audio: false,
          tapEvent: null,
          stir: null,
        }).catch((cause: unknown) => {
          throw new TabreelError('capture_unavailable', 'The browser can not encode the picture', { cause });
        });
        await page.bringToFront();

        const session = await page.createCDPSession();
        let decoding = 0;
        let dropped = 0;
        let seen: () => void = () => undefined;
        const first = new Promise<void>((resolve) => {
          seen = resolve;
        });
        const show = ({ data, metadata }: Protocol.Page.ScreencastFrameEvent) => {
          if (decoding >= MAX_DECODING) {
            dropped += 1;
            return;
          }
          decoding += 1;
          // the browser stamps with the wall clock
          const age = metadata.timestamp === undefined ? 0 : Math.max(0, Date.now() * 1000 - metadata.timestamp * 1e6);
          stream
            .call('image', data, Math.round(monotonicMicros() - age))
            .then(seen, events.failed)
            .finally(() => {
              decoding -= 1;
            });
        };
        // the browser gives every frame that the page draws: of those that come early for the frame rate, the last one waits
        const interval = 1000 / settings.frameRate;
        let due = -Infinity;
        let early: Protocol.Page.ScreencastFrameEvent | null = null;
        let timer: NodeJS.Timeout | undefined;
        const showNow = (frame: Protocol.Page.ScreencastFrameEvent) => {
          due = Math.max(due, performance.now() - interval) + interval;
          early = null;
          show(frame);
        };
        session.on('Page.screencastFrame', (frame) => {
          session.send('Page.screencastFrameAck', { sessionId: frame.sessionId }).catch(() => undefined);
          clearTimeout(timer);
          const wait = due - performance.now();
          if (wait < EARLY_MS) return showNow(frame);
          early = frame;
          timer = setTimeout(() => early !== null && showNow(early), wait);
        });
        const startCast = () =>
          session.send('Page.startScreencast', { format: 'jpeg', quality: 90, maxWidth: settings.width, maxHeight: settings.height });
        const stopCast = async () => {
          await session.send('Page.stopScreencast').catch(() => undefined);
          clearTimeout(timer);
          if (early !== null) showNow(early);
        };
        let resting = false;
        await startCast();
        return {
          async begin() {
            if (!resting) await first;
            await stream.call('begin');
            if (resting) await startCast();
            resting = false;
          },
          async rest(at) {
            resting = true;
            await stopCast();
            await stream.call('rest', at);
          },
          setRate: (bitrate, frameRate) => stream.call('setRate', bitrate, frameRate),
          keyFrame: () => stream.call('keyFrame'),
          async pulse() {
            const counts = await stream.counts();
            return { ...counts, dropped: counts.dropped + dropped };
          },
          snapshot: stream.snapshot,
          async stop() {
            await stopCast();
            return stream.stop();
          },
          [Symbol.dispose]: () => undefined,
        };
      },
    };
  },
};
