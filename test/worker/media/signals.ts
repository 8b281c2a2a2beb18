/** Sound that is known exactly, and what is left of it: interleaved 16-bit stereo, as captures give it. */

/** Amplitude that leaves room for what a filter adds. */
export const AMPLITUDE = 16_000;

export type Signal = (seconds: number) => number;

/** Both channels carry the same. */
export const stereo = (signal: Signal, rate: number, frames: number, from = 0): Int16Array => {
  const pcm = new Int16Array(frames * 2);
  for (let i = 0; i < frames; i += 1) pcm[2 * i] = pcm[2 * i + 1] = Math.round(signal(from + i / rate) * AMPLITUDE);
  return pcm;
};

export const sine = (frequency: number): Signal => (seconds) => Math.sin(2 * Math.PI * frequency * seconds);

/** A beep of 1 kHz and 60 ms at each of these times, silence around. */
export const beeps = (times: readonly number[]): Signal => (seconds) =>
  times.some((time) => seconds >= time && seconds < time + 0.06) ? Math.sin(2 * Math.PI * 1000 * seconds) : 0;

export const left = (pcm: Int16Array): Float64Array => Float64Array.from({ length: pcm.length / 2 }, (_, i) => pcm[2 * i] as number);
export const right = (pcm: Int16Array): Float64Array => Float64Array.from({ length: pcm.length / 2 }, (_, i) => pcm[2 * i + 1] as number);

export const join = (chunks: readonly Int16Array[]): Int16Array => {
  const joined = new Int16Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    joined.set(chunk, at);
    at += chunk.length;
  }
  return joined;
};

export type Fit = {
  amplitude: number;
  /** Radians at the first sample, of a sine. */
  phase: number;
  /** RMS of what is not this sine, against the sine's, in dB. */
  residue: number;
};

/** The sine of a frequency that is nearest to the samples (least squares). */
export function fitSine(samples: Float64Array, rate: number, frequency: number): Fit {
  let ss = 0;
  let cc = 0;
  let sc = 0;
  let xs = 0;
  let xc = 0;
  const omega = (2 * Math.PI * frequency) / rate;
  for (const [i, x] of samples.entries()) {
    const s = Math.sin(omega * i);
    const c = Math.cos(omega * i);
    ss += s * s;
    cc += c * c;
    sc += s * c;
    xs += x * s;
    xc += x * c;
  }
  const determinant = ss * cc - sc * sc;
  const a = (xs * cc - xc * sc) / determinant;
  const b = (xc * ss - xs * sc) / determinant;
  let rest = 0;
  for (const [i, x] of samples.entries()) rest += (x - a * Math.sin(omega * i) - b * Math.cos(omega * i)) ** 2;
  const amplitude = Math.hypot(a, b);
  return { amplitude, phase: Math.atan2(b, a), residue: 10 * Math.log10(rest / samples.length / (amplitude ** 2 / 2)) };
}

/** How far the samples bend at most, from one to the next: a click bends more than any sound in it. */
export function sharpestBend(samples: Float64Array): number {
  let sharpest = 0;
  for (let i = 2; i < samples.length; i += 1) {
    sharpest = Math.max(sharpest, Math.abs((samples[i] as number) - 2 * (samples[i - 1] as number) + (samples[i - 2] as number)));
  }
  return sharpest;
}

/** The sharpest bend of a sine of full amplitude: a little over what it is in theory, for rounding. */
export const bendOf = (frequency: number, rate: number): number => 2 * (1 - Math.cos((2 * Math.PI * frequency) / rate)) * AMPLITUDE + 8;
