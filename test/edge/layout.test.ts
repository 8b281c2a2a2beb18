import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createLayout } from '../../edge/finish/layout.ts';
import type { Init, InitTrack, Sample } from '../../edge/finish/segment.ts';

const RATE = 48_000;
const SCALE = 57_600;
const PACKET = 1024;

/** mp4a with an AudioSpecificConfig of AAC-LC, 48 kHz, stereo; and a picture's entry of no codec that is looked into. */
const entry = (type: string, rest: number[]) => Uint8Array.from([0, 0, 0, 8 + rest.length, ...Buffer.from(type), ...rest]);
const esds = [0, 0, 0, 0, 3, 25, 0, 0, 0, 4, 17, ...Array.from({ length: 13 }, () => 0), 5, 2, 0x11, 0x90];
const mp4a = entry('mp4a', [...Array.from({ length: 28 }, () => 0), 0, 0, 0, 8 + esds.length, ...Buffer.from('esds'), ...esds]);
const track = (kind: 'video' | 'audio', timescale: number, bytes: Uint8Array): InitTrack => ({
  id: 1, kind, timescale, entry: bytes, width: 16, height: 16, defaults: { duration: 0, size: 0, flags: 0 },
}); // prettier-ignore
const initOf = (sound: boolean): Init => ({ video: track('video', SCALE, entry('none', [])), audio: sound ? track('audio', RATE, mp4a) : null });

/** Times in microseconds. */
const section = fc.record({
  /** After the end of the section before; below 0 where they overlap. */
  after: fc.integer({ min: -3_000_000, max: 20_000_000 }),
  sameAttempt: fc.boolean(),
  sound: fc.boolean(),
  /** Of the first packet, after the first picture. */
  soundAfter: fc.integer({ min: 0, max: 21_333 }),
  segments: fc.array(fc.array(fc.integer({ min: 8_000, max: 1_000_000 }), { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 4 }),
});

test('sections of any kind: all samples in order, none far from its time, sound in one run', () => {
  fc.assert(
    fc.property(fc.array(section, { minLength: 1, maxLength: 12 }), fc.integer({ min: 0, max: 5_000_000 }), (sections, begin) => {
      const layout = createLayout(sections.map(({ sound }) => initOf(sound)));
      /** What each section's samples are, by the order in which they go in. */
      const wanted = { video: [] as { time: number; section: number }[], audio: [] as { time: number; section: number }[] };
      let end = begin;
      let attempt = 0;
      for (const [number, { after, sameAttempt, sound, soundAfter, segments }] of sections.entries()) {
        const goesOn = sameAttempt && number > 0;
        if (!goesOn) attempt += 1;
        let at = Math.max(0, number === 0 ? begin : goesOn ? end : end + after);
        let packet = Math.ceil(((at + soundAfter) * RATE) / 1e6);
        for (const [i, durations] of segments.entries()) {
          const video: Sample[] = durations.map((micros, n) => {
            const sample = { time: Math.round((at * SCALE) / 1e6), duration: Math.round((micros * SCALE) / 1e6), offset: 0, size: 100, key: n === 0 };
            wanted.video.push({ time: sample.time / SCALE, section: number });
            at += micros;
            return sample;
          });
          const audio: Sample[] = [];
          for (; sound && packet < (at * RATE) / 1e6; packet += PACKET) {
            audio.push({ time: packet, duration: PACKET, offset: 0, size: 10, key: true });
            wanted.audio.push({ time: packet / RATE, section: number });
          }
          layout.add(`s${number}-${i}`, initOf(sound), { video, audio }, i === 0 ? { attempt } : null);
        }
        end = at;
      }
      const { laid, sections: placed, video, audio, trimmed, duration } = layout.finish(end);

      expect(video.times).toHaveLength(wanted.video.length);
      expect(video.times.every((time, i) => time > (video.times[i - 1] ?? -1))).toBe(true);
      expect(video.times[0]).toBe(0);
      const moved = (i: number) => (placed[i]!.shift - trimmed) / 1e6;
      for (const [i, time] of video.times.entries()) {
        const { time: own, section: of } = wanted.video[i]!;
        expect(Math.abs(time / SCALE - (own + moved(of)))).toBeLessThan(0.001);
      }
      expect(placed.every(({ shift }) => shift >= 0)).toBe(true);
      const chunks = laid.flatMap((segment) => segment.chunks);
      expect(chunks.reduce((sum, { track: of, count }) => sum + (of === 'video' ? count : 0), 0)).toBe(wanted.video.length);
      if (audio === null) {
        expect(wanted.audio).toEqual([]);
        return;
      }

      // one run of whole packets, but for the last, which ends with the picture
      expect(audio.runs.length).toBeLessThanOrEqual(2);
      expect(audio.runs.reduce((sum, { count }) => sum + count, 0)).toBe(audio.sizes.length);
      expect(Math.abs(audio.duration / RATE - duration / 1e6)).toBeLessThan(PACKET / RATE + 0.0001);
      let index = 0;
      const heard: number[] = [];
      for (const { track: of, count, silent } of chunks) {
        if (of !== 'audio') continue;
        for (let i = 0; i < count; i += 1, index += 1) if (!silent) heard.push((index * PACKET) / RATE);
      }
      expect(heard).toHaveLength(wanted.audio.length);
      for (const [i, time] of heard.entries()) {
        const { time: own, section: of } = wanted.audio[i]!;
        const off = time - (own + moved(of));
        expect(off).toBeGreaterThan(-0.011);
        expect(off).toBeLessThan(0.0225);
      }
    }),
    { numRuns: 150 },
  );
});
