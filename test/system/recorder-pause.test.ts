/** Recordings that are paused, go on elsewhere or stop going on: by the recorder itself, and by what it leaves. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { flashBeepOffsets, probe, readBeeps, readFrames, summary } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { segmentsOf, startRecorder, type RecorderRun } from '../helpers/recorder.ts';
import { lacks } from '../helpers/service.ts';

const noFfmpeg = await lacks('ffmpeg');
const without = { self: noFfmpeg || (await lacks('headless shell')), tab: noFfmpeg || (await lacks('chromium')) };
const directory = mkdtempSync(join(tmpdir(), 'tabreel-recorder-'));

let pages: Pages;
beforeAll(async () => {
  pages = await startPages();
});
afterAll(async () => {
  await pages.close();
  rmSync(directory, { recursive: true });
});

/** The timeline has no hole and no overlap; where each header stands on it, in seconds. */
function sectionsOf(run: RecorderRun): { starts: number[]; end: number } {
  const starts: number[] = [];
  const [first] = segmentsOf(run);
  let next = first?.start ?? 0;
  for (const { header } of run.parts) {
    if (header.type === 'init') starts.push(next / 1e6);
    if (header.type !== 'segment') continue;
    expect(header.start).toBe(next);
    next = header.start + header.duration;
  }
  return { starts, end: next / 1e6 };
}

describe.each(['self', 'tab'] as const)('with the %s engine', (engine) => {
  describe.skipIf(without[engine])('a recording', () => {
    it.concurrent('is paused twice: both are cut out, and sound stays with its picture', async () => {
      const run = await startRecorder({ engine, request: { url: pages.url('/animated.html') } });
      const began = await run.report('recording');
      await sleep(3200);
      run.pause();
      const first = await run.report('paused');
      run.pause();
      const before = run.parts.length;
      await sleep(1500);
      // what was captured is out, and nothing is captured
      expect(run.parts.filter(({ header }) => header.type !== 'thumbnail').length - before).toBeLessThanOrEqual(1);
      run.resume();
      const second = await run.report('resumed');
      await sleep(3200);
      run.pause();
      await run.report('paused', 1);
      run.resume();
      const third = await run.report('resumed', 1);
      await sleep(3200);
      run.stop();
      const stopped = Date.now();
      const ended = await run.ended;

      expect(ended.error).toBeNull();
      const pauses = run.reports.flatMap(({ message }) => (message.type === 'paused' || message.type === 'resumed' ? [message.at] : []));
      const [a = 0, b = 0, c = 0, d = 0] = pauses;
      expect(pauses).toEqual([first.at, second.at, c, third.at]);
      const wall = (stopped - began.at - (b - a) - (d - c)) / 1000;
      // the first pause is twice that
      expect(Math.abs(ended.duration - wall)).toBeLessThan(0.7);
      const { starts, end } = sectionsOf(run);
      expect(end).toBeCloseTo(ended.duration, 5);
      expect(starts).toHaveLength(3);
      expect(Math.abs((starts[1] ?? 0) - (a - began.at) / 1000)).toBeLessThan(0.005);
      expect(Math.abs((starts[2] ?? 0) - (c - began.at - (b - a)) / 1000)).toBeLessThan(0.005);

      const file = await run.save(directory);
      const { video, audio } = await probe(file);
      expect(Math.abs((video?.duration ?? 0) - ended.duration)).toBeLessThan(0.05);
      expect(Math.abs((audio?.duration ?? 0) - ended.duration)).toBeLessThan(0.05);
      const [frames, beeps] = [await readFrames(file), await readBeeps(file)];
      for (const [i, start] of starts.entries()) {
        const until = starts[i + 1] ?? end;
        // a flash or a beep that was cut into has no other half
        const within = frames.filter(({ time }) => time > start + 0.2 && time < until - 0.2);
        const offsets = flashBeepOffsets(within, beeps.filter((time) => time >= start && time < until));
        const { median } = summary(offsets);
        console.log(`${engine}: section ${i + 1} from ${start.toFixed(3)} s: beep after flash ${offsets.map((offset) => offset.toFixed(0)).join(', ')} ms`);
        expect(Math.abs(median)).toBeLessThanOrEqual(60);
      }
    });

    it.concurrent('is paused from the beginning: its page is opened, and nothing captured until it goes on', async () => {
      const run = await startRecorder({ engine, paused: true, request: { url: pages.url('/static.html?selectorAt=0.5'), start: { when: 'selector', selector: '#ready', timeout: 20 } } });
      await run.report('paused');
      await sleep(1000);
      expect(run.reports.filter(({ message }) => message.type === 'recording' || message.type === 'progress')).toEqual([]);
      run.resume();
      const [began, resumed] = [await run.report('recording'), await run.report('resumed')];
      expect(resumed.at).toBe(began.at);
      // a page that stands still has a picture of now all the same
      await sleep(1500);
      run.pause();
      run.stop();
      const ended = await run.ended;
      expect(ended.error).toBeNull();
      const { starts, end } = sectionsOf(run);
      expect(starts).toEqual([0]);
      expect(end).toBeCloseTo(ended.duration, 5);
      expect(ended.duration).toBeGreaterThan(1.4);
      expect((await readFrames(await run.save(directory))).length).toBeGreaterThanOrEqual(2);
    });

    it.concurrent('ends when its page closes its window, and has all until then', async () => {
      const run = await startRecorder({ engine, request: { url: pages.url('/misbehaving.html?do=close&at=1.5'), width: 320, height: 180 } });
      await run.report('recording');
      const ended = await run.ended;
      expect(ended.error).toBeNull();
      // it would go on for a minute
      expect(ended.duration).toBeLessThan(30);
      const { end } = sectionsOf(run);
      expect(end).toBeCloseTo(ended.duration, 5);
      expect(run.parts.at(-1)?.header).toEqual({ type: 'end', duration: Math.round(ended.duration * 1e6) });
      expect((await readFrames(await run.save(directory))).length).toBeGreaterThanOrEqual(2);
    });
  });
});

