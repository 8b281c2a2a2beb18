import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdtemp, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { flashBeepOffsets, hasFfmpeg, loudness, moovInfo, probe, readBeeps, readFrames, SILENCE, summary, uniqueFrames } from './analyse.ts';
import * as barcode from './barcode.ts';
import { startPages } from './pages.ts';

const { BEEP_HZ, BEEP_MS, drawPicture, FLASH_MS, MAX_COUNTER, readPicture } = barcode;

describe('the barcode', () => {
  it('is read back at any size, with and without the flash', () => {
    for (const [width, height] of [[1920, 1080], [1280, 720], [640, 360], [160, 52]] as const) {
      for (const counter of [0, 1, 4242, 0xaa_aa_aa, MAX_COUNTER]) {
        for (const flash of [true, false]) {
          expect(readPicture(drawPicture(width, height, { counter, flash }))).toEqual({ counter, flash });
        }
      }
    }
  });

  it('is not read from two frames blended, or one torn into the other', () => {
    const one = drawPicture(1280, 720, { counter: 1000, flash: false });
    const two = drawPicture(1280, 720, { counter: 1001, flash: true });
    const blend = { ...one, data: one.data.map((value, index) => (value + (two.data[index] ?? 0)) / 2) };
    expect(readPicture(blend).counter).toBeNull();
    let misread = 0;
    for (let column = 0; column < 1280; column += 16) {
      const torn = { ...one, data: one.data.map((value, index) => (index % 1280 < column ? value : (two.data[index] ?? 0))) };
      const { counter } = readPicture(torn);
      if (counter !== null && counter !== 1000 && counter !== 1001) misread++;
    }
    expect(misread).toBe(0);
  });

  it('is not seen in a picture without one', () => {
    for (const level of [0, 128, 255]) {
      const data = new Uint8Array(640 * 360).fill(level);
      expect(readPicture({ data, width: 640, height: 360 }).counter).toBeNull();
    }
  });

  it('is the same in the pages as here', async () => {
    const copyUrl = new URL('../fixtures/pages/barcode.js', import.meta.url).href;
    const copy = (await import(/* @vite-ignore */ copyUrl)) as typeof barcode;
    for (const name of ['GRID', 'BARCODE', 'FLASH', 'CELLS', 'MAX_COUNTER', 'FLASH_MS', 'BEEP_HZ', 'BEEP_MS'] as const) {
      expect(copy[name], name).toEqual(barcode[name]);
    }
    for (let counter = 0; counter <= MAX_COUNTER; counter += 9973) {
      expect(copy.barcodeCells(counter)).toEqual(barcode.barcodeCells(counter));
    }
  });
});

describe('summary', () => {
  it('interpolates between values', () => {
    expect(summary([4, 1, 3, 2, 5])).toEqual({ p5: 1.2, median: 3, p95: 4.8 });
    expect(summary([7])).toEqual({ p5: 7, median: 7, p95: 7 });
    expect(summary([]).median).toBeNaN();
  });
});

describe('uniqueFrames', () => {
  it('counts repeats, losses, steps back and unreadable frames apart', () => {
    const counters = [10, 11, 11, null, 14, 13, 19];
    const frames = counters.map((counter, index) => ({ time: index / 10, counter, flash: false }));
    const found = uniqueFrames(frames);
    expect(found).toMatchObject({ unique: 5, first: 10, last: 19, missing: 0.5, unreadable: 1, backwards: 1 });
    expect(found.perSecond).toBeCloseTo(4 / 0.6);
    // The frame before the gap is a repeated one.
    expect(found.longestGap).toBeCloseTo(0.3);
  });

  it('says nothing of nothing', () => {
    expect(uniqueFrames([])).toEqual({
      unique: 0, perSecond: 0, longestGap: 0, first: null, last: null, missing: 0, unreadable: 0, backwards: 0,
    });
  });
});

