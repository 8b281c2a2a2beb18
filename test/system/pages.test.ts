/** Pages that fail, move on, keep quiet or stand still, and browsers that die: what the caller is told, and what he keeps. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { loudness, probe, readFrames, SILENCE, uniqueFrames, type Frame } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { freePort } from '../../bin/local-redis.ts';
import { descendants, lacks, startService, type Process, type Service } from '../helpers/service.ts';

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
      service = await startService({ engine, slots: 2 });
    });
    afterAll(() => service?.[Symbol.asyncDispose]());

    /** Lets it record for a while, does something to its processes, and takes what is left. */
    const broken = async (breakIt: (processes: Process[]) => void): Promise<{ recording: Recording; frames: Frame[]; seconds: number; duration: number }> => {
      const { id } = await service.create({ url: pages.url('/crash.html') });
      await service.waitFor(id, 'recording');
      const began = Date.now();
      await sleep(3500);
      breakIt(await descendants(process.pid));
      const seconds = (Date.now() - began) / 1000;
      const recording = await service.waitFor(id, 'failed');
      console.log(`${engine}: ${recording.error?.code} after ${seconds.toFixed(1)} s, told ${((Date.now() - began) / 1000 - seconds).toFixed(1)} s later, ${recording.duration.toFixed(2)} s kept`);
      const path = await service.download(recording);
      return { recording, frames: await readFrames(path), seconds, duration: (await probe(path)).duration };
    };
    const kinds = { browser: /^(?!.*--type=).*--user-data-dir=/, page: /--type=renderer/, process: /recording-process\.ts/ };
    const having = (processes: Process[], kind: keyof typeof kinds) => processes.filter(({ command }) => kinds[kind].test(command.join(' ')));
    const end = (processes: Process[]) => {
      expect(processes).not.toEqual([]);
      for (const { pid } of processes) process.kill(pid, 'SIGKILL');
    };
    const goesOn = async () => {
      expect((await service.record({ url: pages.url('/static.html'), maxDuration: 1 })).state).toBe('completed');
    };

    it('that can not be shown fails with the reason', async () => {
      const failing = async (url: string, start?: object): Promise<Recording['error']> => {
        const { id } = await service.create({ url, ...(start === undefined ? {} : { start }) });
        const recording = await service.waitFor(id, 'failed');
        expect(recording).toMatchObject({ startedAt: null, files: [], duration: 0 });
        return recording.error;
      };
      const port = await freePort();
      const errors = await Promise.all([
        failing(pages.url('/status/404')),
        failing(pages.url('/never'), { when: 'load', timeout: 2 }),
        failing('http://there-is-no-such-host.invalid/'),
        failing(`http://127.0.0.1:${port}/`),
        failing(pages.url('/status/500')),
      ]);
      expect(errors).toMatchObject([
        { code: 'target_http_status', blame: 'target', retryable: false, message: expect.stringContaining('404') },
        { code: 'target_timeout', blame: 'target', retryable: true },
        { code: 'target_dns', blame: 'target', message: expect.stringContaining('there-is-no-such-host.invalid') },
        { code: 'target_unreachable', blame: 'target', retryable: true, message: expect.stringContaining('ECONNREFUSED') },
        { code: 'target_http_status', message: expect.stringContaining('500') },
      ]);
    });

    it('whose tab crashes is recorded up to there', async () => {
      const { recording, frames, seconds, duration } = await broken((processes) => end(having(processes, 'page')));
      expect(recording.error?.code).toMatch(/^(page_crashed|capture_failed)$/);
      expect(duration).toBeGreaterThan(seconds - 2.5);
      expect(duration).toBeLessThan(seconds + 2.5);
      expect(uniqueFrames(frames).perSecond).toBeGreaterThan(10);
      await goesOn();
    });

    it('whose browser dies is recorded up to there', async () => {
      const { recording, frames, seconds, duration } = await broken((processes) => end(having(processes, 'browser')));
      expect(recording.error).toMatchObject({ code: 'browser_crashed', blame: 'service', retryable: true });
      expect(duration).toBeGreaterThan(seconds - 2.5);
      expect(duration).toBeLessThan(seconds + 1.5);
      expect(uniqueFrames(frames).perSecond).toBeGreaterThan(10);
      await goesOn();
    });

    it('whose recording process dies is kept as far as it was stored', async () => {
      let browser: Process[] = [];
      const { recording, duration } = await broken((processes) => {
        browser = having(processes, 'browser');
        end(having(processes, 'process').filter(({ pid }) => browser.some(({ parent }) => parent === pid)));
      });
      expect(recording.error).toMatchObject({ code: 'worker_lost', blame: 'service', retryable: true });
      // segments of two seconds: the one that was open went with the process
      expect(duration).toBeGreaterThan(1.5);
      expect(Math.abs(duration - recording.duration)).toBeLessThanOrEqual(0.1);
      await goesOn();
      const left = (await descendants(1)).filter(({ pid }) => browser.some((one) => one.pid === pid));
      expect(left).toEqual([]);
    });

    it.each([
      ['of its own origin', () => pages],
      ['of another origin', () => elsewhere],
    ] as const)('that moves on to one %s is recorded on', async (_what, to) => {
      const next = to().url('/animated.html?next').replace('127.0.0.1', to() === pages ? '127.0.0.1' : 'localhost');
      const recording = await service.record({ url: pages.url(`/animated.html?navigate=${encodeURIComponent(next)}&navigateAt=3`), maxDuration: 6 });
      const frames = await readFrames(recording.path);
      const gap = longestStill(frames);
      console.log(`${engine}: longest time without a new picture around a navigation ${(gap * 1000).toFixed(0)} ms; warnings ${JSON.stringify(recording.warnings)}`);
      expect(recording.duration).toBeCloseTo(6, 1);
      expect(Math.abs((await probe(recording.path)).duration - 6)).toBeLessThanOrEqual(0.3);
      expect(uniqueFrames(frames).backwards).toBe(1);
      expect(gap).toBeLessThanOrEqual(engine === 'tab' ? 1 : 2);
    });

    it.concurrent('that is silent has a silent track, as long as its picture', async () => {
      const recording = await service.record({ url: pages.url('/silent.html'), maxDuration: 4 });
      const { video, audio } = await probe(recording.path);
      expect(Math.abs((video?.duration ?? 0) - 4)).toBeLessThanOrEqual(0.1);
      expect(Math.abs((audio?.duration ?? 0) - 4)).toBeLessThanOrEqual(0.1);
      expect((await loudness(recording.path)).overall).toBe(SILENCE);
    });

    it.concurrent('that stands still is recorded all the same, a segment every two seconds', async () => {
      const { id } = await service.create({ url: pages.url('/static.html'), maxDuration: 8 });
      const recording = await service.waitFor(id, 'recording');
      const came: number[] = [];
      let state = recording.state;
      for (const began = Date.now(); state === 'recording'; await sleep(200)) {
        const response = await fetch(recording.links.live);
        const segments = response.ok ? (await response.text()).split('#EXTINF').length - 1 : 0;
        while (came.length < segments) came.push((Date.now() - began) / 1000);
        ({ state } = await service.get(id));
      }
      const finished = await service.waitFor(id, 'completed');
      const waits = came.map((time, i) => time - (came[i - 1] ?? 0));
      console.log(`${engine}: segments of a still page came at ${came.map((time) => time.toFixed(1)).join(', ')} s`);
      expect(came.length).toBeGreaterThanOrEqual(4);
      expect(Math.max(...waits)).toBeLessThan(3.2);
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