describe.skipIf(noFfmpeg || (await lacks('headless shell')))('with the screencast engine', () => {
  it.concurrent('a recording is paused and goes on: what lay between is cut out', async () => {
    const run = await startRecorder({ engine: 'screencast', request: { url: pages.url('/animated.html'), width: 320, height: 180, audio: false } });
    const began = await run.report('recording');
    await sleep(1200);
    run.pause();
    const paused = await run.report('paused');
    await sleep(800);
    run.resume();
    const resumed = await run.report('resumed');
    await sleep(1200);
    run.stop();
    const ended = await run.ended;
    expect(ended.error).toBeNull();
    // it goes on with the picture that was shown last, which the browser may have drawn a moment before it was asked
    expect(resumed.at - paused.at).toBeGreaterThanOrEqual(700);
    const { starts, end } = sectionsOf(run);
    expect(starts).toHaveLength(2);
    expect(Math.abs((starts[1] ?? 0) - (paused.at - began.at) / 1000)).toBeLessThan(0.005);
    expect(end).toBeCloseTo(ended.duration, 5);
    const frames = await readFrames(await run.save(directory));
    const readable = frames.flatMap(({ time, counter }) => (counter === null ? [] : [{ time, counter }]));
    const [before, after] = [readable.findLast(({ time }) => time < (starts[1] ?? 0)), readable.find(({ time }) => time >= (starts[1] ?? 0) + 0.3)];
    expect(before).toBeDefined();
    expect(after?.counter).toBeGreaterThan(before?.counter ?? Infinity);
  });
});