describe('the page server', () => {
  it('serves media by ranges, as looping videos need', async () => {
    await using pages = await startPages();
    const url = pages.url('/media/video.webm');
    const whole = await fetch(url);
    expect(whole.headers.get('content-type')).toBe('video/webm');
    const bytes = new Uint8Array(await whole.arrayBuffer());
    for (const [range, from, to] of [['bytes=100-199', 100, 200], ['bytes=-50', bytes.length - 50, bytes.length], [`bytes=${bytes.length - 9}-`, bytes.length - 9, bytes.length]] as const) {
      const part = await fetch(url, { headers: { range } });
      expect(part.status).toBe(206);
      expect(part.headers.get('content-range')).toBe(`bytes ${from}-${to - 1}/${bytes.length}`);
      expect(new Uint8Array(await part.arrayBuffer())).toEqual(bytes.slice(from, to));
    }
    expect((await fetch(url, { headers: { range: `bytes=${bytes.length}-` } })).status).toBe(416);
  });

  it('keeps what it was asked, answers with a status, and stays inside its folder', async () => {
    await using pages = await startPages({ headers: { 'x-test': 'yes' } });
    const missing = await fetch(pages.url('/status/404'), { headers: { cookie: 'a=b' } });
    expect(missing.status).toBe(404);
    expect(missing.headers.get('x-test')).toBe('yes');
    expect(pages.requests).toMatchObject([{ method: 'GET', url: '/status/404', headers: { cookie: 'a=b' } }]);
    expect((await fetch(pages.url('/..%2f..%2fhelpers/pages.ts'))).status).toBe(404);
    expect(await (await fetch(pages.url('/headers'), { headers: { 'x-mark': '<1>' } })).text()).toContain('&lt;1>');
  });

  it('closes although a page never ends', async () => {
    const pages = await startPages();
    const answer = await fetch(pages.url('/never'));
    expect(answer.status).toBe(200);
    const ended = answer.text().catch(() => 'cut off');
    await pages.close();
    expect(await ended).toBe('cut off');
  });

  it('tells how many frames a page drew between two moments', async () => {
    await using pages = await startPages();
    for (const [counter, wallClock] of [[0, 1000], [30, 1500], [45, 2000]]) {
      const report = new URLSearchParams({ pageId: 'p', counter: String(counter), now: '0', wallClock: String(wallClock) });
      await fetch(pages.url(`/report?${report}`), { method: 'POST' });
    }
    expect(pages.framesDrawn(1250, 1750)).toBeCloseTo(22.5);
    expect(pages.framesDrawn(1000, 2000, 'p')).toBe(45);
    expect(pages.framesDrawn(900, 2000)).toBeNull();
    expect(pages.requests).toHaveLength(0);
  });
});

// A made-up recording: 30 fps for 6 s; frames 60 to 68 are missing, and every tenth is repeated instead of drawn.
const RATE = 30;
const LENGTH = 6;
const GAP = { from: 60, to: 69 };
const FIRST_COUNTER = 5000;
// The sound comes this much after the picture.
const BEEP_DELAY_MS = 37;
const FLASH_AT = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5];

