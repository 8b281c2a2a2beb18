/** What each engine sees and hears of what a page plays: by WebRTC, from its own origin and another, two pages at once. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPages, type Pages } from '../helpers/pages.ts';
import { lacks, startService, type Service } from '../helpers/service.ts';
import { figuresOf } from './figures.ts';

const noFfmpeg = await lacks('ffmpeg');
const noShell = noFfmpeg || (await lacks('headless shell'));
const without = { self: noShell, tab: noFfmpeg || (await lacks('chromium')) };

/** What is looked at here shows at few and small pictures too, which cost less. */
const SMALL = { width: 640, height: 360, frameRate: 12 };

let pages: Pages;
beforeAll(async () => {
  pages = await startPages();
});
afterAll(() => pages.close());

describe.each(['self', 'tab'] as const)('the %s engine', (engine) => {
  describe.skipIf(without[engine])('records', () => {
    let service: Service;
    beforeAll(async () => {
      service = await startService({ engine, slots: 2 });
    });
    afterAll(() => service?.[Symbol.asyncDispose]());

    it.concurrent('a stream that the page gets by WebRTC, with its sound', async () => {
      const recording = await service.record({ url: pages.url('/webrtc.html?fps=12'), ...SMALL, maxDuration: 6, webrtc: 'direct' });
      const { perSecond, beeps, loudness, unreadable } = await figuresOf(recording);
      expect(perSecond).toBeGreaterThan(4);
      expect(unreadable).toBeLessThan(60);
      expect(beeps).toBeGreaterThanOrEqual(3);
      expect(loudness).toBeGreaterThan(-50);
      expect(recording.warnings.join()).not.toContain('WebRTC connection');
    });

    it.concurrent('nothing that the page would get by UDP, unless it was asked for, and says so', async () => {
      const recording = await service.record({ url: pages.url('/webrtc.html?fps=12'), ...SMALL, maxDuration: engine === 'self' ? 10 : 2, webrtc: 'proxied' });
      // told after some seconds: waited for once, the script is the same
      if (engine === 'self') expect(recording.warnings).toContainEqual(expect.stringMatching(/^A WebRTC connection of the page did not come about.*"proxied" lets only TURN/));
      const { perSecond, beeps, probe } = await figuresOf(recording);
      expect(probe.video?.frames).toBeGreaterThan(0);
      expect({ perSecond, beeps }).toEqual({ perSecond: 0, beeps: 0 });
    });

    it(engine === 'tab' ? 'media of another origin, and of its own' : 'media of its own origin, and none of another without CORS', async () => {
      await using elsewhere = await startPages();
      const ask = (query: string) => service.record({ url: pages.url(`/media.html${query}`), maxDuration: 4, ...SMALL });
      const [own, other] = await Promise.all([ask(''), ask(`?src=${encodeURIComponent(elsewhere.url('/media/beeps.webm'))}`)]);
      expect((await figuresOf(own)).beeps).toBeGreaterThanOrEqual(3);
      const heard = (await figuresOf(other)).beeps;
      if (engine === 'tab') expect(heard).toBeGreaterThanOrEqual(3);
      else expect(heard).toBe(0);
    });

    it('two pages at once, each into its own file', async () => {
      const ask = (query: string) => service.record({ url: pages.url(`/animated.html?${query}`), maxDuration: 5, ...SMALL });
      const [loud, mute] = await Promise.all([ask('beep=1'), ask('beep=0')]);
      const both = [await figuresOf(loud), await figuresOf(mute)];
      for (const { probe, backwards, perSecond } of both) {
        expect(probe.video).toMatchObject({ width: 640, height: 360 });
        expect(Math.abs(probe.duration - 5)).toBeLessThanOrEqual(0.3);
        expect(backwards).toBe(0);
        expect(perSecond).toBeGreaterThan(4);
      }
      expect(both[0]?.beeps).toBeGreaterThanOrEqual(4);
      expect(both[1]?.beeps).toBe(0);
    });
  });
});

describe.skipIf(noShell)('the screencast engine', () => {
  it('records pictures, and says that it is deaf', async () => {
    await using service = await startService({ engine: 'screencast' });
    const recording = await service.record({ url: pages.url('/animated.html?report=1'), maxDuration: 5 });
    const figures = await figuresOf(recording, pages);
    expect(recording.engine).toBe('screencast');
    expect(recording.warnings.join()).toMatch(/does not hear all sound/);
    expect(figures.probe.video).toMatchObject({ codec: 'h264', width: 1280, height: 720 });
    expect(Math.abs(figures.probe.duration - 5)).toBeLessThanOrEqual(0.3);
    expect(figures.perSecond).toBeGreaterThan(1);
    expect(figures.perSecond).toBeLessThan(32);
    expect(figures.backwards).toBe(0);
    expect(figures.beeps).toBe(0);
  });
});