describe.skipIf(without.self)('an attempt', () => {
  it.concurrent('that is paused before its first picture waits for maxDuration at most, and has all of it for what follows', async () => {
    const waits = async () => {
      const run = await startRecorder({ engine: 'self', paused: true, request: { url: pages.url('/static.html'), maxDuration: 4, width: 320, height: 180 } });
      return { run, paused: await run.report('paused') };
    };
    const [left, resumed] = await Promise.all([waits(), waits()]);
    await sleep(1500);
    resumed.run.resume();
    expect(await left.run.ended).toMatchObject({ error: null, duration: 0, storedSegments: 0 });
    expect(Date.now() - left.paused.at).toBeGreaterThanOrEqual(3900);
    expect(left.run.parts).toEqual([]);
    const ended = await resumed.run.ended;
    expect(ended.error).toBeNull();
    expect(ended.duration).toBeCloseTo(4, 2);
  });

  it.concurrent('that continues lies where the wall clock is, less what was cut out, and ends when the time of all is over', async () => {
    const startedAt = Date.now() - 50_000;
    const run = await startRecorder({
      engine: 'self',
      attempt: 2,
      request: { url: pages.url('/static.html'), maxDuration: 55 },
      continues: { startedAt, pausedMs: 10_000, clockOffset: 0 },
    });
    const began = await run.report('recording');
    const ended = await run.ended;
    expect(ended.error).toBeNull();
    expect(Math.abs(Date.now() - startedAt - 55_000)).toBeLessThan(8000);
    const { starts } = sectionsOf(run);
    expect(Math.abs((starts[0] ?? 0) - (began.at - startedAt - 10_000) / 1000)).toBeLessThan(0.005);
    expect(ended.duration).toBeCloseTo(45, 1);
    expect(run.parts.at(-1)?.header).toEqual({ type: 'end', duration: Math.round(ended.duration * 1e6) });
  });

  it.concurrent('that begins in a pause goes on where that began', async () => {
    const now = Date.now();
    const run = await startRecorder({
      engine: 'self',
      attempt: 3,
      paused: true,
      request: { url: pages.url('/static.html') },
      continues: { startedAt: now - 40_000, pausedMs: 10_000, pausedAt: now - 5000 },
    });
    expect(await run.report('paused')).toEqual({ type: 'paused', at: now - 5000 });
    run.resume();
    await run.report('resumed');
    await sleep(500);
    run.stop();
    await run.ended;
    expect(sectionsOf(run).starts[0]).toBeCloseTo(25, 3);
  });

  it.concurrent('whose time is over before it begins, or while its page loads, ends without an error', async () => {
    const over = await startRecorder({ engine: 'self', request: { url: pages.url('/static.html') }, continues: { startedAt: Date.now() - 60_001 } });
    expect(await over.ended).toMatchObject({ error: null, duration: 0 });
    const late = await startRecorder({ engine: 'self', request: { url: pages.url('/never') }, continues: { startedAt: Date.now() - 58_000 } });
    expect(await late.ended).toMatchObject({ error: null, duration: 0 });
    expect([...over.parts, ...late.parts]).toEqual([]);
  });

  it.concurrent('whose page hangs ends in time for another; one whose page blocks for a while, or opens a dialog, goes on', async () => {
    const of = (deed: string) => startRecorder({ engine: 'self', request: { url: pages.url(`/misbehaving.html?at=1&${deed}`), maxDuration: 30, width: 320, height: 180 } });
    const [hung, blocked, alerted] = [await of('do=hang'), await of('do=block&ms=4000'), await of('do=alert')];
    await hung.report('recording');
    const before = Date.now() + 1000;
    const ended = await hung.ended;
    console.log(`a hung page was found after ${((Date.now() - before) / 1000).toFixed(1)} s, its browser gone`);
    expect(ended.error).toMatchObject({ code: 'page_hung', blame: 'target', retryable: true });
    expect(Date.now() - before).toBeLessThan(28_000);
    expect(ended.duration).toBeGreaterThan(6);
    for (const run of [blocked, alerted]) {
      run.stop();
      expect((await run.ended).error).toBeNull();
    }
  });

  it.concurrent('at its size limit ends in good order, and under pressure encodes less', async () => {
    const run = await startRecorder({ engine: 'self', request: { url: pages.url('/animated.html'), videoBitrate: 1_000_000 }, settings: { maxSize: 35_000 } });
    await run.report('recording');
    run.pressure = 0.6;
    const ended = await run.ended;
    expect(ended.error).toBeNull();
    const warnings = run.reports.flatMap(({ message }) => (message.type === 'warning' ? [message.code] : []));
    expect(warnings.filter((code) => code !== 'deaf')).toEqual(['less_quality', 'size_limit']);
    expect(run.parts.reduce((sum, { payload }) => sum + payload.length, 0)).toBeGreaterThanOrEqual(35_000);
    const frames = await readFrames(await run.save(directory));
    // from thirty to fifteen a second
    const late = frames.filter(({ time }) => time > 2.5);
    console.log(`under pressure ${((late.length - 1) / ((late.at(-1)?.time ?? 0) - (late[0]?.time ?? 0))).toFixed(1)} frames a second`);
    expect((late.length - 1) / ((late.at(-1)?.time ?? 0) - (late[0]?.time ?? 0))).toBeLessThan(18);
    expect(run.parts.filter(({ header }) => header.type === 'init')).toHaveLength(1);
  });
});
