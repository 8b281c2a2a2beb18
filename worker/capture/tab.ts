/**
 * Full Chromium or Chrome: a controller page of ours captures the target's tab, sound included. The stream lives on
 * across the target's navigations, and what the page forbids (CSP sandbox, permissions policy) does not touch it.
 */
import type { Capture, CaptureEngine } from './capture.ts';
import { mainContext } from './execution-context.ts';
import { takeOffScreen } from './off-screen.ts';
import { createStirrer } from './stir.ts';
import { paceAnimation } from './in-page/pace-animation.ts';
import { startStreamSession } from './stream-session.ts';
import { TabreelError } from '../../shared/errors.ts';

const WORLD = 'recorder';
/** Frames a second that headless Chromium draws. */
const DISPLAY_RATE = 60;

export const tabCapture: CaptureEngine = {
  name: 'tab',
  deafTo: null,
  async open(browser, settings, log) {
    const page = (await browser.pages())[0] ?? (await browser.newPage());
    await page.setViewport({ width: settings.width, height: settings.height });
    if (settings.frameRate <= DISPLAY_RATE / 2) await page.evaluateOnNewDocument(paceAnimation, settings.frameRate);
    return {
      page,
      async attach(events): Promise<Capture> {
        // the browser's picker takes the tab with this title; once taken, its title and address may change
        await page.evaluate((title) => {
          document.title = title;
        }, settings.captureTitle);
        const controller = await browser.newPage();
        await controller.goto(settings.controllerUrl);
        const session = await controller.createCDPSession();
        const context = await mainContext(session);
        const target = await page.createCDPSession();
        const moving = createStirrer(target, WORLD);
        const stream = await startStreamSession(session, settings, { ...events, moving }, {
          world: null,
          executionContextId: context,
          source: 'display',
          active: settings.calibrate,
          audio: true,
          tapEvent: null,
          stir: null,
        }).catch((cause: unknown) => {
          throw new TabreelError('capture_unavailable', 'The browser did not let its tab be captured', { cause });
        });
        await page.bringToFront();
        await takeOffScreen(target, 'minimized', settings.width, log);
        return {
          begin: () => stream.call('begin'),
          rest: (at) => stream.call('rest', at),
          setRate: (bitrate, frameRate) => stream.call('setRate', bitrate, frameRate),
          keyFrame: () => stream.call('keyFrame'),
          pulse: stream.counts,
          snapshot: stream.snapshot,
          stop: stream.stop,
          [Symbol.dispose]: () => undefined,
        };
      },
    };
  },
};
