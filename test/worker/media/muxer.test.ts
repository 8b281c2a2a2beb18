import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ALL_FORMATS, BufferSource, Input } from 'mediabunny';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { AudioChunk, VideoPacket } from '../../../worker/capture/capture.ts';
import { SAMPLE_RATE } from '../../../worker/media/audio-track.ts';
import { monotonicMicros } from '../../../worker/media/clock.ts';
import { createMuxer, type Muxer } from '../../../worker/media/muxer.ts';
import type { SinkPart } from '../../../worker/sink/sink.ts';
import { hasFfmpeg, probe, readBeeps, readFrames } from '../../helpers/analyse.ts';
import { HEIGHT, makePictures, temporaryDirectory, WIDTH, type Pictures } from './h264.ts';
import { beeps, stereo } from './signals.ts';

const SECOND = 1_000_000;
/** Microseconds from one picture to the next. */
const PICTURE = SECOND / 30;

describe.skipIf(!hasFfmpeg())('a recording in the making (skipped where ffmpeg is not on the PATH)', () => {
  let pictures: Pictures;
  beforeAll(async () => {
    pictures = await makePictures({ frames: 120, gop: 30 });
  });

  type Made = Muxer & {
    parts: SinkPart[];
    failures: Error[];
    /** Resolves with the part of this number, from 0. */
    part(index: number): Promise<SinkPart>;
  };
  const make = async ({ audio = true, soundDelay = 0, codec = pictures.codec } = {}): Promise<Made> => {
    const parts: SinkPart[] = [];
    const failures: Error[] = [];
    const waiting = new Map<number, (part: SinkPart) => void>();
    const muxer = await createMuxer({
      width: WIDTH,
      height: HEIGHT,
      codec,
      audioBitrate: audio ? 128_000 : null,
      soundDelay,
      deliver(part) {
        parts.push(part);
        waiting.get(parts.length - 1)?.(part);
      },
      failed: (error) => failures.push(error),
    });
    const part = (index: number): Promise<SinkPart> => {
      const there = parts[index];
      return there ? Promise.resolve(there) : new Promise((resolve) => waiting.set(index, resolve));
    };
    return { ...muxer, parts, failures, part };
  };
  /** Picture number n, `at` after the first one. An encoder describes itself once, with its first picture. */
  const picture = (start: number, n: number, at: number = n * PICTURE, from: Pictures = pictures): VideoPacket => {
    const { key, data } = from.packets[n] as Pictures['packets'][number];
    return { timestamp: Math.round(start + at), key, data, description: n === 0 ? from.description : null };
  };
  const show = (muxer: Muxer, start: number, from: number, to: number) => {
    for (let n = from; n < to; n += 1) muxer.video(picture(start, n));
  };
  /** Batches of a tenth of a second, like a capture's; times are seconds from the start. */
  const play = (muxer: Muxer, start: number, from: number, to: number, beepTimes: readonly number[] = []) => {
    for (let i = Math.round(from * 10); i < to * 10; i += 1) {
      const loud = beepTimes.some((time) => time < (i + 1) / 10 && time + 0.06 > i / 10);
      muxer.audio(chunk(start + (i * SECOND) / 10, loud ? stereo(beeps(beepTimes), SAMPLE_RATE, 4800, i / 10) : null));
    }
  };
  const chunk = (timestamp: number, samples: Int16Array | null): AudioChunk => ({ timestamp: Math.round(timestamp), rate: SAMPLE_RATE, frames: 4800, samples });
  const segments = (parts: readonly SinkPart[]) => parts.flatMap(({ header }) => (header.type === 'segment' ? [header] : []));
  const types = (parts: readonly SinkPart[]) => parts.map(({ header }) => header.type).join(' ');
  /** One file of the parts, as the finaliser begins it and a player plays it. */
  const save = async (parts: readonly SinkPart[]): Promise<string> => {
    const file = join(temporaryDirectory(onTestFinished), 'recording.mp4');
    await writeFile(file, Buffer.concat(parts.map(({ payload }) => payload)));
    return file;
  };
  /** Seconds, by the file's own tables: ffprobe guesses how long last packets last. */
  const durations = async (file: string): Promise<{ picture: number; sound: number | undefined }> => {
    using input = new Input({ formats: ALL_FORMATS, source: new BufferSource(await readFile(file)) });
    const video = await input.getPrimaryVideoTrack();
    const audio = await input.getPrimaryAudioTrack();
    return { picture: (await video?.computeDuration()) ?? 0, sound: await audio?.computeDuration() };
  };
  const contiguous = (parts: readonly SinkPart[]): number => {
    let end = 0;
    for (const { start, duration } of segments(parts)) {
      expect(start).toBe(end);
      end = start + duration;
    }
    return end;
  };
  /** Long enough ago that nothing is waited for. */
  const longAgo = () => monotonicMicros() - 60 * SECOND;

  test('plays: every picture once, each at its time, with the sound beside it', async () => {
    const muxer = await make();
    const start = longAgo();
    expect(muxer.start()).toBeNull();
    const beepTimes = [0.5, 1.95, 3.5];
    for (let second = 0; second < 4; second += 1) {
      show(muxer, start, second * 30, second * 30 + 30);
      play(muxer, start, second, second + 1, beepTimes);
    }
    expect(muxer.start()).toBe(start);
    expect(await muxer.finish(start + 4 * SECOND)).toBe(4 * SECOND);

    expect(muxer.failures).toEqual([]);
    expect(types(muxer.parts)).toBe('init segment segment segment segment');
    expect(segments(muxer.parts).map(({ frames }) => frames)).toEqual([30, 30, 30, 30]);
    expect(contiguous(muxer.parts)).toBe(4 * SECOND);
    const file = await save(muxer.parts);
    const { video, audio } = await probe(file);
    expect(video).toMatchObject({ codec: 'h264', width: WIDTH, height: HEIGHT, frames: 120 });
    expect(video?.duration).toBeCloseTo(4, 2);
    expect(audio).toMatchObject({ codec: 'aac', sampleRate: SAMPLE_RATE, channels: 2 });
    // to the packet
    expect(Math.abs((audio?.duration ?? 0) - 4)).toBeLessThan(0.022);
    const frames = await readFrames(file);
    expect(frames.map(({ counter }) => counter)).toEqual(Array.from({ length: 120 }, (_, n) => n));
    for (const [n, { time }] of frames.entries()) expect(Math.abs(time - n / 30)).toBeLessThan(0.001);
    const heard = await readBeeps(file);
    expect(heard).toHaveLength(3);
    // a beep across the border of two segments among them
    for (const [i, time] of beepTimes.entries()) expect(Math.abs((heard[i] ?? 0) - time)).toBeLessThan(0.003);
  });

  test('each segment plays by itself: it begins with a key frame and has its own sound', async () => {
    const muxer = await make();
    const start = longAgo();
    show(muxer, start, 0, 90);
    play(muxer, start, 0, 3, [0.4, 1.4, 2.4]);
    await muxer.finish(start + 3 * SECOND);
    const [init, , second] = muxer.parts;
    if (!init || !second) throw new Error('there is no second segment');
    const file = await save([init, second]);
    const frames = await readFrames(file);
    expect(frames.map(({ counter }) => counter)).toEqual(Array.from({ length: 30 }, (_, n) => n + 30));
    const heard = await readBeeps(file);
    expect(heard).toHaveLength(1);
    // at its place on the recording's timeline, or at the same distance from the first picture where a player begins anew
    expect(Math.abs((heard[0] ?? 0) - (frames[0]?.time ?? 0) - 0.4)).toBeLessThan(0.003);
  });

  test('a live segment is on its way while the recording goes on', async () => {
    const muxer = await make();
    const start = longAgo();
    show(muxer, start, 0, 31);
    play(muxer, start, 0, 1.2);
    expect((await muxer.part(1)).header).toEqual({ type: 'segment', start: 0, duration: SECOND, frames: 30 });
    await muxer.finish(start + 1.1 * SECOND);
    expect(segments(muxer.parts)).toEqual([
      { type: 'segment', start: 0, duration: SECOND, frames: 30 },
      { type: 'segment', start: SECOND, duration: 100_000, frames: 1 },
    ]);
  });

  test('a still page: pictures seconds apart last until the next one', async () => {
    const muxer = await make({ audio: false });
    const start = longAgo();
    const times = [0, 1.01, 3.5, 5.517];
    for (const [i, time] of times.entries()) muxer.video(picture(start, i * 30, time * SECOND));
    expect(await muxer.finish(start + 7 * SECOND)).toBe(7 * SECOND);
    expect(segments(muxer.parts).map(({ start: at, duration }) => [at, duration])).toEqual([
      [0, 1_010_000],
      [1_010_000, 2_490_000],
      [3_500_000, 2_017_000],
      [5_517_000, 1_483_000],
    ]);
    const file = await save(muxer.parts);
    expect(await probe(file)).toMatchObject({ video: { frames: 4 }, audio: null });
    expect((await durations(file)).picture).toBeCloseTo(7, 3);
    for (const [i, { time }] of (await readFrames(file)).entries()) expect(Math.abs(time - (times[i] ?? 0))).toBeLessThan(0.001);
  });

  describe('the end', () => {
    test.each([
      ['in the middle of a picture', 2.51, 76],
      ['at a key frame', 2, 60],
      ['just behind a key frame', 2.001, 61],
      ['before the second picture', 0.02, 1],
    ])('%s is exact, and no later picture is in it', async (_where, end, frames) => {
      const muxer = await make();
      const start = longAgo();
      const stop = Math.round(start + end * SECOND);
      show(muxer, start, 0, Math.min(90, frames));
      play(muxer, start, 0, end);
      // what the capture still gives while it is being stopped
      muxer.endAt(stop);
      show(muxer, start, frames, 90);
      expect(await muxer.finish(stop)).toBe(stop - start);
      show(muxer, start, 90, 120);
      play(muxer, start, end, end + 1);
      expect(contiguous(muxer.parts)).toBe(stop - start);
      expect(segments(muxer.parts).reduce((sum, segment) => sum + segment.frames, 0)).toBe(frames);
      expect(muxer.failures).toEqual([]);
      const file = await save(muxer.parts);
      expect((await probe(file)).video?.frames).toBe(frames);
      const { picture: shown, sound = 0 } = await durations(file);
      expect(shown).toBeCloseTo(end, 3);
      // up to the end of the packet that the end falls in
      expect(sound - end).toBeGreaterThan(-0.001);
      expect(sound - end).toBeLessThan(0.022);
    });

    test('long after the last picture holds it, with silence', async () => {
      const muxer = await make();
      const start = longAgo();
      show(muxer, start, 0, 10);
      play(muxer, start, 0, 0.3, [0.1]);
      expect(await muxer.finish(start + 5 * SECOND)).toBe(5 * SECOND);
      const file = await save(muxer.parts);
      expect((await probe(file)).video?.frames).toBe(10);
      const { picture: shown, sound } = await durations(file);
      expect(shown).toBeCloseTo(5, 3);
      expect(Math.abs((sound ?? 0) - 5)).toBeLessThan(0.022);
    });

    test('before there was a picture is an empty recording', async () => {
      const muxer = await make();
      play(muxer, longAgo(), 0, 1);
      expect(await muxer.finish(monotonicMicros())).toBe(0);
      expect(muxer.parts).toEqual([]);
      expect(muxer.failures).toEqual([]);
    });
  });

  test('waits for a first key frame and its description, which is where time begins', async () => {
    const muxer = await make({ audio: false });
    const start = longAgo();
    muxer.video(picture(start, 5));
    muxer.video({ ...picture(start, 0, 6 * PICTURE), description: null });
    expect(muxer.start()).toBeNull();
    const begin = Math.round(start + SECOND);
    muxer.video({ ...picture(start, 30), description: pictures.description });
    show(muxer, start, 31, 40);
    expect(muxer.start()).toBe(begin);
    expect(await muxer.finish(begin + SECOND)).toBe(SECOND);
    expect(segments(muxer.parts)).toEqual([{ type: 'segment', start: 0, duration: SECOND, frames: 10 }]);
    expect((await readFrames(await save(muxer.parts)))[0]).toMatchObject({ counter: 30 });
  });

  test('sound that was there before the first picture is heard from the first moment', async () => {
    const muxer = await make();
    const start = longAgo();
    // the encoder takes longer for a picture than sound takes to come
    for (const at of [-0.15, -0.05, 0.05]) muxer.audio(chunk(start + at * SECOND, stereo((seconds) => beeps([0.03])(seconds + at), SAMPLE_RATE, 4800)));
    show(muxer, start, 0, 30);
    for (let at = 0.15; at < 1; at += 0.1) muxer.audio(chunk(start + at * SECOND, null));
    await muxer.finish(start + SECOND);
    const heard = await readBeeps(await save(muxer.parts));
    expect(heard).toHaveLength(1);
    expect(Math.abs((heard[0] ?? 0) - 0.03)).toBeLessThan(0.003);
  });

  test('two captures that overlap around a navigation leave no picture out of order', async () => {
    const muxer = await make({ audio: false });
    const start = longAgo();
    show(muxer, start, 0, 20);
    // the new document's capture began while the old one's last pictures were on their way
    for (let n = 30; n < 50; n += 1) muxer.video(picture(start, n, (n - 30) * PICTURE + 0.55 * SECOND));
    await muxer.finish(start + 2 * SECOND);
    const file = await save(muxer.parts);
    const frames = await readFrames(file);
    const times = frames.map(({ time }) => time);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(new Set(times).size).toBe(times.length);
    expect(contiguous(muxer.parts)).toBe(2 * SECOND);
    // up to the new document's first picture, and from it on
    expect(frames.map(({ counter }) => counter)).toEqual([...Array.from({ length: 17 }, (_, n) => n), ...Array.from({ length: 20 }, (_, n) => n + 30)]);
  });

  describe('another encoder', () => {
    test('gets a header of its own, and what was before keeps its own', async () => {
      const other = await makePictures({ frames: 60, gop: 30, preset: 'veryfast' });
      expect(Buffer.from(other.description).equals(pictures.description)).toBe(false);
      const muxer = await make();
      const start = longAgo();
      show(muxer, start, 0, 60);
      for (let n = 0; n < 60; n += 1) muxer.video(picture(start, n, (n + 60) * PICTURE, other));
      play(muxer, start, 0, 4);
      await muxer.finish(start + 4 * SECOND);
      expect(types(muxer.parts)).toBe('init segment segment init segment segment');
      expect(contiguous(muxer.parts)).toBe(4 * SECOND);
      const [init, first, second, nextInit, third, fourth] = muxer.parts as [SinkPart, SinkPart, SinkPart, SinkPart, SinkPart, SinkPart];
      const counters = async (parts: SinkPart[]) => (await readFrames(await save(parts))).map(({ counter }) => counter);
      const sixty = Array.from({ length: 60 }, (_, n) => n);
      expect(await counters([init, first, second])).toEqual(sixty);
      expect(await counters([nextInit, third, fourth])).toEqual(sixty);
    });

    test('that began before its time waits for its next key frame', async () => {
      const other = await makePictures({ frames: 60, gop: 30, preset: 'veryfast' });
      const muxer = await make({ audio: false });
      const start = longAgo();
      show(muxer, start, 0, 31);
      // its first key frame lies before a segment's beginning, and can't be put there any more
      for (let n = 0; n < 60; n += 1) muxer.video(picture(start, n, n * PICTURE + 0.9 * SECOND, other));
      await muxer.finish(start + 3 * SECOND);
      expect(types(muxer.parts)).toBe('init segment segment init segment');
      expect(contiguous(muxer.parts)).toBe(3 * SECOND);
      expect((await readFrames(await save(muxer.parts.slice(0, 3)))).map(({ counter }) => counter)).toEqual(Array.from({ length: 31 }, (_, n) => n));
      expect((await readFrames(await save(muxer.parts.slice(3)))).map(({ counter }) => counter)).toEqual(Array.from({ length: 30 }, (_, n) => n + 30));
    });

    test('of the same settings goes on under the same header', async () => {
      const muxer = await make({ audio: false });
      const start = longAgo();
      show(muxer, start, 0, 30);
      for (let n = 0; n < 30; n += 1) muxer.video(picture(start, n, (n + 30) * PICTURE));
      await muxer.finish(start + 2 * SECOND);
      expect(types(muxer.parts)).toBe('init segment segment');
    });
  });

  // these look at the clock: a machine that is busy elsewhere gets another try
  describe('where sound does not come', { retry: 2 }, () => {
    test('a segment goes out at once once its time has passed, with silence', async () => {
      const muxer = await make();
      const start = longAgo();
      const before = performance.now();
      show(muxer, start, 0, 31);
      await muxer.part(1);
      expect(performance.now() - before).toBeLessThan(1000);
      await muxer.finish(start + 1.1 * SECOND);
      const { audio } = await probe(await save(muxer.parts));
      expect(Math.abs((audio?.duration ?? 0) - 1.1)).toBeLessThan(0.022);
    });

    test('every segment goes out at once, wherever in a packet of sound it ends', async () => {
      const muxer = await make();
      const start = longAgo();
      muxer.video(picture(start, 0));
      const waits: number[] = [];
      // 960 samples of 1024 further into a packet each time
      for (let i = 1; i <= 16; i += 1) {
        const before = performance.now();
        muxer.video(picture(start, 30, i * (SECOND + (64 * SECOND) / SAMPLE_RATE)));
        await muxer.part(i);
        waits.push(performance.now() - before);
      }
      expect(Math.max(...waits)).toBeLessThan(1000);
      await muxer.finish(start + 17 * SECOND);
      expect(Math.abs(((await probe(await save(muxer.parts))).audio?.duration ?? 0) - 17)).toBeLessThan(0.022);
    });

    test('a segment of now goes out soon after it ended', async () => {
      const muxer = await make();
      const start = monotonicMicros() - SECOND;
      show(muxer, start, 0, 31);
      await muxer.part(1);
      const late = (monotonicMicros() - start - SECOND) / 1000;
      // 150 ms are waited, in case
      expect(late).toBeGreaterThan(140);
      expect(late).toBeLessThan(600);
      await muxer.finish(start + 1.1 * SECOND);
    });

    test('sound that flows is waited for; what is late is put in its place in the next segment', async () => {
      const muxer = await make();
      const start = monotonicMicros() - SECOND;
      show(muxer, start, 0, 31);
      play(muxer, start, 0, 0.9);
      await muxer.part(1);
      const late = (monotonicMicros() - start - SECOND) / 1000;
      expect(late).toBeGreaterThan(590);
      expect(late).toBeLessThan(1200);
      // it hung, and comes after all: its first part is past
      show(muxer, start, 31, 60);
      play(muxer, start, 0.9, 2, [0.95, 1.5]);
      await muxer.finish(start + 2 * SECOND);
      const file = await save(muxer.parts);
      const heard = await readBeeps(file);
      expect(heard).toHaveLength(1);
      expect(Math.abs((heard[0] ?? 0) - 1.5)).toBeLessThan(0.003);
      expect(Math.abs(((await probe(file)).audio?.duration ?? 0) - 2)).toBeLessThan(0.022);
      expect(contiguous(muxer.parts)).toBe(2 * SECOND);
    });

    test('a segment goes out as soon as its sound is there', async () => {
      const muxer = await make();
      const start = monotonicMicros();
      show(muxer, start, 0, 31);
      // a second ahead of time, as the clock sees it
      play(muxer, start, 0, 1.2);
      await muxer.part(1);
      expect(monotonicMicros() - start).toBeLessThan(0.9 * SECOND);
      await muxer.finish(start + 1.1 * SECOND);
    });
  });

  test('what the sink can not take ends the muxer, and is told once', async () => {
    const failures: Error[] = [];
    const failed = Promise.withResolvers<void>();
    const muxer = await createMuxer({
      width: WIDTH,
      height: HEIGHT,
      codec: pictures.codec,
      audioBitrate: null,
      soundDelay: 0,
      deliver() {
        throw new RangeError('no room');
      },
      failed(error) {
        failures.push(error);
        failed.resolve();
      },
    });
    const start = longAgo();
    show(muxer, start, 0, 31);
    await failed.promise;
    expect(failures).toEqual([expect.objectContaining({ code: 'encoder_failed', message: 'no room' })]);
  });
});
