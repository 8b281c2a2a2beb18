/** Each engine on the moving page: what was seen and heard is in the file, evenly and at its time. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPages, type Pages } from '../helpers/pages.ts';
import { lacks, startService, type Service } from '../helpers/service.ts';
import { figuresOf } from './figures.ts';

const noFfmpeg = await lacks('ffmpeg');
const without = { self: noFfmpeg || (await lacks('headless shell')), tab: noFfmpeg || (await lacks('chromium')) };

let pages: Pages;
beforeAll(async () => {
  pages = await startPages();
});
afterAll(() => pages.close());

describe.each([
  { engine: 'self', apart: 60 },
  { engine: 'tab', apart: 40 },
] as const)('the $engine engine', ({ engine, apart }) => {
  describe.skipIf(without[engine])('records', () => {
    let service: Service;
    beforeAll(async () => {
      service = await startService({ engine, calibrate: true });
    });
    afterAll(() => service?.[Symbol.asyncDispose]());

    it('a moving page with a video: H.264 and AAC, evenly, and sound with its picture', async () => {
      const recording = await service.record({ url: pages.url('/animated.html?report=1&video=1'), maxDuration: 10 });
      const figures = await figuresOf(recording, pages);
      expect(recording.engine).toBe(engine);
      expect(recording.duration).toBeCloseTo(10, 1);
      const { probe } = figures;
      expect(probe).toMatchObject({ video: { codec: 'h264', width: 1280, height: 720 }, audio: { codec: 'aac', sampleRate: 48_000, channels: 2 } });
      expect(Math.abs((probe.video?.duration ?? 0) - 10)).toBeLessThanOrEqual(0.3);
      expect(Math.abs((probe.audio?.duration ?? 0) - 10)).toBeLessThanOrEqual(0.3);
      // a machine shared with others takes some of both; the figure itself is printed
      expect(figures.share).toBeGreaterThanOrEqual(0.9);
      expect(figures.longestGap).toBeLessThanOrEqual(0.3);
      expect(figures.unreadable).toBeLessThanOrEqual(2);
      expect(figures.backwards).toBe(0);
      expect(figures.beeps).toBeGreaterThanOrEqual(9);
      expect(figures.loudness).toBeGreaterThan(-40);
      expect(Math.abs(figures.offset.median)).toBeLessThanOrEqual(apart);
      expect(figures.offset.p95 - figures.offset.p5).toBeLessThanOrEqual(80);
    });
  });
});
