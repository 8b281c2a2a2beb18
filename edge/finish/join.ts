/** Joins stored segments into one ordinary MP4, packet by packet: nothing is encoded again, little is held in memory. */
import {
  BufferSource,
  EncodedAudioPacketSource,
  EncodedPacketSink,
  EncodedVideoPacketSource,
  Input,
  Mp4OutputFormat,
  Output,
  StreamTarget,
  type EncodedPacket,
  type InputTrack,
} from 'mediabunny';
import { partKey } from '../storage/part-names.ts';
import type { Storage } from '../storage/storage.ts';
import { openInit, openSegment, type Plan, type Section } from './plan.ts';

/** Bytes that the muxer collects before it writes. */
const WRITE_BYTES = 4 * 1024 * 1024;

/**
 * Writes the file to `key`. Its header stands at the beginning (fast start): its place is reserved, since the plan knows
 * the number of packets exactly, and so the media goes to the storage once.
 */
export async function joinSegments(storage: Storage, id: string, plan: Plan, key: string, signal: AbortSignal): Promise<void> {
  const upload = await storage.create(key);
  try {
    const target = new StreamTarget(
      new WritableStream({ write: ({ position, data }) => upload.write(position, data) }),
      { chunked: true, chunkSize: WRITE_BYTES },
    );
    const output = new Output({ format: new Mp4OutputFormat({ fastStart: 'reserve' }), target });
    const video = new EncodedVideoPacketSource(plan.video.codec);
    const audio = plan.audio && plan.audio.packets > 0 ? new EncodedAudioPacketSource(plan.audio.codec) : null;
    output.addVideoTrack(video, { maximumPacketCount: plan.video.packets });
    if (audio) output.addAudioTrack(audio, { maximumPacketCount: plan.audio?.packets ?? 0 });
    await output.start();
    try {
      await copyAll(video, audio);
      await output.finalize();
    } catch (error) {
      await output.cancel();
      throw error;
    }
    await upload.commit();
  } catch (error) {
    await upload.abort();
    throw error;
  }

  async function copyAll(video: EncodedVideoPacketSource, audio: EncodedAudioPacketSource | null) {
    let left = plan.video.packets;
    let soundOver = audio === null;
    for await (const { segment, name } of segmentsOf(storage, id, plan.sections)) {
      using input = segment.input;
      signal.throwIfAborted();
      const pictures = packets(await input.getPrimaryVideoTrack());
      const sounds = soundOver ? [] : packets(await input.getPrimaryAudioTrack());
      for await (const { packet, kind } of merge(pictures, sounds)) {
        const timestamp = packet.timestamp + segment.offset / 1e6;
        if (kind === 'sound') {
          await audio?.add(packet.clone({ timestamp }), { decoderConfig: plan.audio?.config as AudioDecoderConfig });
          continue;
        }
        left -= 1;
        // the last picture stands until the recording's end
        const rest = left === 0 ? Math.max(plan.duration / 1e6 - timestamp, packet.duration) : packet.duration;
        await video.add(packet.clone({ timestamp, duration: rest }), { decoderConfig: plan.video.config });
      }
      // without this the muxer would hold back every picture to come, to interleave it with sound
      if (!soundOver && name === plan.lastSound) {
        audio?.close();
        soundOver = true;
      }
    }
  }
}

async function* segmentsOf(storage: Storage, id: string, sections: readonly Section[]) {
  for (const { init, segments, offset } of sections) {
    using initInput = openInit(init);
    for (const { name } of segments) {
      const bytes = await storage.get(partKey(id, name));
      if (bytes === null) throw new Error(`${name} is not in the storage any more`);
      const input: Input = openSegment(new BufferSource(bytes), initInput);
      yield { name, segment: { input, offset } };
    }
  }
}

async function* packets(track: InputTrack | null): AsyncGenerator<EncodedPacket> {
  if (track) yield* new EncodedPacketSink(track).packets();
}

/** Pictures and sound in the order of their time, as the muxer wants them. */
async function* merge(
  pictures: AsyncIterable<EncodedPacket> | Iterable<EncodedPacket>,
  sounds: AsyncIterable<EncodedPacket> | Iterable<EncodedPacket>,
): AsyncGenerator<{ packet: EncodedPacket; kind: 'picture' | 'sound' }> {
  const sound: EncodedPacket[] = [];
  for await (const packet of sounds) sound.push(packet);
  let next = 0;
  for await (const packet of pictures) {
    for (let first = sound[next]; first && first.timestamp < packet.timestamp; first = sound[next]) {
      yield { packet: first, kind: 'sound' };
      next += 1;
    }
    yield { packet, kind: 'picture' };
  }
  for (const packet of sound.slice(next)) yield { packet, kind: 'sound' };
}
