/** Band-limited conversion of stereo PCM between sample rates, with a speed that may be trimmed to follow a drifting clock. */

const TAPS = 32;
const PHASES = 512;

/** Windowed sinc, one row of taps for each fraction of a sample; `cutoff` as a share of the input's Nyquist frequency. */
function kernel(cutoff: number): Float32Array {
  const rows = new Float32Array((PHASES + 1) * TAPS);
  for (let phase = 0; phase <= PHASES; phase += 1) {
    let sum = 0;
    for (let tap = 0; tap < TAPS; tap += 1) {
      const x = tap - TAPS / 2 + 1 - phase / PHASES;
      const angle = Math.PI * x * cutoff;
      const sinc = x === 0 ? 1 : Math.sin(angle) / angle;
      // Blackman window over the taps' span
      const w = (x + TAPS / 2) / TAPS;
      const window = 0.42 - 0.5 * Math.cos(2 * Math.PI * w) + 0.08 * Math.cos(4 * Math.PI * w);
      const value = sinc * window;
      rows[phase * TAPS + tap] = value;
      sum += value;
    }
    for (let tap = 0; tap < TAPS; tap += 1) rows[phase * TAPS + tap] = (rows[phase * TAPS + tap] as number) / sum;
  }
  return rows;
}

export type Resampler = {
  /**
   * @param samples interleaved stereo. @param trim share by which the output is made longer, for example 0.002.
   * @returns interleaved stereo at the output's rate; a call's last few samples come with the next one.
   */
  process(samples: Int16Array, trim: number): Int16Array;
};

/**
 * Holds back half its taps, 16 input samples (0.36 ms at 44.1 kHz), and shifts nothing: it begins with the first sample.
 *
 * @param before what was heard before the first sample, where there was something: its end goes into the filter.
 */
export function createResampler(inputRate: number, outputRate: number, before: Int16Array = new Int16Array()): Resampler {
  const rows = kernel(Math.min(1, outputRate / inputRate) * 0.97);
  // the last taps of what came before, so that calls join without a click
  let tail: Int16Array = new Int16Array((TAPS - 1) * 2);
  const known = before.subarray(-tail.length);
  tail.set(known, tail.length - known.length);
  let position = TAPS / 2;
  return {
    process(samples, trim) {
      const input = new Int16Array(tail.length + samples.length);
      input.set(tail);
      input.set(samples, tail.length);
      const step = inputRate / (outputRate * (1 + trim));
      const available = input.length / 2 - TAPS + 1;
      const count = Math.max(0, Math.ceil((available - position) / step));
      const output = new Int16Array(count * 2);
      for (let i = 0; i < count; i += 1) {
        const at = position + i * step;
        const first = Math.floor(at);
        const row = Math.round((at - first) * PHASES) * TAPS;
        let left = 0;
        let right = 0;
        for (let tap = 0; tap < TAPS; tap += 1) {
          const weight = rows[row + tap] as number;
          left += weight * (input[(first + tap) * 2] as number);
          right += weight * (input[(first + tap) * 2 + 1] as number);
        }
        // Int16Array wraps around: clip instead
        output[i * 2] = Math.max(-32_768, Math.min(32_767, Math.round(left)));
        output[i * 2 + 1] = Math.max(-32_768, Math.min(32_767, Math.round(right)));
      }
      position = position + count * step - available;
      tail = input.slice(-(TAPS - 1) * 2);
      return output;
    },
  };
}
