/** PCM to AAC-LC, by mediabunny's WASM build of FFmpeg's encoder: Chromium has none on Linux. */
import { registerAacEncoder } from '@mediabunny/aac-encoder';
import { AdtsOutputFormat, AudioSample, AudioSampleSource, NullTarget, Output } from 'mediabunny';
import { SAMPLE_RATE } from './audio-track.ts';

registerAacEncoder();

/** Samples in an AAC packet. */
export const PACKET_SAMPLES = 1024;
/** Samples of silence that the encoder puts in front: its first packet only primes the decoder. */
const PRIMING_SAMPLES = 1024;
/**
 * With so many samples behind a moment, every packet up to it comes out: one packet is priming, FFmpeg's encoder holds one
 * back to choose its windows, and a third may lack a sample to be whole. Measured on pieces of any length: 3071 at most.
 */
export const LOOKAHEAD_SAMPLES = 3 * PACKET_SAMPLES;

export type AacPacket = {
  /** Sample at which it begins; the first packet's is negative (priming). */
  position: number;
  data: Uint8Array;
};

export type AacEncoder = {
  /** Takes interleaved stereo, or a number of silent samples; encodes in order. */
  encode(pcm: Int16Array | number): void;
  /** AudioSpecificConfig (ISO 14496-3); null until the first packet. */
  description(): Uint8Array | null;
  /** Encodes what is left. No `encode` after it. */
  finish(): Promise<void>;
};

export async function createAacEncoder(
  bitrate: number,
  onPacket: (packet: AacPacket) => void,
  onError: (error: unknown) => void,
): Promise<AacEncoder> {
  let description: Uint8Array | null = null;
  let packets = 0;
  const source = new AudioSampleSource({
    codec: 'aac',
    bitrate,
    onEncodedPacket(packet, metadata) {
      const given = metadata?.decoderConfig?.description;
      if (given && description === null) description = new Uint8Array(ArrayBuffer.isView(given) ? given.buffer.slice(given.byteOffset, given.byteOffset + given.byteLength) : given);
      onPacket({ position: packets * PACKET_SAMPLES - PRIMING_SAMPLES, data: packet.data });
      packets += 1;
    },
  });
  const output = new Output({ format: new AdtsOutputFormat(), target: new NullTarget() });
  output.addAudioTrack(source);
  await output.start();

  let position = 0;
  let last: Promise<unknown> = Promise.resolve();
  const add = (data: Int16Array) => {
    const sample = new AudioSample({
      data,
      format: 's16',
      numberOfChannels: 2,
      sampleRate: SAMPLE_RATE,
      timestamp: position / SAMPLE_RATE,
    });
    position += data.length / 2;
    last = last.then(() => source.add(sample)).then(
      () => sample.close(),
      onError,
    );
  };
  const silence = new Int16Array(SAMPLE_RATE * 2);
  return {
    encode(pcm) {
      if (typeof pcm !== 'number') return add(pcm);
      for (let left = pcm; left > 0; left -= SAMPLE_RATE) add(silence.subarray(0, Math.min(left, SAMPLE_RATE) * 2));
    },
    description: () => description,
    async finish() {
      await last;
      // an ADTS file of nothing is an error
      if (position === 0) await output.cancel();
      else await output.finalize();
    },
  };
}
