import { describe, expect, test } from 'vitest';
import type { AudioChunk } from '../../../worker/capture/capture.ts';
import { createAudioTrack, SAMPLE_RATE } from '../../../worker/media/audio-track.ts';
import { onsets, toneEnvelope } from '../../helpers/tone.ts';
import { AMPLITUDE, beeps, bendOf, fitSine, join, left, sharpestBend, sine, stereo, type Signal } from './signals.ts';

/** The machine's clock at the first picture, in microseconds: it has been up for a while. */
const START = 987_654_321_000;
const MS = 1000;
const SECOND = 1_000_000;
/** Samples in a millisecond. */
const PER_MS = SAMPLE_RATE / 1000;

/** A track and all that it wrote, from the recording's first sample on. */
const newTrack = (soundDelay = 0) => {
  const written: Int16Array[] = [];
  const track = createAudioTrack(START, soundDelay, (pcm) => {
    written.push(typeof pcm === 'number' ? new Int16Array(pcm * 2) : pcm.slice());
  });
  return { ...track, sound: () => left(join(written)) };
};

type SourceOptions = {
  rate?: number;
  /** Milliseconds of each chunk. */
  chunk?: number;
  /** Parts per million by which the source's clock runs slow: its chunks come later and later. */
  slow?: number;
  /** Seconds from the recording's start. */
  from?: number;
  to: number;
  /** Microseconds of noise on the stamps. */
  jitter?: number;
};
/** What a browser gives of a signal that is heard at its true times. */
function* source(signal: Signal, { rate = SAMPLE_RATE, chunk = 100, slow = 0, from = 0, to, jitter = 0 }: SourceOptions): Generator<AudioChunk> {
  const stretch = 1 + slow / 1e6;
  const frames = (rate * chunk) / 1000;
  // the noise is the same each time
  let seed = 1;
  for (let n = 0; from + (n * frames * stretch) / rate < to; n += 1) {
    const at = from + (n * frames * stretch) / rate;
    seed = (seed * 48_271) % 2_147_483_647;
    yield {
      timestamp: START + Math.round(at * SECOND + (seed / 2_147_483_647 - 0.5) * 2 * jitter),
      rate,
      frames,
      samples: stereo((seconds) => signal(seconds * stretch + at), rate, frames),
    };
  }
}
const silence = (at: number, milliseconds: number, rate = SAMPLE_RATE): AudioChunk => ({ timestamp: START + at * MS, rate, frames: (rate * milliseconds) / 1000, samples: null });

/** Seconds at which beeps are heard. */
const heard = (sound: Float64Array): number[] => onsets(toneEnvelope(Float32Array.from(sound, (sample) => sample / AMPLITUDE), SAMPLE_RATE, 1000), SAMPLE_RATE, 0.3).map((index) => index / SAMPLE_RATE);
const quiet = (sound: Float64Array, from: number, to: number): boolean => sound.subarray(Math.round(from * PER_MS), Math.round(to * PER_MS)).every((sample) => sample === 0);

describe('sound of a steady source', () => {
  test('is passed on as it is', () => {
    const { add, sound, until, drift } = newTrack();
    for (const chunk of source(sine(1000), { to: 2 })) add(chunk);
    expect(sound()).toEqual(left(stereo(sine(1000), SAMPLE_RATE, 2 * SAMPLE_RATE)));
    expect(until()).toBe(START + 2 * SECOND);
    expect(drift()).toBe(0);
  });

  test('is passed on as it is also where its stamps tremble', () => {
    const { add, sound, drift } = newTrack();
    for (const chunk of source(sine(1000), { to: 5, chunk: 10, jitter: 3000 })) add(chunk);
    expect(sharpestBend(sound().subarray(PER_MS * 10))).toBeLessThan(bendOf(1000, SAMPLE_RATE));
    expect(drift()).toBe(0);
  });

  test('comes earlier by what its engine is known to be late', () => {
    for (const delay of [37 * MS, -21 * MS]) {
      const { add, sound } = newTrack(delay);
      for (const chunk of source(beeps([1, 2]), { to: 3 })) add(chunk);
      const [first = 0, second = 0] = heard(sound());
      expect(first).toBeCloseTo(1 - delay / SECOND, 3);
      expect(second).toBeCloseTo(2 - delay / SECOND, 3);
    }
  });

  test('at 44.1 kHz is as long, as high and as much on time', () => {
    const { add, sound, until } = newTrack();
    for (const chunk of source(beeps([0.5, 4.5, 9.5]), { to: 10, rate: 44_100 })) add(chunk);
    expect(Math.abs(until() - (START + 10 * SECOND))).toBeLessThan(1 * MS);
    const times = heard(sound());
    for (const [i, time] of [0.5, 4.5, 9.5].entries()) expect(times[i]).toBeCloseTo(time, 3);
    const tone = newTrack();
    for (const chunk of source(sine(440), { to: 2, rate: 44_100 })) tone.add(chunk);
    expect(fitSine(tone.sound().subarray(1000, -1000), SAMPLE_RATE, 440).residue).toBeLessThan(-50);
  });
});

describe('the beginning', () => {
  test.each([
    ['long before', -530],
    ['a little before', -30],
    ['just before', -5],
    ['with', 0],
    ['just after', 5],
    ['a little after', 30],
    ['long after', 2345],
  ])('sound that began %s the first picture is heard at its time from the first beep on', (_when, offset) => {
    const { add, sound } = newTrack();
    for (const chunk of source(beeps([2.5, 3, 5]), { from: offset / 1000, to: 6 })) add(chunk);
    const times = heard(sound());
    expect(times).toHaveLength(3);
    for (const [i, time] of [2.5, 3, 5].entries()) expect(Math.abs((times[i] ?? 0) - time)).toBeLessThan(0.001);
    if (offset > 0) expect(quiet(sound(), 0, offset)).toBe(true);
  });

  test('sound from before the recording is not in it', () => {
    const { add, sound, until } = newTrack();
    add({ ...silence(-500, 100), samples: stereo(sine(1000), SAMPLE_RATE, 4800) });
    expect(until()).toBe(START);
    expect(sound()).toHaveLength(0);
  });
});

