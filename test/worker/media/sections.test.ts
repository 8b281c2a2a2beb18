import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { SAMPLE_RATE } from '../../../worker/media/audio-track.ts';
import { monotonicMicros } from '../../../worker/media/clock.ts';
import { createSections, type Sections } from '../../../worker/media/sections.ts';
import type { SinkPart } from '../../../worker/sink/sink.ts';
import { hasFfmpeg, probe, readBeeps, readFrames } from '../../helpers/analyse.ts';
import { HEIGHT, makePictures, temporaryDirectory, WIDTH, type Pictures } from './h264.ts';
import { beeps, stereo } from './signals.ts';

const SECOND = 1_000_000;
const PICTURE = SECOND / 30;
/** Microseconds of a packet of sound. */
const PACKET = (1024 * SECOND) / SAMPLE_RATE;

describe.skipIf(!hasFfmpeg())('a recording with pauses (skipped where ffmpeg is not on the PATH)', () => {
  let pictures: Pictures;
  beforeAll(async () => {
    pictures = await makePictures({ frames: 120, gop: 30 });
  });

  const make = (base = 0, audio = true, until = Infinity) => {
    const parts: SinkPart[] = [];
    const failures: Error[] = [];
    const began: number[] = [];
    const sections = createSections({
      width: WIDTH,
      height: HEIGHT,
      codec: pictures.codec,
      audioBitrate: audio ? 128_000 : null,
      soundDelay: 0,
      deliver: (part) => void parts.push(part),
      failed: (error) => failures.push(error),
      base: () => base,
      began: (at) => began.push(at),
      until: () => until,
    });
    return { ...sections, parts, failures, began };
  };
  /** Second `n` of a test page: 30 pictures, a beep in its middle. An encoder describes itself once. */
  const second = (sections: Sections, start: number, n: number, from = 0, to = 1) => {
    for (let i = Math.ceil(from * 30); i < to * 30; i += 1) {
      const { key, data } = pictures.packets[(n * 30 + i) % 120] as Pictures['packets'][number];
      sections.video({ timestamp: Math.round(start + (n * 30 + i) * PICTURE), key, data, description: n === 0 && i === 0 ? pictures.description : null });
    }
    for (let i = Math.round(from * 10); i < to * 10; i += 1) {
      const samples = stereo(beeps([0.5]), SAMPLE_RATE, 4800, i / 10);
      sections.audio({ timestamp: Math.round(start + n * SECOND + (i * SECOND) / 10), rate: SAMPLE_RATE, frames: 4800, samples });
    }
  };
  const segments = (parts: readonly SinkPart[]) => parts.flatMap(({ header }) => (header.type === 'segment' ? [header] : []));
  const longAgo = () => Math.round(monotonicMicros() - 60 * SECOND);
  const save = async (parts: readonly SinkPart[]): Promise<string> => {
    const file = join(temporaryDirectory(onTestFinished), 'recording.mp4');
    await writeFile(file, Buffer.concat(parts.filter(({ header }, i) => i === 0 || header.type === 'segment').map(({ payload }) => payload)));
    return file;
  };

  test('has nothing from after its end, also where that is told late', async () => {
    const start = longAgo();
    const end = start + 2.5 * SECOND;
    const sections = make(0, true, end);
    await sections.open();
    // key frames each second: one of them would end a segment behind the end
    for (let n = 0; n < 5; n += 1) second(sections, start, n);
    sections.endAt(end);
    expect(await sections.finish(end)).toBe(2.5 * SECOND);
    const last = segments(sections.parts).at(-1);
    expect((last?.start ?? 0) + (last?.duration ?? 0)).toBe(2.5 * SECOND);
  });

  test('goes on where it was cut, to the sample, with a header and a key frame; what lay between is left out', async () => {
    const sections = make();
    const start = longAgo();
    await sections.open();
    second(sections, start, 0);
    second(sections, start, 1, 0, 0.6);
    const cut = sections.cut(Math.round(start + 1.6 * SECOND));
    expect(cut - start).toBeGreaterThanOrEqual(1.6 * SECOND);
    expect(cut - start).toBeLessThan(1.6 * SECOND + PACKET);
    expect((cut - start) / PACKET).toBeCloseTo(Math.round((cut - start) / PACKET), 3);
    // what came until the capture rested, of which some is before the cut
    second(sections, start, 1, 0.6, 1);
    expect(sections.cut(Math.round(start + 1.9 * SECOND))).toBe(cut);
    sections.close();
    expect(sections.timeOf(start + 5 * SECOND)).toBe(cut - start);

    // an hour later, a quick pause that nothing comes of, and one more
    await sections.open();
    sections.cut(start + 10 * SECOND);
    sections.close();
    await sections.open();
    const later = start + 20 * SECOND + 12_345;
    second(sections, later, 2);
    second(sections, later, 3, 0, 0.7);
    const end = Math.round(later + 3.7 * SECOND);
    sections.endAt(end);
    const duration = await sections.finish(end);

    expect(sections.failures).toEqual([]);
    expect(sections.began).toEqual([start, Math.round(later + 2 * SECOND)]);
    expect(duration).toBe(cut - start + end - Math.round(later + 2 * SECOND));
    expect(sections.parts.map(({ header }) => header.type).join(' ')).toBe('init segment segment init segment segment');
    let next = 0;
    for (const segment of segments(sections.parts)) {
      expect(segment.start).toBe(next);
      next = segment.start + segment.duration;
    }
    expect(next).toBe(duration);

    const file = await save(sections.parts);
    const frames = await readFrames(file);
    const first = frames.findIndex(({ counter }) => counter === 60);
    expect(frames.slice(0, first).map(({ counter }) => counter)).toEqual(Array.from({ length: first }, (_, n) => n));
    expect(frames.slice(first).map(({ counter }) => counter)).toEqual(Array.from({ length: 51 }, (_, n) => n + 60));
    const at = frames[first]?.time ?? NaN;
    expect(Math.abs(at - (cut - start) / SECOND)).toBeLessThan(0.001);
    // the beeps of both sides are where their pictures are
    const heard = await readBeeps(file);
    expect(heard).toHaveLength(4);
    for (const [i, time] of [0.5, 1.5, at + 0.5, at + 1.5].entries()) expect(Math.abs((heard[i] ?? 0) - time)).toBeLessThan(0.003);
    const { audio, video } = await probe(file);
    expect(Math.abs((audio?.duration ?? 0) - (video?.duration ?? 0))).toBeLessThan(0.022);
  });

  test('twenty times paused, no two samples lie on each other and none is missing', async () => {
    const sections = make(1_234_567);
    let start = longAgo();
    for (let i = 0; i < 20; i += 1) {
      await sections.open();
      second(sections, start, 0, 0, 0.1 + (i % 7) / 30);
      sections.cut(start + 100_000 + i * 3001);
      sections.close();
      start += SECOND;
    }
    const duration = await sections.finish(start);
    expect(sections.failures).toEqual([]);
    expect(segments(sections.parts)).toHaveLength(20);
    const [first] = segments(sections.parts);
    // on the grid of samples
    expect(Math.abs((first?.start ?? 0) - 1_234_567)).toBeLessThan(11);
    let next = first?.start;
    for (const segment of segments(sections.parts)) {
      expect(segment.start).toBe(next);
      next = segment.start + segment.duration;
      const packets = (segment.duration * SAMPLE_RATE) / 1024 / SECOND;
      expect(Math.abs(packets - Math.round(packets))).toBeLessThan(0.001);
    }
    expect(duration).toBe(next);
    const { audio } = await probe(await save(sections.parts));
    expect(Math.abs((audio?.duration ?? 0) - (duration - (first?.start ?? 0)) / SECOND)).toBeLessThan(0.001);
  });

  test('an attempt goes on where the recording is, pictures and sound', async () => {
    const sections = make(100 * SECOND);
    const start = longAgo();
    expect(sections.timeOf(start)).toBe(0);
    await sections.open();
    second(sections, start, 0);
    expect(sections.timeOf(start + SECOND / 2)).toBe(100.5 * SECOND);
    expect(await sections.finish(start + SECOND)).toBe(101 * SECOND);
    expect(segments(sections.parts)).toEqual([{ type: 'segment', start: 100 * SECOND, duration: SECOND, frames: 30 }]);
    const file = await save(sections.parts);
    const [heard] = await readBeeps(file);
    const [frame] = await readFrames(file);
    expect(Math.abs((heard ?? 0) - (frame?.time ?? 0) - 0.5)).toBeLessThan(0.003);
    // the media's own times are the timeline's
    const tfdt = Buffer.from(sections.parts[1]?.payload ?? []);
    const times = [...tfdt.toString('latin1').matchAll(/tfdt/g)].map(({ index }) => Number(tfdt.readBigUInt64BE(index + 8)));
    expect(times).toContain(100 * SAMPLE_RATE);
  });

  test('that never had a picture has no length', async () => {
    const sections = make();
    await sections.open();
    sections.cut(monotonicMicros());
    sections.close();
    expect(await sections.finish(monotonicMicros())).toBe(0);
    expect(sections.parts).toEqual([]);
  });
});
