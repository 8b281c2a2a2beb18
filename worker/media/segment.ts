/** Packets to one CMAF segment, and the header (init segment) that goes before it. */
import { BufferTarget, CmafOutputFormat, EncodedAudioPacketSource, EncodedPacket, EncodedVideoPacketSource, Output } from 'mediabunny';
import { SAMPLE_RATE } from './audio-track.ts';
import { PACKET_SAMPLES } from './aac-encoder.ts';

export type SegmentVideo = {
  codec: string;
  width: number;
  height: number;
  /** AVCDecoderConfigurationRecord. */
  description: Uint8Array;
  /** In order; microseconds from the timeline's beginning. The first is a key frame. */
  packets: readonly { timestamp: number; duration: number; key: boolean; data: Uint8Array }[];
};

export type SegmentAudio = {
  /** AudioSpecificConfig. */
  description: Uint8Array;
  /** In order; samples from the timeline's beginning. */
  packets: readonly { position: number; data: Uint8Array }[];
};

/** @returns both as bytes; the header is the same for the same codec settings. */
export async function muxSegment(video: SegmentVideo, audio: SegmentAudio | null): Promise<{ init: Uint8Array; segment: Uint8Array }> {
  const target = new BufferTarget();
  const initTarget = new BufferTarget();
  const output = new Output({ format: new CmafOutputFormat(), target, initTarget });
  const videoSource = new EncodedVideoPacketSource('avc');
  output.addVideoTrack(videoSource);
  const audioSource = audio === null ? null : new EncodedAudioPacketSource('aac');
  if (audioSource !== null) output.addAudioTrack(audioSource);
  await output.start();

  const videoMeta = {
    decoderConfig: {
      codec: video.codec,
      codedWidth: video.width,
      codedHeight: video.height,
      description: video.description,
    },
  };
  const adding: Promise<void>[] = [];
  for (const { timestamp, duration, key, data } of video.packets) {
    adding.push(videoSource.add(new EncodedPacket(data, key ? 'key' : 'delta', timestamp / 1e6, duration / 1e6), videoMeta));
  }
  if (audio !== null && audioSource !== null) {
    const audioMeta = {
      decoderConfig: { codec: 'mp4a.40.2', numberOfChannels: 2, sampleRate: SAMPLE_RATE, description: audio.description },
    };
    for (const { position, data } of audio.packets) {
      adding.push(audioSource.add(new EncodedPacket(data, 'key', position / SAMPLE_RATE, PACKET_SAMPLES / SAMPLE_RATE), audioMeta));
    }
  }
  // a source that is done must not be waited for by the other one
  videoSource.close();
  audioSource?.close();
  await Promise.all(adding);
  await output.finalize();
  if (target.buffer === null || initTarget.buffer === null) throw new TypeError('the muxer gave no segment');
  return { init: new Uint8Array(initTarget.buffer), segment: new Uint8Array(target.buffer) };
}
