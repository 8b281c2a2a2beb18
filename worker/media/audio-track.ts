/** Lays chunks of sound on the recording's timeline: gaps become silence, overlaps are cut, slow drift is followed. */
import type { AudioChunk } from '../capture/capture.ts';
import { createResampler, type Resampler } from './resampler.ts';

export const SAMPLE_RATE = 48_000;

/** Where a chunk of sound lies further off than this, it is put where it belongs; nearer, it is drawn there slowly. */
const JUMP_MICROS = 60_000;
/** Differences below this are jitter of the timestamps. */
const DEAD_BAND_MICROS = 4_000;
/** Share by which sound is stretched at most: 0.3 % is not heard. */
const MAX_TRIM = 0.003;

export type AudioTrack = {
  add(chunk: AudioChunk): void;
  /** Fills with silence up to a time on the monotonic clock, in microseconds, where nothing came. */
  padTo(micros: number): void;
  /** Another source follows, which has nothing to do with the one before. */
  reset(): void;
  /** Monotonic time up to which there is sound, in microseconds. */
  until(): number;
  /** Seconds by which drift was corrected, in all. */
  drift(): number;
};

/**
 * @param start monotonic microseconds of the timeline's beginning.
 * @param soundDelay microseconds by which this engine's sound comes late against its picture.
 * @param write takes interleaved stereo at SAMPLE_RATE, or a number of silent samples, without gaps.
 */
export function createAudioTrack(start: number, soundDelay: number, write: (pcm: Int16Array | number) => void): AudioTrack {
  let position = 0;
  let resampler: { rate: number; run: Resampler } | null = null;
  let smoothed = 0;
  let corrected = 0;
  // at the beginning, after silence and from a new source nobody hears a jump, however small
  let loose = true;
  let passedOn: Int16Array = new Int16Array();

  const until = () => start + (position * 1e6) / SAMPLE_RATE;
  const emit = (pcm: Int16Array | number) => {
    position += typeof pcm === 'number' ? pcm : pcm.length / 2;
    write(pcm);
  };
  const toSamples = (micros: number) => Math.round((micros * SAMPLE_RATE) / 1e6);

  return {
    until,
    drift: () => corrected,
    reset() {
      loose = true;
    },
    padTo(micros) {
      const missing = toSamples(micros - until());
      if (missing <= 0) return;
      emit(missing);
      loose = true;
    },
    add(chunk) {
      const begin = chunk.timestamp - soundDelay;
      const length = (chunk.frames * 1e6) / chunk.rate;
      if (begin + length <= start) return;
      let skip = 0;
      let difference = begin - until();
      if (loose || Math.abs(difference) > JUMP_MICROS || chunk.samples === null) {
        smoothed = 0;
        resampler = null;
        passedOn = new Int16Array();
        if (difference > 0) emit(toSamples(difference));
        else skip = Math.min(chunk.frames, Math.round((-difference * chunk.rate) / 1e6));
        difference = 0;
      }
      smoothed += (difference - smoothed) * 0.1;
      const trim = Math.abs(smoothed) < DEAD_BAND_MICROS ? 0 : Math.max(-MAX_TRIM, Math.min(MAX_TRIM, smoothed / 1e6));
      corrected += (trim * length) / 1e6;
      const frames = chunk.frames - skip;
      if (frames === 0) return;
      loose = chunk.samples === null;
      if (chunk.samples === null) {
        emit(Math.round(((frames * SAMPLE_RATE) / chunk.rate) * (1 + trim)));
        return;
      }
      const samples = chunk.samples.subarray(skip * 2);
      if (chunk.rate === SAMPLE_RATE && trim === 0 && resampler === null) {
        emit(samples);
        passedOn = samples;
        return;
      }
      if (resampler?.rate !== chunk.rate) resampler = { rate: chunk.rate, run: createResampler(chunk.rate, SAMPLE_RATE, passedOn) };
      const pcm = resampler.run.process(samples, trim);
      if (pcm.length > 0) emit(pcm);
    },
  };
}