describe.skipIf(!hasFfmpeg())('a recording, read with ffmpeg (skipped where ffmpeg or ffprobe is not on the PATH)', () => {
  let folder: string;
  let file: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tabreel-analyse-'));
    file = join(folder, 'recording.mp4');
    await makeRecording(file, ['-movflags', '+faststart']);
  }, 60_000);
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('is probed', async () => {
    const found = await probe(file);
    expect(found.container).toContain('mp4');
    expect(found.duration).toBeCloseTo(LENGTH, 1);
    expect(found.video).toMatchObject({ codec: 'h264', profile: 'Constrained Baseline', width: 1280, height: 720, frames: RATE * LENGTH - (GAP.to - GAP.from) });
    expect(found.video?.duration).toBeCloseTo(LENGTH, 1);
    expect(found.audio).toMatchObject({ codec: 'aac', sampleRate: 48_000, channels: 2 });
    expect(found.audio?.duration).toBeCloseTo(LENGTH, 1);
  });

  it('gives every frame with its counter, flash and own time', async () => {
    const frames = await readFrames(file);
    const expected = recordedFrames();
    expect(frames).toHaveLength(expected.length);
    expect(frames.map(({ counter, flash }) => ({ counter, flash }))).toEqual(expected.map(({ counter, flash }) => ({ counter, flash })));
    frames.forEach((frame, index) => expect(frame.time).toBeCloseTo(expected[index]?.time ?? NaN, 3));

    const found = uniqueFrames(frames);
    const unique = new Set(expected.map(({ counter }) => counter)).size;
    expect(found).toMatchObject({ unique, unreadable: 0, backwards: 0, first: FIRST_COUNTER });
    // The frame before the gap is a repeated one.
    expect(found.longestGap).toBeCloseTo((GAP.to - GAP.from + 2) / RATE, 3);
    expect(found.missing).toBeCloseTo(1 - unique / ((found.last ?? 0) - FIRST_COUNTER + 1));
  });

  it('gives the beeps to within 2 ms, and how far they are from the flashes', async () => {
    const beeps = await readBeeps(file);
    expect(beeps).toHaveLength(FLASH_AT.length);
    FLASH_AT.forEach((time, index) => expect(Math.abs((beeps[index] ?? NaN) * 1000 - (time * 1000 + BEEP_DELAY_MS))).toBeLessThan(2));

    const offsets = flashBeepOffsets(await readFrames(file), beeps);
    expect(offsets).toHaveLength(FLASH_AT.length);
    const { p5, median, p95 } = summary(offsets);
    for (const value of [p5, median, p95]) expect(Math.abs(value - BEEP_DELAY_MS)).toBeLessThan(2);
  });

  it('keeps picture and sound together where a track starts late', async () => {
    const late = join(folder, 'late.mp4');
    await run(['-i', file, '-itsoffset', '0.25', '-i', file, '-map', '0:v', '-map', '1:a', '-c', 'copy', late]);
    const { median } = summary(flashBeepOffsets(await readFrames(late), await readBeeps(late)));
    expect(Math.abs(median - BEEP_DELAY_MS - 250)).toBeLessThan(2);
  });

  it('leaves the beeps after a hole in the sound where they were', async () => {
    const holed = join(folder, 'holed.mp4');
    await run(['-i', file, '-map', '0:a', '-c', 'copy', '-bsf:a', 'noise=drop=between(n\\,130\\,137)', holed]);
    expect((await probe(holed)).audio?.duration).toBeCloseTo(LENGTH, 1);
    const beeps = await readBeeps(holed);
    expect(beeps).toHaveLength(FLASH_AT.length);
    FLASH_AT.forEach((time, index) => expect(Math.abs((beeps[index] ?? NaN) * 1000 - (time * 1000 + BEEP_DELAY_MS))).toBeLessThan(2));
  });

  it('hears beeps through a video\'s own tone, and no beep in that tone alone', async () => {
    const mixed = join(folder, 'mixed.mp4');
    await run(['-i', file, '-f', 'lavfi', '-i', `sine=frequency=220:duration=${LENGTH}:sample_rate=48000`, '-filter_complex', '[0:a][1:a]amix=inputs=2:normalize=0', '-vn', mixed]);
    const beeps = await readBeeps(mixed);
    expect(beeps).toHaveLength(FLASH_AT.length);
    FLASH_AT.forEach((time, index) => expect(Math.abs((beeps[index] ?? NaN) * 1000 - (time * 1000 + BEEP_DELAY_MS))).toBeLessThan(5));
    expect(await readBeeps(new URL('../fixtures/media/video.webm', import.meta.url).pathname)).toEqual([]);
  });

  it('finds the beeps of the pages\' own sound file', async () => {
    const beeps = await readBeeps(new URL('../fixtures/media/beeps.webm', import.meta.url).pathname);
    expect(beeps).toHaveLength(10);
    beeps.forEach((beep, index) => expect(beep).toBeCloseTo(index + 0.5, 2));
  });

  it('gives the loudness', async () => {
    // A sine of amplitude 0.5 for 60 ms of each second.
    const expected = 10 * Math.log10((0.5 ** 2 / 2) * (BEEP_MS / 1000));
    const found = await loudness(file);
    expect(found.overall).toBeCloseTo(expected, 0);
    for (const second of found.perSecond.slice(0, LENGTH)) expect(second).toBeCloseTo(expected, 0);

    const silent = join(folder, 'silent.mp4');
    await run(['-f', 'lavfi', '-i', 'anullsrc=r=48000:cl=stereo', '-t', '1', silent]);
    expect((await loudness(silent)).overall).toBe(SILENCE);
  });

  it('reads barcode and flash of a 640x360 recording, too', async () => {
    const small = join(folder, 'small.mp4');
    await run(['-i', file, '-an', '-vf', 'scale=640:360', '-fps_mode', 'passthrough', '-c:v', 'libx264', '-preset', 'ultrafast', '-b:v', '500k', small]);
    expect((await readFrames(small)).map(({ counter }) => counter)).toEqual(recordedFrames().map(({ counter }) => counter));
  });

  it('says where the moov is, and whether all of it is there', async () => {
    expect(await moovInfo(file)).toMatchObject({ complete: true, beforeMdat: true, fragmented: false, truncated: false });

    const late = join(folder, 'moov-last.mp4');
    await run(['-i', file, '-c', 'copy', late]);
    expect(await moovInfo(late)).toMatchObject({ complete: true, beforeMdat: false, fragmented: false, truncated: false });

    const cut = join(folder, 'cut.mp4');
    await copyFile(late, cut);
    await truncate(cut, (await stat(late)).size - 100);
    expect(await moovInfo(cut)).toMatchObject({ complete: false, truncated: true });

    const fragmented = join(folder, 'fragmented.mp4');
    await run(['-i', file, '-c', 'copy', '-movflags', 'frag_keyframe+empty_moov', fragmented]);
    const found = await moovInfo(fragmented);
    expect(found).toMatchObject({ complete: true, beforeMdat: true, fragmented: true, truncated: false });
    expect(found.boxes.some(({ type }) => type === 'moof')).toBe(true);
  });

  it('says why a file can not be read', async () => {
    await expect(readFrames(join(folder, 'absent.mp4'))).rejects.toThrow(/No such file/);
    await expect(readBeeps(join(folder, 'absent.mp4'))).rejects.toThrow(/No such file/);
    await expect(probe(join(folder, 'absent.mp4'))).rejects.toThrow(/No such file/);
  });
});

