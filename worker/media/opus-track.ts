/** Sound as packets of Opus, for pushes: laid on the clock as the recording's is (audio-track.ts), encoded by a WASM build of libopus. */
import { createEncoder } from 'libopus-wasm';
import type { AudioChunk } from '../capture/capture.ts';
import { createAudioTrack, SAMPLE_RATE } from './audio-track.ts';

/** Samples of a packet: 20 ms, which is what browsers send. */
const PACKET_SAMPLES = 960;
/** Of 10: half the work of the highest, at a bit rate where that is not heard. */
const COMPLEXITY = 5;

/** @property timestamp monotonic microseconds of its first sample */
export type OpusPacket = { data: Uint8Array; timestamp: number };

export type OpusTrack = Disposable & {
  add(chunk: AudioChunk): void;
  /** Another source follows, which has nothing to do with the one before. */
  reset(): void;
  /** Silence up to a time on the monotonic clock, in microseconds, where nothing came. */
  padTo(micros: number): void;
};

/**
 * @param start monotonic microseconds of the first sample
 * @param soundDelay as in createAudioTrack
 * @param bitrate bits per second
 */
export async function createOpusTrack(start: number, soundDelay: number, bitrate: number, onPacket: (packet: OpusPacket) => void): Promise<OpusTrack> {
  const encoder = await createEncoder({ bitrate, complexity: COMPLEXITY });
  // a decoder gives each sample so much later
  const lookahead = encoder.getLookahead();
  const frame = new Int16Array(PACKET_SAMPLES * 2);
  let filled = 0;
  let packets = 0;
  const take = (count: number, fill: (from: number, to: number, at: number) => void) => {
    for (let taken = 0; taken < count; ) {
      const more = Math.min(count - taken, PACKET_SAMPLES - filled);
      fill(taken, taken + more, filled);
      taken += more;
      filled += more;
      if (filled < PACKET_SAMPLES) continue;
      const timestamp = start + ((packets * PACKET_SAMPLES - lookahead) * 1e6) / SAMPLE_RATE;
      onPacket({ data: encoder.encode(frame).slice(), timestamp: Math.round(timestamp) });
      packets += 1;
      filled = 0;
    }
  };
  const track = createAudioTrack(start, soundDelay, (pcm) => {
    if (typeof pcm === 'number') take(pcm, (from, to, at) => frame.fill(0, at * 2, (at + to - from) * 2));
    else take(pcm.length / 2, (from, to, at) => frame.set(pcm.subarray(from * 2, to * 2), at * 2));
  });
  return { add: track.add, reset: track.reset, padTo: track.padTo, [Symbol.dispose]: () => encoder.free() };
}
