import { BufferTarget, EncodedAudioPacketSource, EncodedPacket, Mp4OutputFormat, Output } from 'mediabunny';
import { writeFile } from 'node:fs/promises';
import { join as path } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createAacEncoder, LOOKAHEAD_SAMPLES, PACKET_SAMPLES, type AacPacket } from '../../../worker/media/aac-encoder.ts';
import { SAMPLE_RATE } from '../../../worker/media/audio-track.ts';
import { hasFfmpeg, loudness, probe, readBeeps } from '../../helpers/analyse.ts';
import { temporaryDirectory } from './h264.ts';
import { AMPLITUDE, beeps, sine, stereo } from './signals.ts';

const BITRATE = 128_000;

async function encodeAll(pieces: readonly (Int16Array | number)[], bitrate = BITRATE): Promise<{ packets: AacPacket[]; description: Uint8Array | null }> {
  const packets: AacPacket[] = [];
  const encoder = await createAacEncoder(bitrate, (packet) => packets.push(packet), (error) => expect.unreachable(String(error)));
  for (const piece of pieces) encoder.encode(piece);
  await encoder.finish();
  return { packets, description: encoder.description() };
}

/** The packets from the first one that is heard on, each at its own time. */
async function asFile(packets: readonly AacPacket[], description: Uint8Array | null): Promise<string> {
  const target = new BufferTarget();
  const output = new Output({ format: new Mp4OutputFormat(), target });
  const source = new EncodedAudioPacketSource('aac');
  output.addAudioTrack(source);
  await output.start();
  const decoderConfig = { codec: 'mp4a.40.2', numberOfChannels: 2, sampleRate: SAMPLE_RATE, ...(description === null ? {} : { description }) };
  for (const { position, data } of packets) {
    if (position < 0) continue;
    await source.add(new EncodedPacket(data, 'key', position / SAMPLE_RATE, PACKET_SAMPLES / SAMPLE_RATE), { decoderConfig });
  }
  await output.finalize();
  const file = path(temporaryDirectory(onTestFinished), 'sound.mp4');
  await writeFile(file, new Uint8Array(target.buffer ?? new ArrayBuffer(0)));
  return file;
}

describe('encoded sound', () => {
  test('lies gapless from before the first sample, which primes decoders, to past the last', async () => {
    const { packets, description } = await encodeAll([new Int16Array(SAMPLE_RATE * 2), 12_345, new Int16Array(2 * 77)]);
    const samples = SAMPLE_RATE + 12_345 + 77;
    expect(packets[0]?.position).toBe(-PACKET_SAMPLES);
    for (const [i, { position, data }] of packets.entries()) {
      expect(position).toBe((i - 1) * PACKET_SAMPLES);
      // raw, as an MP4 has it: no ADTS header on each packet
      expect(data[0] === 0xff && ((data[1] ?? 0) & 0xf6) === 0xf0).toBe(false);
    }
    expect((packets.at(-1)?.position ?? 0) + PACKET_SAMPLES).toBeGreaterThanOrEqual(samples);
    expect(packets.at(-1)?.position).toBeLessThan(samples + PACKET_SAMPLES);
    // AudioSpecificConfig: AAC-LC (2), 48 kHz (index 3), stereo
    expect([...(description ?? [])].slice(0, 2)).toEqual([0b00010_001, 0b1_0010_000]);
  });

  test('comes out as far as it is sure to, wherever a packet begins', async () => {
    let until = -Infinity;
    let came: () => void = () => undefined;
    const packet = ({ position }: AacPacket) => {
      until = position + PACKET_SAMPLES;
      came();
    };
    const encoder = await createAacEncoder(BITRATE, packet, (error) => expect.unreachable(String(error)));
    let samples = 4 * PACKET_SAMPLES;
    encoder.encode(samples);
    // each phase of a packet in turn: were one to need more, nothing would come
    for (let i = 0; i <= PACKET_SAMPLES; i += 1) {
      while (until < samples - LOOKAHEAD_SAMPLES) {
        await new Promise<void>((resolve) => {
          came = resolve;
        });
      }
      encoder.encode(PACKET_SAMPLES - 1);
      samples += PACKET_SAMPLES - 1;
    }
    await encoder.finish();
  });

  test('of nothing at all ends in good order', async () => {
    expect(await encodeAll([])).toEqual({ packets: [], description: null });
    expect(await encodeAll([0, new Int16Array()])).toEqual({ packets: [], description: null });
  });

  test('has the bitrate that was asked for', async () => {
    // noise costs all that it may
    const pcm = new Int16Array(5 * SAMPLE_RATE * 2);
    let seed = 1;
    for (let i = 0; i < pcm.length; i += 1) {
      seed = (seed * 48_271) % 2_147_483_647;
      pcm[i] = (seed % 20_001) - 10_000;
    }
    for (const bitrate of [64_000, 192_000]) {
      const { packets } = await encodeAll([pcm], bitrate);
      const bits = packets.reduce((sum, { data }) => sum + data.length * 8, 0) / 5;
      expect(bits).toBeGreaterThan(bitrate * 0.7);
      expect(bits).toBeLessThan(bitrate * 1.15);
    }
  });

  describe.skipIf(!hasFfmpeg())('decoded with ffmpeg (skipped where it is not on the PATH)', () => {
    test('begins its beeps when they began, whatever the pieces were', async () => {
      const times = [0.25, 1, 2.5, 59.5];
      const length = 60.25;
      const pcm = stereo(beeps(times), SAMPLE_RATE, length * SAMPLE_RATE);
      const pieces: (Int16Array | number)[] = [];
      // silence comes as a number only; sound in batches that are no multiple of a packet
      for (let at = 0, i = 0; at < pcm.length / 2; i += 1) {
        const frames = [4800, 480, 4800, 1, 7777][i % 5] as number;
        const piece = pcm.subarray(at * 2, (at + frames) * 2);
        pieces.push(piece.every((sample) => sample === 0) ? piece.length / 2 : piece);
        at += frames;
      }
      const { packets, description } = await encodeAll(pieces);
      const found = await readBeeps(await asFile(packets, description));
      expect(found).toHaveLength(times.length);
      for (const [i, time] of times.entries()) expect(Math.abs((found[i] ?? 0) - time)).toBeLessThan(0.003);
    });

    test('is as loud as it was', async () => {
      const { packets, description } = await encodeAll([stereo(sine(1000), SAMPLE_RATE, 3 * SAMPLE_RATE)]);
      const file = await asFile(packets, description);
      expect((await probe(file)).audio).toMatchObject({ codec: 'aac', sampleRate: SAMPLE_RATE, channels: 2 });
      // ffmpeg mixes two equal channels to one of 1.41 times their amplitude, which makes up for the sine's RMS
      expect(Math.abs(((await loudness(file)).perSecond[1] ?? 0) - 20 * Math.log10(AMPLITUDE / 32_768))).toBeLessThan(0.2);
    });
  });
});