interface RecordedFrame {
  readonly time: number;
  readonly counter: number;
  readonly flash: boolean;
}

function recordedFrames(): RecordedFrame[] {
  const frames: RecordedFrame[] = [];
  for (let index = 0; index < RATE * LENGTH; index++) {
    if (index >= GAP.from && index < GAP.to) continue;
    const time = index / RATE;
    const counter = FIRST_COUNTER + (index % 10 === 9 ? index - 1 : index);
    frames.push({ time, counter, flash: FLASH_AT.some((at) => time > at - 0.001 && time < at + FLASH_MS / 1000 - 0.001) });
  }
  return frames;
}

async function makeRecording(file: string, options: string[]): Promise<void> {
  // The gap is made by ffmpeg, dropping frames of an even stream: raw video has no timestamps.
  const beep = FLASH_AT.map((at) => at + BEEP_DELAY_MS / 1000)
    .map((at) => `between(t,${at},${at + BEEP_MS / 1000})*sin(2*PI*${BEEP_HZ}*(t-${at}))`)
    .join('+');
  const child = spawn('ffmpeg', [
    '-v', 'error', '-y', '-f', 'rawvideo', '-pix_fmt', 'gray', '-s', '1280x720', '-r', String(RATE), '-i', 'pipe:0',
    '-f', 'lavfi', '-i', `aevalsrc='0.5*(${beep})':s=48000:d=${LENGTH}:c=mono`,
    '-vf', `select='not(between(n,${GAP.from},${GAP.to - 1}))'`, '-fps_mode', 'passthrough',
    '-c:v', 'libx264', '-profile:v', 'baseline', '-preset', 'ultrafast', '-b:v', '2M', '-pix_fmt', 'yuv420p', '-threads', '2',
    '-c:a', 'aac', '-ac', '2', ...options, file,
  ], { stdio: ['pipe', 'inherit', 'inherit'] });
  const closed = once(child, 'close');
  const recorded = new Map(recordedFrames().map((frame) => [Math.round(frame.time * RATE), frame]));
  for (let index = 0; index < RATE * LENGTH; index++) {
    const { data } = drawPicture(1280, 720, recorded.get(index) ?? { counter: 0, flash: false });
    if (!child.stdin.write(data)) await once(child.stdin, 'drain');
  }
  child.stdin.end();
  expect((await closed)[0], 'ffmpeg\'s exit code').toBe(0);
}

async function run(args: string[]): Promise<void> {
  const child = spawn('ffmpeg', ['-v', 'error', '-nostdin', '-y', ...args], { stdio: ['ignore', 'inherit', 'inherit'] });
  expect((await once(child, 'close'))[0], 'ffmpeg\'s exit code').toBe(0);
}
