/**
 * Headless shell: the tab captures itself, from an isolated world that the page can't reach. The stream ends with each
 * document, so every navigation begins another; the pictures' clock is the machine's and goes on. Sound comes from a tap
 * in the page, as this build has no audio device.
 */
import { randomBytes } from 'node:crypto';
import type { Browser, CDPSession, Page } from 'puppeteer-core';
import { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import type { Capture, CaptureCounts, CaptureEngine, CaptureEvents, CapturePulse, CaptureSettings } from './capture.ts';
import { startFrameTicker, type FrameTicker } from './frame-ticker.ts';
import { audioTap } from './in-page/audio-tap.ts';
import type { CaptureHandle } from './in-page/capture-stream.ts';
import { takeOffScreen } from './off-screen.ts';
import { installStir } from './stir.ts';
import { startStreamSession, type StreamSession } from './stream-session.ts';

const WORLD = 'recorder';
const STIR = 'stir';

/**
 * @param paced let the recorder give the page its frames, at the recording's rate: a page that animates at 60 Hz is then
 * drawn 30 times a second for a recording of 30. The browser must have been launched for it.
 */
export const selfCapture = (paced: boolean): CaptureEngine => ({
  name: 'self',
  deafTo: 'sound of cross-origin media served without CORS, and of cross-origin frames',
  async open(browser, settings, log) {
    const page = paced ? await newPacedPage(browser, settings) : ((await browser.pages())[0] ?? (await browser.newPage()));
    await page.setViewport({ width: settings.width, height: settings.height });
    const session = await page.createCDPSession();
    const ticker = paced ? startFrameTicker(session, settings.frameRate) : null;
    const tapEvent = `tap${randomBytes(8).toString('hex')}`;
    if (settings.audio) await page.evaluateOnNewDocument(audioTap, tapEvent);
    await allowDisplayCapture(session);
    return {
      page,
      async attach(events) {
        const capture = await startSelfCapture(session, settings, events, tapEvent, ticker, log);
        await takeOffScreen(session, 'outside', settings.width, log);
        return capture;
      },
    };
  },
});

async function newPacedPage(browser: Browser, settings: CaptureSettings): Promise<Page> {
  const [blank] = await browser.pages();
  const session = await browser.target().createCDPSession();
  const created = browser.waitForTarget((target) => target.type() === 'page' && target !== blank?.target());
  await session.send('Target.createTarget', {
    url: 'about:blank',
    width: settings.width,
    height: settings.height,
    enableBeginFrameControl: true,
  });
  const page = await (await created).page();
  await session.detach();
  if (page === null) throw new TabreelError('browser_launch_failed', 'The browser gave no page');
  await blank?.close();
  return page;
}

/** A page's own policy would keep it from capturing itself; who captures is us, not the page. */
async function allowDisplayCapture(session: CDPSession): Promise<void> {
  session.on('Fetch.requestPaused', ({ requestId, responseHeaders, responseStatusCode }) => {
    const kept = responseHeaders?.filter(({ name }) => !/^(permissions|feature)-policy$/i.test(name));
    const changed = kept !== undefined && responseStatusCode !== undefined && kept.length !== responseHeaders?.length;
    session
      .send('Fetch.continueResponse', {
        requestId,
        ...(changed ? { responseCode: responseStatusCode, responseHeaders: kept } : {}),
      })
      // the request may be gone already, with its page
      .catch(() => undefined);
  });
  await session.send('Fetch.enable', { patterns: [{ resourceType: 'Document', requestStage: 'Response' }] });
}

async function startSelfCapture(
  session: CDPSession,
  settings: CaptureSettings,
  events: CaptureEvents,
  tapEvent: string,
  ticker: FrameTicker | null,
  log: Log,
): Promise<Capture> {
  const none: CapturePulse = { frames: 0, encoded: 0, repeated: 0, dropped: 0, dark: null };
  /** Of the documents that were left, and of the one that is there. */
  const before: CaptureCounts = { frames: 0, encoded: 0, repeated: 0, dropped: 0 };
  let current: StreamSession | null = null;
  let last = none;
  let stopped = false;
  /** What the document that is there is to do, and those that follow. */
  let active = settings.calibrate;
  let restedAt: number | null = null;
  let rate: [bitrate: number, frameRate: number] | null = null;

  const attachTo = async (frameId: string, active: boolean): Promise<StreamSession> => {
    const { executionContextId } = await session.send('Page.createIsolatedWorld', { frameId, worldName: WORLD });
    await session.send('Runtime.callFunctionOn', {
      functionDeclaration: installStir.toString(),
      executionContextId,
      arguments: [{ value: STIR }],
    });
    return startStreamSession(session, settings, forDocument(events, () => stopped || current === null), {
      world: WORLD,
      executionContextId,
      source: 'display',
      active,
      audio: false,
      tapEvent,
      stir: STIR,
    });
  };

  await session.send('Page.enable');
  await session.send('Runtime.enable');
  const { frameTree } = await session.send('Page.getFrameTree');
  try {
    current = await attachTo(frameTree.frame.id, active);
  } catch (cause) {
    throw new TabreelError('capture_unavailable', `The page can not be captured from within: ${(cause as Error).message}`, { cause });
  }

  let navigations = 0;
  const onNavigated = ({ frame }: { frame: { id: string; parentId?: string } }) => {
    if (frame.parentId !== undefined || stopped) return;
    navigations += 1;
    const turn = navigations;
    for (const name of ['frames', 'encoded', 'repeated', 'dropped'] as const) before[name] += last[name];
    last = none;
    current = null;
    events.audioReset();
    const began = active;
    attachTo(frame.id, began)
      .then(async (stream) => {
        log.debug('capture_reattached', { navigations });
        if (turn !== navigations) return;
        current = stream;
        if (rate !== null) await stream.call('setRate', ...rate);
        if (restedAt !== null) await stream.call('rest', restedAt);
        else if (active && !began) await stream.call('begin');
      })
      .catch((error: unknown) => {
        // superseded by the next navigation, or this document can't be captured
        if (turn === navigations && !stopped) events.failed(error as Error);
      });
  };
  session.on('Page.frameNavigated', onNavigated);

  const total = (): CapturePulse => ({
    frames: before.frames + last.frames,
    encoded: before.encoded + last.encoded,
    repeated: before.repeated + last.repeated,
    dropped: before.dropped + last.dropped,
    dark: last.dark,
  });

  /** A document that is just being left can't be told; the next one is. */
  const tell = async <M extends 'begin' | 'rest' | 'setRate' | 'keyFrame'>(method: M, ...args: Parameters<CaptureHandle[M]>) => {
    const told = current;
    await told?.call(method, ...args).catch((error: unknown) => {
      if (current === told) throw error;
    });
  };

  return {
    async begin() {
      active = true;
      restedAt = null;
      ticker?.setRate(rate?.[1] ?? settings.frameRate);
      await tell('begin');
    },
    async rest(at) {
      active = false;
      restedAt = at;
      await tell('rest', at);
      if (!active) ticker?.setRate(null);
    },
    async setRate(bitrate, frameRate) {
      rate = [bitrate, frameRate];
      if (active) ticker?.setRate(frameRate);
      await tell('setRate', bitrate, frameRate);
    },
    keyFrame: () => tell('keyFrame'),
    async pulse() {
      if (current !== null) last = await current.counts();
      return total();
    },
    async snapshot() {
      return current === null ? null : current.snapshot();
    },
    async stop() {
      stopped = true;
      session.off('Page.frameNavigated', onNavigated);
      if (current !== null) last = { ...last, ...(await current.stop()) };
      return total();
    },
    [Symbol.dispose]() {
      stopped = true;
      ticker?.stop();
    },
  };
}

/** A document that is left takes its stream with it, which is no failure of the capture. */
const forDocument = (events: CaptureEvents, left: () => boolean): CaptureEvents => ({
  ...events,
  failed(error) {
    // the navigation's own event may come a moment later
    setTimeout(() => {
      if (!left()) events.failed(error);
    }, 1000);
  },
});
