/** Tabs, browsers and processes that die within one recording: it goes on, and ends in one file. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../edge/harness.ts';
import { probe, readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { descendants, lacks, startService, type Process, type Service } from '../helpers/service.ts';

const noFfmpeg = await lacks('ffmpeg');
const without = { self: noFfmpeg || (await lacks('headless shell')), tab: noFfmpeg || (await lacks('chromium')) };

let pages: Pages;
beforeAll(async () => {
  pages = await startPages();
});
afterAll(() => pages.close());

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
    it('whose tab crashes, then its browser, then the process that records it, is recorded on, and ends in one file', async () => {
      const { id } = await service.create({ url: pages.url('/crash.html'), width: 640, height: 360 });
      const began = await service.waitFor(id, 'recording');
      const startedAt = Date.parse(began.startedAt ?? '');
      const attemptsStored = async () => (await (await fetch(began.links.live)).text()).split('#EXT-X-MAP').length - 1;
      const kills: number[] = [];
      const back: number[] = [];
      let orphan: Process[] = [];
      for (const kind of ['page', 'browser', 'process'] as const) {
        await sleep(2500);
        // of an attempt that has stored nothing, nothing is in the file
        await eventually(attemptsStored, (count) => count === kills.length + 1, 30_000);
        const processes = await descendants(process.pid);
        const browser = having(processes, 'browser');
        if (kind === 'process') orphan = browser;
        end(kind === 'process' ? having(processes, kind).filter(({ pid }) => browser.some(({ parent }) => parent === pid)) : having(processes, kind));
        kills.push((Date.now() - startedAt) / 1000);
        await eventually(() => service.get(id), ({ attempts, state }) => attempts === kills.length + 1 && state === 'recording', 30_000);
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
  });
});
