import { createDecoder } from 'libopus-wasm';
import { expect, test } from 'vitest';
import { createOpusTrack, type OpusPacket } from '../../../worker/media/opus-track.ts';

const RATE = 48_000;
const chunk = (at: number, frames: number, level: number) => ({
  timestamp: at,
  rate: RATE,
  frames,
  samples: level === 0 ? null : Int16Array.from({ length: frames * 2 }, (_, i) => Math.round(level * Math.sin(((Math.floor(i / 2) + (at * RATE) / 1e6) * 2 * Math.PI * 1000) / RATE))),
});

/** Monotonic microseconds at which the decoded sound is first loud. */
async function loudFrom(packets: readonly OpusPacket[]): Promise<number | null> {
  const decoder = await createDecoder();
  for (const { data, timestamp } of packets) {
    const pcm = decoder.decode(data);
    const at = pcm.findIndex((sample) => Math.abs(sample) > 3000);
    if (at !== -1) return timestamp + (Math.floor(at / 2) * 1e6) / RATE;
  }
  return null;
}

test('packets of 20 ms without a gap, each sample at its time, silence where nothing came', async () => {
  const packets: OpusPacket[] = [];
  const start = 5_000_000;
  using track = await createOpusTrack(start, 0, 128_000, (packet) => packets.push(packet));
  for (let i = 0; i < 5; i += 1) track.add(chunk(start + i * 100_000, 4800, 0));
  track.add(chunk(start + 700_000, 4800, 12_000));
  track.padTo(start + 1_000_000);
  expect(packets.length).toBe(50);
  for (const [i, { timestamp }] of packets.entries()) expect(timestamp - (packets[0] as OpusPacket).timestamp).toBe(i * 20_000);
  expect(Math.abs(((await loudFrom(packets)) ?? 0) - (start + 700_000))).toBeLessThan(3000);
});

test("what comes late by the engine's delay is put back, and bits are as asked for", async () => {
  const packets: OpusPacket[] = [];
  using track = await createOpusTrack(0, 40_000, 64_000, (packet) => packets.push(packet));
  for (let i = 0; i < 20; i += 1) track.add(chunk(i * 100_000, 4800, i < 5 ? 0 : 12_000));
  expect(Math.abs(((await loudFrom(packets)) ?? 0) - 460_000)).toBeLessThan(3000);
  const bits = packets.reduce((sum, { data }) => sum + data.length * 8, 0) / (packets.length * 0.02);
  expect(bits).toBeLessThan(80_000);
});
