/** Reads a finished file back, as a player would. */
import { CustomSource, EncodedPacketSink, Input, MP4 } from 'mediabunny';
import type { Storage } from '../storage/storage.ts';
import type { Plan } from './plan.ts';

/** Seconds by which file and timeline may differ. */
const TOLERANCE = 0.5;

export type Verified = { bytes: number; duration: number; width: number; height: number };

/** @throws {Error} saying what is wrong with the file */
export async function verifyFile(storage: Storage, key: string, plan: Plan): Promise<Verified> {
  const size = (await storage.stat(key))?.bytes ?? 0;
  if (size === 0) throw new Error('the finished file is empty');
  using input = new Input({
    formats: [MP4],
    source: new CustomSource({ getSize: () => size, read: async (start, end) => (await storage.get(key, { start, end })) ?? new Uint8Array() }),
  });
  const video = await input.getPrimaryVideoTrack();
  if (!video) throw new Error('the finished file has no picture');
  if (((await input.getPrimaryAudioTrack()) !== null) !== (plan.audio !== null && plan.audio.packets > 0)) {
    throw new Error('the finished file has other tracks than the recording');
  }
  const duration = await input.computeDuration();
  if (Math.abs(duration - plan.duration / 1e6) > TOLERANCE) {
    throw new Error(`the finished file has ${duration} s, the recording ${plan.duration / 1e6} s`);
  }
  // the end is there, and what comes before it was not cut short
  const last = await new EncodedPacketSink(video).getPacket(Infinity);
  if (!last || last.data.length === 0) throw new Error('the finished file has no last picture');
  const [width, height] = [await video.getCodedWidth(), await video.getCodedHeight()];
  if (width !== plan.video.config.codedWidth || height !== plan.video.config.codedHeight) {
    throw new Error(`the finished file has ${width} x ${height}, the recording ${plan.video.config.codedWidth} x ${plan.video.config.codedHeight}`);
  }
  return { bytes: size, duration, width, height };
}
