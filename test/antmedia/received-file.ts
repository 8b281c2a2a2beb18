/** What arrived, as a file: neither decoded nor encoded again, at the times that its sender gave it. */
import { writeFile } from 'node:fs/promises';
import { BufferTarget, EncodedAudioPacketSource, EncodedPacket, EncodedVideoPacketSource, Mp4OutputFormat, Output } from 'mediabunny';
import type { ArrivedFrame, SenderReport } from './receiver.ts';

/** By what sound and picture were put on one clock. */
export interface Timing {
  /** `arrival` is an estimate: of each track, the frames that took least time count as having taken none. */
  readonly by: 'sender reports' | 'arrival';
  /** Sender reports of this source. */
  readonly reports: number;
  /** The furthest two of them are apart in what they say of the clock's start, in s: 0 where they are exact. */
  readonly spread: number;
  /** How long after its time a frame arrived, in s, the median: what is not near 0 on one machine are clocks that differ. */
  readonly lag: number;
}

export interface Timeline {
  readonly timing: Timing;
  /** A frame's time in s on the sender's wall clock, or where sender reports lack, by arrival on ours. */
  time(frame: ArrivedFrame): number;
}

/** Seconds from 1900, which NTP counts from, to 1970. */
const NTP_TO_UNIX = 2_208_988_800;

/** @param rate ticks of the RTP clock a second */
export function createTimeline(frames: readonly ArrivedFrame[], reports: readonly SenderReport[], rate: number): Timeline {
  const first = frames[0];
  const unwrap = (timestamp: number) => ((timestamp - (first?.rtpTimestamp ?? 0)) | 0) / rate;
  const own = reports.filter(({ source }) => source === first?.source);
  const starts = own.map(({ ntp, rtpTimestamp }) => ntp - NTP_TO_UNIX - unwrap(rtpTimestamp)).toSorted((a, b) => a - b);
  const middle = starts[starts.length >> 1];
  const start = middle ?? Math.min(...frames.map(({ rtpTimestamp, arrived }) => arrived / 1000 - unwrap(rtpTimestamp)));
  const time = ({ rtpTimestamp }: ArrivedFrame) => start + unwrap(rtpTimestamp);
  return {
    timing: {
      by: middle === undefined ? 'arrival' : 'sender reports',
      reports: own.length,
      spread: middle === undefined ? 0 : (starts.at(-1) as number) - (starts[0] as number),
      lag: frames.map((frame) => frame.arrived / 1000 - time(frame)).toSorted((a, b) => a - b)[frames.length >> 1] ?? NaN,
    },
    time,
  };
}

export interface Arrived {
  /** In the order in which they came. */
  readonly video: readonly ArrivedFrame[];
  readonly audio: readonly ArrivedFrame[];
  /** Of all sources. */
  readonly reports: readonly SenderReport[];
}

/** Where one track lacks sender reports, both are placed by arrival: clocks are not mixed. */
export function timelines({ video, audio, reports }: Arrived): { video: Timeline; audio: Timeline } {
  const of = (known: readonly SenderReport[]) => ({ video: createTimeline(video, known, 90_000), audio: createTimeline(audio, known, 48_000) });
  const both = of(reports);
  const lacking = (video.length > 0 && both.video.timing.reports === 0) || (audio.length > 0 && both.audio.timing.reports === 0);
  return lacking ? of([]) : both;
}

/**
 * An MP4 that begins with the first key frame, or with the first Opus packet where there is no video.
 *
 * @throws where there is nothing to write
 */
export async function writeReceived(file: string, arrived: Arrived): Promise<void> {
  const pictures = inOrder(arrived.video);
  const first = pictures.findIndex(({ key }) => key);
  const video = first === -1 ? [] : pictures.slice(first);
  const audio = inOrder(arrived.audio);
  if (video.length === 0 && audio.length === 0) throw new Error(`nothing arrived that can be played: ${arrived.video.length} frames, no key frame, no sound`);
  const clocks = timelines({ ...arrived, video, audio });
  const start = Math.min(...[video[0] && clocks.video.time(video[0]), audio[0] && clocks.audio.time(audio[0])].filter((each) => each !== undefined));

  const output = new Output({ format: new Mp4OutputFormat({ fastStart: 'in-memory' }), target: new BufferTarget() });
  const picture = new EncodedVideoPacketSource('avc');
  const sound = new EncodedAudioPacketSource('opus');
  if (video.length > 0) output.addVideoTrack(picture);
  if (audio.length > 0) output.addAudioTrack(sound);
  await output.start();

  const videoTimes = video.map((frame) => Math.max(0, clocks.video.time(frame) - start));
  for (const [index, frame] of video.entries()) {
    const time = videoTimes[index] as number;
    const duration = Math.max(0.001, (videoTimes[index + 1] ?? time + 1 / 30) - time);
    const size = frame.width > 0 ? frame : (video.find(({ width }) => width > 0) ?? { width: 640, height: 360 });
    await picture.add(new EncodedPacket(frame.data, frame.key ? 'key' : 'delta', time, duration, index), {
      decoderConfig: { codec: 'avc1.42e01f', codedWidth: size.width, codedHeight: size.height },
    });
  }
  if (video.length > 0) picture.close();

  const audioTimes = audio.map((frame) => Math.max(0, clocks.audio.time(frame) - start));
  for (const [index, frame] of audio.entries()) {
    const time = audioTimes[index] as number;
    const duration = Math.min(opusDuration(frame.data), (audioTimes[index + 1] ?? Infinity) - time);
    await sound.add(new EncodedPacket(frame.data, 'key', time, duration, index), {
      decoderConfig: { codec: 'opus', sampleRate: 48_000, numberOfChannels: 2, description: opusHead },
    });
  }
  if (audio.length > 0) sound.close();
  await output.finalize();
  await writeFile(file, new Uint8Array((output.target as BufferTarget).buffer as ArrayBuffer));
}

/** By their own clock, each once: what was sent again arrives late. WebRTC has no pictures that are decoded before earlier ones. */
function inOrder(frames: readonly ArrivedFrame[]): ArrivedFrame[] {
  const first = frames[0]?.rtpTimestamp ?? 0;
  const place = ({ rtpTimestamp }: ArrivedFrame) => (rtpTimestamp - first) | 0;
  return [...new Map(frames.map((frame) => [frame.rtpTimestamp, frame])).values()].toSorted((a, b) => place(a) - place(b));
}

/** RFC 7845, with two channels and nothing to skip: what a player of the stream hears includes the encoder's delay. */
const opusHead = new Uint8Array([...new TextEncoder().encode('OpusHead'), 1, 2, 0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0]);

/** In s, by the packet's first byte (RFC 6716, section 3.1). */
export function opusDuration(packet: Uint8Array): number {
  const toc = packet[0] ?? 0;
  const config = toc >> 3;
  const frame = config < 12 ? [10, 20, 40, 60][config & 3] : config < 16 ? [10, 20][config & 1] : [2.5, 5, 10, 20][config & 3];
  const count = [1, 2, 2, (packet[1] ?? 0) & 63][toc & 3] ?? 1;
  return ((frame as number) * count) / 1000;
}