describe('a gap', () => {
  test('becomes silence of its own length', () => {
    const { add, sound, until } = newTrack();
    const [first, , , fourth] = source(sine(1000), { to: 1 });
    if (!first || !fourth) throw new Error('too few chunks');
    add(first);
    add({ ...fourth, timestamp: START + 345_500 });
    expect(until()).toBe(START + 445_500);
    expect(sound()).toHaveLength(445.5 * PER_MS);
    expect(quiet(sound(), 100, 345.5)).toBe(true);
    expect(sound().subarray(0, 4800)).toEqual(left(first.samples ?? new Int16Array()));
    expect(sound().subarray(345.5 * PER_MS)).toEqual(left(fourth.samples ?? new Int16Array()));
  });

  test('sound that was there already is not heard twice', () => {
    const { add, sound, until } = newTrack();
    const [first, second] = source(sine(1000), { to: 1, chunk: 200 });
    if (!first || !second) throw new Error('too few chunks');
    add(first);
    // it says that it began within the first one
    add({ ...second, timestamp: START + 120 * MS });
    expect(until()).toBe(START + 320 * MS);
    expect(sound().subarray(200 * PER_MS)).toEqual(left(second.samples ?? new Int16Array()).subarray(80 * PER_MS));
    // and one that is wholly within
    add({ ...second, timestamp: START + 10 * MS });
    expect(until()).toBe(START + 320 * MS);
  });

  test('silence closes what is missing, and what it says twice is said once', () => {
    const { add, sound, until } = newTrack();
    for (const chunk of source(sine(1000), { to: 0.1 })) add(chunk);
    // off by less than a jump: nobody hears it
    add(silence(130, 100));
    expect(until()).toBe(START + 230 * MS);
    add(silence(200, 100));
    expect(until()).toBe(START + 300 * MS);
    add(silence(290, 10, 44_100));
    expect(until()).toBe(START + 300 * MS);
    expect(sound()).toHaveLength(300 * PER_MS);
    expect(quiet(sound(), 100, 300)).toBe(true);
  });

  test('after silence, sound begins at its time', () => {
    const { add, sound } = newTrack();
    add(silence(0, 1000));
    for (const chunk of source(beeps([1.5, 2]), { from: 1.045, to: 3 })) add(chunk);
    const times = heard(sound());
    expect(Math.abs((times[0] ?? 0) - 1.5)).toBeLessThan(0.001);
    expect(Math.abs((times[1] ?? 0) - 2)).toBeLessThan(0.001);
  });

  test('is filled up to a time, and sound that comes after all goes on behind it, on time', () => {
    for (const chunk of [10, 100]) {
      const { add, padTo, sound, until } = newTrack();
      padTo(START + 150 * MS);
      expect(until()).toBe(START + 150 * MS);
      padTo(START + 100 * MS);
      expect(until()).toBe(START + 150 * MS);
      for (const late of source(beeps([0.12, 0.5]), { from: 0.112, to: 1, chunk })) add(late);
      expect(quiet(sound(), 0, 150)).toBe(true);
      // what is left of the first beep
      expect(quiet(sound(), 150, 151)).toBe(false);
      expect(Math.abs((heard(sound()).at(-1) ?? 0) - 0.5)).toBeLessThan(0.001);
    }
  });

  test('another source takes its own place at once', () => {
    const { add, reset, sound } = newTrack();
    for (const chunk of source(beeps([0.2]), { to: 1 })) add(chunk);
    reset();
    for (const chunk of source(beeps([1.2, 2.2]), { from: 1.05, to: 3, rate: 44_100 })) add(chunk);
    const times = heard(sound());
    for (const [i, time] of [0.2, 1.2, 2.2].entries()) expect(Math.abs((times[i] ?? 0) - time)).toBeLessThan(0.001);
  });
});

describe('a source whose clock drifts', () => {
  test.each([
    [200, SAMPLE_RATE],
    [-200, SAMPLE_RATE],
    [200, 44_100],
    [1000, SAMPLE_RATE],
  ])('by %i ppm, at %i Hz, is followed for a minute without a click, never 10 ms off', (slow, rate) => {
    const { add, sound, until, drift } = newTrack();
    let furthest = 0;
    for (const chunk of source(sine(1000), { to: 60, slow, rate })) {
      add(chunk);
      const end = chunk.timestamp + (chunk.frames * SECOND * (1 + slow / 1e6)) / rate;
      furthest = Math.max(furthest, Math.abs(until() - end));
    }
    expect(furthest).toBeLessThan(10 * MS);
    expect(sharpestBend(sound().subarray(PER_MS))).toBeLessThan(bendOf(1000, SAMPLE_RATE) * 1.05);
    // a minute of so many ppm, but for the few milliseconds that are let be
    expect(Math.abs(drift() - (60 * slow) / 1e6)).toBeLessThan(0.006);
  });

  test('is heard on time to its end', () => {
    const { add, sound } = newTrack();
    const times = Array.from({ length: 59 }, (_, i) => i + 0.55);
    for (const chunk of source(beeps(times), { to: 60, slow: 200, jitter: 500 })) add(chunk);
    const found = heard(sound());
    expect(found).toHaveLength(times.length);
    for (const [i, time] of found.entries()) expect(Math.abs(time - (times[i] ?? 0))).toBeLessThan(0.01);
  });
});
