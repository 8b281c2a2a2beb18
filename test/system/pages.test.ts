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

    const kinds = { browser: /^(?!.*--type=).*--user-data-dir=/, page: /--type=renderer/, process: /recording-process\.ts/ };
    const having = (processes: Process[], kind: keyof typeof kinds) => processes.filter(({ command }) => kinds[kind].test(command.join(' ')));
    const end = (processes: Process[]) => {
      expect(processes).not.toEqual([]);
      for (const { pid } of processes) process.kill(pid, 'SIGKILL');
    };
    it('that can not be shown fails with the reason, and is tried again where that may help', async () => {
      const failing = async (url: string): Promise<Recording['error']> => {
        const { id } = await service.create({ url });
        const recording = await service.waitFor(id, 'failed');
        expect(recording).toMatchObject({ startedAt: null, files: [], duration: 0, attempts: 1 });
        return recording.error;
      };
      const trying = async (url: string, start?: object): Promise<string | undefined> => {
        const { id } = await service.create({ url, ...(start === undefined ? {} : { start }) });
        await until(async () => (await service.get(id)).attempts === 2);
        await service.stop(id);
        const { warnings, error } = await service.waitFor(id, 'canceled');
        expect(error).toBeUndefined();
        return warnings.find((line) => line.startsWith('Attempt 1'));
      };
      const port = await freePort();
      const [errors, warnings] = await Promise.all([
        Promise.all([failing(pages.url('/status/404')), failing('http://there-is-no-such-host.invalid/')]),
        Promise.all([trying(pages.url('/never'), { when: 'load', timeout: 2 }), trying(`http://127.0.0.1:${port}/`), trying(pages.url('/status/503'))]),
      ]);
      expect(errors).toMatchObject([
        { code: 'target_http_status', blame: 'target', retryable: false, message: expect.stringContaining('404') },
        { code: 'target_dns', blame: 'target', message: expect.stringContaining('there-is-no-such-host.invalid') },
      ]);
      expect(warnings).toEqual([
        expect.stringMatching(/^Attempt 1 ended: target_timeout: /),
        expect.stringMatching(/^Attempt 1 ended: target_unreachable: .*ECONNREFUSED/),
        expect.stringMatching(/^Attempt 1 ended: target_http_unavailable: .*503/),
      ]);
    });

    it('whose tab crashes, then its browser, then the process that records it, is recorded on, and ends in one file', async () => {
      const { id } = await service.create({ url: pages.url('/crash.html') });
      const startedAt = Date.parse((await service.waitFor(id, 'recording')).startedAt ?? '');
      const kills: number[] = [];
      const back: number[] = [];
      let orphan: Process[] = [];
      for (const kind of ['page', 'browser', 'process'] as const) {
        await sleep(2500);
        const processes = await descendants(process.pid);
        const browser = having(processes, 'browser');
        if (kind === 'process') orphan = browser;
        end(kind === 'process' ? having(processes, kind).filter(({ pid }) => browser.some(({ parent }) => parent === pid)) : having(processes, kind));
        kills.push((Date.now() - startedAt) / 1000);
        await until(async () => {
          const { attempts, state } = await service.get(id);
          return attempts === kills.length + 1 && state === 'recording';
        });
        back.push((Date.now() - startedAt) / 1000);
      }
      await sleep(2500);
      await service.stop(id);
      const seconds = (Date.now() - startedAt) / 1000;
      const recording = await service.waitFor(id, 'completed');
      const waits = back.map((time, i) => time - (kills[i] ?? 0));
      console.log(`${engine}: recorded on ${waits.map((wait) => wait.toFixed(1)).join(', ')} s after the tab, the browser, the process were killed; ${recording.duration.toFixed(2)} of ${seconds.toFixed(2)} s; ${JSON.stringify(recording.warnings)}`);
      expect(Math.max(...waits)).toBeLessThan(20);
      expect(recording).toMatchObject({ attempts: 4 });
      expect(recording.error).toBeUndefined();
      expect(recording.warnings.filter((line) => /^Attempt [123] ended: (page_crashed|capture_failed|browser_crashed|worker_lost): /.test(line))).toHaveLength(3);
      // a crash that was left out would be more
      expect(Math.abs(recording.duration - seconds)).toBeLessThanOrEqual(1.2);
      const path = await service.download(recording);
      expect(Math.abs((await probe(path)).duration - recording.duration)).toBeLessThanOrEqual(0.1);
      const manifest = await service.manifest(id);
      expect(manifest.attempts.map(({ attempt }) => attempt)).toEqual([1, 2, 3, 4]);
      expect(manifest.gaps).toHaveLength(3);
      const frames = await readFrames(path);
      for (const [i, { start, duration }] of manifest.gaps.entries()) {
        const [killed = 0, again = 0] = [kills[i], back[i]];
        // segments of two seconds: the one that was open went with the process
        expect(start).toBeGreaterThan(killed - 4.6);
        expect(start).toBeLessThan(killed + 3);
        expect(start + duration).toBeGreaterThan(killed);
        expect(start + duration).toBeLessThan(again + 2);
        const held = frames.filter(({ time }) => time > start + 0.1 && time < start + duration - 0.1).map(({ counter }) => counter);
        expect(new Set(held).size).toBeLessThanOrEqual(1);
        const after = frames.filter(({ time }) => time > start + duration && time < start + duration + 2);
        expect(uniqueFrames(after).perSecond).toBeGreaterThan(5);
      }
      const left = (await descendants(1)).filter(({ pid }) => orphan.some((one) => one.pid === pid));
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
      expect(gap).toBeLessThanOrEqual(3);
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
      expect(Math.max(...waits)).toBeLessThan(5);
      expect(finished.duration).toBeCloseTo(8, 1);
      expect(Math.abs((await probe(await service.download(finished))).duration - 8)).toBeLessThanOrEqual(0.1);
    });
  });
});

async function until(what: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 30_000; Date.now() < end; await sleep(100)) if (await what()) return;
  throw new Error('it did not come about in 30 s');
}

/** Seconds for which no new picture came, at most. */
function longestStill(frames: readonly Frame[]): number {
  const changes = frames.filter(({ counter }, i) => counter !== null && counter !== frames[i - 1]?.counter).map(({ time }) => time);
  return Math.max(...changes.map((time, i) => time - (changes[i - 1] ?? time)));
}
