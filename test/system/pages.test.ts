/** Pages that fail, move on, keep quiet or stand still: what the caller is told, and what he keeps. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { loudness, probe, readFrames, SILENCE, uniqueFrames, type Frame } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { freePort } from '../../bin/local-redis.ts';
import { eventually } from '../edge/harness.ts';
import { lacks, startService, type Service } from '../helpers/service.ts';

const noFfmpeg = await lacks('ffmpeg');
const without = { self: noFfmpeg || (await lacks('headless shell')), tab: noFfmpeg || (await lacks('chromium')) };

let pages: Pages;
let elsewhere: Pages;
beforeAll(async () => {
  pages = await startPages();
  elsewhere = await startPages();
});
afterAll(async () => {
  await pages.close();
  await elsewhere.close();
});

describe.each(['self', 'tab'] as const)('with the %s engine', (engine) => {
  describe.skipIf(without[engine])('a page', () => {
    let service: Service;
    beforeAll(async () => {
      service = await startService({ engine, slots: 4 });
    });
    afterAll(() => service?.[Symbol.asyncDispose]());

    it('that can not be shown fails with the reason, and is tried again where that may help', async () => {
      const failing = async (url: string): Promise<Recording['error']> => {
        const { id } = await service.create({ url });
        const recording = await service.waitFor(id, 'failed');
        expect(recording).toMatchObject({ startedAt: null, files: [], duration: 0, attempts: 1 });
        return recording.error;
      };
      const trying = async (url: string, start?: object): Promise<string | undefined> => {
        const { id } = await service.create({ url, ...(start === undefined ? {} : { start }) });
        await eventually(() => service.get(id), ({ attempts }) => attempts === 2, 30_000);
        await service.stop(id);
        const { warnings, error } = await service.waitFor(id, 'canceled');
        expect(error).toBeUndefined();
        return warnings.find((line) => line.startsWith('Attempt 1'));
      };
      // which are tried again is told by their code, whatever the engine: one that records by another browser says one of them
      const again = [
        { url: pages.url('/status/503'), says: /^Attempt 1 ended: target_http_unavailable: .*503/ },
        ...(engine === 'tab' ? [] : [
          { url: pages.url('/never'), start: { when: 'load', timeout: 2 }, says: /^Attempt 1 ended: target_timeout: / },
          { url: `http://127.0.0.1:${await freePort()}/`, says: /^Attempt 1 ended: target_unreachable: .*ECONNREFUSED/ },
        ]),
      ];
      const [errors, warnings] = await Promise.all([
        Promise.all([failing(pages.url('/status/404')), failing('http://there-is-no-such-host.invalid/')]),
        Promise.all(again.map(({ url, start }) => trying(url, start))),
      ]);
      expect(errors).toMatchObject([
        { code: 'target_http_status', blame: 'target', retryable: false, message: expect.stringContaining('404') },
        { code: 'target_dns', blame: 'target', message: expect.stringContaining('there-is-no-such-host.invalid') },
      ]);
      expect(warnings).toEqual(again.map(({ says }) => expect.stringMatching(says)));
    });

    it.concurrent.each([
      ['of its own origin', () => pages],
      ['of another origin', () => elsewhere],
    ] as const)('that moves on to one %s is recorded on', async (_what, to) => {
      const next = to().url('/animated.html?next').replace('127.0.0.1', to() === pages ? '127.0.0.1' : 'localhost');
      const { id } = await service.create({ url: pages.url('/animated.html'), maxDuration: 9, width: 640, height: 360 });
      await service.waitFor(id, 'recording');
      // moves on once it has surely been seen for some time, however long it took to begin
      await sleep(1500);
      const script = `setTimeout(() => location.assign(${JSON.stringify(next)}))`;
      const { status } = await service.api(`/v1/recordings/${id}/commands`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ script }),
      });
      expect(status).toBe(200);
      const completed = await service.waitFor(id, 'completed');
      const recording = { ...completed, path: await service.download(completed) };
      const frames = await readFrames(recording.path);
      const gap = longestStill(frames);
      console.log(`${engine}: longest time without a new picture around a navigation ${(gap * 1000).toFixed(0)} ms; warnings ${JSON.stringify(recording.warnings)}`);
      expect(recording.duration).toBeCloseTo(9, 1);
      expect(Math.abs((await probe(recording.path)).duration - 9)).toBeLessThanOrEqual(0.3);
      expect(uniqueFrames(frames).backwards).toBe(1);
      expect(gap).toBeLessThanOrEqual(3);
    });

    it.concurrent('that is silent has a silent track, as long as its picture', async () => {
      const recording = await service.record({ url: pages.url('/silent.html'), maxDuration: 4, width: 640, height: 360 });
      const { video, audio } = await probe(recording.path);
      expect(Math.abs((video?.duration ?? 0) - 4)).toBeLessThanOrEqual(0.1);
      expect(Math.abs((audio?.duration ?? 0) - 4)).toBeLessThanOrEqual(0.1);
      expect((await loudness(recording.path)).overall).toBe(SILENCE);
    });

    it.concurrent('that stands still is recorded all the same, a segment every two seconds', async () => {
      const { id } = await service.create({ url: pages.url('/static.html'), maxDuration: 8, width: 640, height: 360 });
      const recording = await service.waitFor(id, 'recording');
      const came: number[] = [];
      let lengths: number[] = [];
      let state = recording.state;
      for (const began = Date.now(); state === 'recording'; await sleep(200)) {
        const response = await fetch(recording.links.live);
        if (response.ok) lengths = [...(await response.text()).matchAll(/#EXTINF:([\d.]+)/g)].map(([, seconds]) => Number(seconds));
        while (came.length < lengths.length) came.push((Date.now() - began) / 1000);
        ({ state } = await service.get(id));
      }
      const finished = await service.waitFor(id, 'completed');
      const waits = came.map((time, i) => time - (came[i - 1] ?? 0));
      console.log(`${engine}: segments of a still page came at ${came.map((time) => time.toFixed(1)).join(', ')} s`);
      expect(came.length).toBeGreaterThanOrEqual(4);
      // on the page's time every two seconds, whatever the machine is busy with; and they come while it is recorded, not at its end
      expect(Math.max(...lengths)).toBeLessThan(2.6);
      expect(Math.max(...waits)).toBeLessThan(7);
      expect(finished.duration).toBeCloseTo(8, 1);
      expect(Math.abs((await probe(await service.download(finished))).duration - 8)).toBeLessThanOrEqual(0.1);
    });
  });
});

/** Seconds for which no new picture came, at most. */
function longestStill(frames: readonly Frame[]): number {
  const changes = frames.filter(({ counter }, i) => counter !== null && counter !== frames[i - 1]?.counter).map(({ time }) => time);
  return Math.max(...changes.map((time, i) => time - (changes[i - 1] ?? time)));
}
