/** Finds when tones begin, and measures how loud sound is. Samples are mono, 1 is full scale. */
import { BEEP_MS } from './barcode.ts';

/** The loudness in dBFS that stands for silence, and the least there is. */
export const SILENCE = -120;

/**
 * The amplitude of one frequency (a whole number of Hz) at each sample: that of the 5 ms around it. 5 ms is a whole
 * number of periods of 1 kHz, and of every other multiple of 200 Hz, which thereby vanish.
 */
export function toneEnvelope(samples: Float32Array, rate: number, frequency: number): Float32Array {
  const half = Math.round(rate * 0.0025);
  const cosine = Float64Array.from({ length: rate }, (_, index) => Math.cos((2 * Math.PI * index) / rate));
  const quarter = rate * 0.75;
  const envelope = new Float32Array(samples.length);
  // The sum over the window of the signal brought down to 0 Hz.
  let real = 0;
  let imaginary = 0;
  const add = (index: number, sign: number): void => {
    const sample = (samples[index] ?? 0) * sign;
    const phase = (index * frequency) % rate;
    real += sample * (cosine[phase] ?? 0);
    imaginary += sample * (cosine[Math.round(phase + quarter) % rate] ?? 0);
  };
  for (let index = 0; index < half; index++) add(index, 1);
  for (let index = 0; index < samples.length; index++) {
    if (index + half < samples.length) add(index + half, 1);
    if (index - half >= 0) add(index - half, -1);
    envelope[index] = Math.hypot(real, imaginary) / half;
  }
  return envelope;
}

/**
 * At which samples beeps begin. A beep is at least a third as long as the test page's, and at least as high as the
 * threshold (an amplitude). A step in the tone is a slope of 5 ms in its envelope, half way up where the step is.
 */
export function onsets(envelope: Float32Array, rate: number, threshold: number): number[] {
  const beep = (BEEP_MS / 1000) * rate;
  const at = (index: number): number => envelope[index] ?? 0;
  const found: number[] = [];
  for (let index = 0; index < envelope.length; index++) {
    if (at(index) < threshold) continue;
    let peak = 0;
    for (let ahead = index; ahead < index + beep / 2; ahead++) peak = Math.max(peak, at(ahead));
    let rise = index;
    while (rise < envelope.length && at(rise) < peak / 2) rise++;
    let fall = rise;
    while (fall < envelope.length && at(fall) >= peak / 2) fall++;
    // Shorter is a click; a tone that was there before the first sample has no onset.
    if (fall - rise > beep / 3 && rise > 0) found.push(rise);
    index = fall;
    while (index < envelope.length && at(index) >= threshold) index++;
  }
  return found;
}

/** The RMS level in dBFS, at least `SILENCE`. */
export function level(samples: Float32Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.max(SILENCE, 10 * Math.log10(sum / samples.length || 0));
}
