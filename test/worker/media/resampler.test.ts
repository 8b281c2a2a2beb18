import { describe, expect, test } from 'vitest';
import { createResampler } from '../../../worker/media/resampler.ts';
import { AMPLITUDE, bendOf, fitSine, join, left, right, sharpestBend, sine, stereo } from './signals.ts';

/** Fed in pieces of these lengths, over and over. */
function inPieces(pcm: Int16Array, lengths: readonly number[], from: number, to: number, trim = 0): Int16Array {
  const resampler = createResampler(from, to);
  const out: Int16Array[] = [];
  for (let at = 0, i = 0; at < pcm.length; i += 1) {
    const next = at + (lengths[i % lengths.length] as number) * 2;
    out.push(resampler.process(pcm.subarray(at, next), trim));
    at = next;
  }
  return join(out);
}
const whole = (pcm: Int16Array, from: number, to: number, trim = 0) => createResampler(from, to).process(pcm, trim);
/** Without the ends, where the filter has nothing to go on. */
const inner = (samples: Float64Array) => samples.subarray(200, -200);
const decibels = (ratio: number) => 20 * Math.log10(ratio);

describe('sound of 44.1 kHz, as 48 kHz', () => {
  test.each([50, 440, 1000, 4000, 10_000, 14_900])('%i Hz is as high and as loud as it was, at its time', (frequency) => {
    const out = left(whole(stereo(sine(frequency), 44_100, 44_100), 44_100, 48_000));
    const fit = fitSine(inner(out), 48_000, frequency);
    expect(Math.abs(decibels(fit.amplitude / AMPLITUDE))).toBeLessThan(0.1);
    // nothing that was not there: no images, no noise that is heard
    expect(fit.residue).toBeLessThan(-50);
    // where the sine stands after 200 samples, as it did at the source
    const expected = (2 * Math.PI * frequency * 200) / 48_000;
    const late = Math.atan2(Math.sin(expected - fit.phase), Math.cos(expected - fit.phase)) / (2 * Math.PI * frequency);
    expect(Math.abs(late)).toBeLessThan(3e-6);
    // the same pitch: no phase is lost from one half to the other
    const half = Math.floor(inner(out).length / 2);
    const second = fitSine(inner(out).subarray(half), 48_000, frequency);
    const drift = second.phase - fit.phase - (2 * Math.PI * frequency * half) / 48_000;
    expect(Math.abs(Math.atan2(Math.sin(drift), Math.cos(drift)))).toBeLessThan(0.01);
  });

  test('has no click where chunks meet, however they are cut', () => {
    const pcm = stereo(sine(997), 44_100, 44_100);
    const reference = whole(pcm, 44_100, 48_000);
    for (const lengths of [[441], [4410], [1], [7, 1, 1000, 31, 32, 33], [10_000, 0, 3]]) {
      const pieces = inPieces(pcm, lengths, 44_100, 48_000);
      expect(Math.abs(pieces.length - reference.length), String(lengths)).toBeLessThanOrEqual(2);
      let furthest = 0;
      for (const [i, sample] of pieces.entries()) furthest = Math.max(furthest, Math.abs(sample - (reference[i] ?? sample)));
      // rounding of positions may fall on the other side of one of the filter's phases
      expect(furthest, String(lengths)).toBeLessThan(AMPLITUDE * 0.002);
      expect(sharpestBend(inner(left(pieces))), String(lengths)).toBeLessThan(bendOf(997, 48_000) * 1.2);
    }
  });

  test('keeps left and right apart', () => {
    const pcm = stereo(sine(440), 44_100, 44_100);
    for (let i = 1; i < pcm.length; i += 2) pcm[i] = 0;
    const out = whole(pcm, 44_100, 48_000);
    expect(fitSine(inner(left(out)), 48_000, 440).amplitude).toBeGreaterThan(AMPLITUDE * 0.99);
    expect(Math.max(...right(out).map(Math.abs))).toBe(0);
  });
});

test.each([
  [44_100, 48_000, 0],
  [48_000, 48_000, 0.003],
  [48_000, 48_000, -0.003],
  [44_100, 48_000, 0.002],
  [16_000, 48_000, 0],
  [96_000, 48_000, 0],
])('ten seconds of %i Hz as %i Hz, stretched by %f, are as long as they should be', (from, to, trim) => {
  const out = inPieces(new Int16Array(from * 10 * 2), [from / 10], from, to, trim);
  const missing = to * 10 * (1 + trim) - out.length / 2;
  // half a filter is held back for the next call
  expect(missing).toBeGreaterThanOrEqual(-1);
  expect(missing).toBeLessThanOrEqual((17 * to) / from + 1);
});

test('a stretch of 0.3 % changes the pitch by that and nothing else', () => {
  const out = left(inPieces(stereo(sine(1000), 48_000, 48_000), [480], 48_000, 48_000, 0.003));
  const fit = fitSine(inner(out), 48_000, 1000 / 1.003);
  expect(Math.abs(decibels(fit.amplitude / AMPLITUDE))).toBeLessThan(0.1);
  expect(fit.residue).toBeLessThan(-50);
});

test('what 48 kHz can not carry is left out, not folded into what is heard', () => {
  const out = left(whole(stereo(sine(36_000), 96_000, 96_000), 96_000, 48_000));
  expect(Math.max(...inner(out).map(Math.abs))).toBeLessThan(AMPLITUDE * 0.001);
});

test('sound at full scale clips and does not wrap around', () => {
  const pcm = new Int16Array(44_100 * 2);
  for (let i = 0; i < pcm.length; i += 1) pcm[i] = Math.floor(i / 2 / 100) % 2 === 0 ? 32_767 : -32_768;
  const out = left(whole(pcm, 44_100, 48_000));
  expect(Math.max(...out)).toBe(32_767);
  expect(Math.min(...out)).toBe(-32_768);
  // a sample that wrapped would stand on the other side of both its neighbours
  let lonely = 0;
  for (let i = 1; i < out.length - 1; i += 1) {
    const [before, here, after] = [out[i - 1] as number, out[i] as number, out[i + 1] as number];
    if (Math.sign(before) === Math.sign(after) && Math.sign(here) === -Math.sign(before) && Math.abs(here) > 20_000) lonely += 1;
  }
  expect(lonely).toBe(0);
});
