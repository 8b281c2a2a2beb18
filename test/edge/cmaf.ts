/** CMAF parts as a worker sends them, with real packets: from ffmpeg where it is there, else from the fixture. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  ALL_FORMATS,
  BufferSource,
  BufferTarget,
  CmafOutputFormat,
  EncodedAudioPacketSource,
  EncodedPacketSink,
  EncodedVideoPacketSource,
  Input,
  Output,
  type EncodedPacket,
  type InputAudioTrack,
  type InputVideoTrack,
} from 'mediabunny';
import type { PartHeader } from '../../shared/media-protocol.ts';

export const hasFfmpeg = spawnSync('ffmpeg', ['-version']).status === 0 && spawnSync('ffprobe', ['-version']).status === 0;

export type CmafPart = { header: PartHeader; payload: Uint8Array };
export type Cmaf = {
  /** init, segments, end. */
  parts: CmafPart[];
  frames: number;
  /** Seconds, without what lies before its start. */
  duration: number;
  width: number;
  height: number;
  audio: boolean;
};

export type CmafOptions = {
  seconds?: number;
  size?: string;
  audio?: boolean;
  /** Seconds at which it begins on the recording's timeline. */
  start?: number;
  /** Number of its first part. */
  seq?: number;
  /** Further options of ffmpeg: another encoder's settings, other sound. */
  encoder?: readonly string[];
};

const sources = new Map<string, Uint8Array>();

/** A key frame at each second. */
function sourceFile(seconds: number, size: string, audio: boolean, encoder: readonly string[]): Uint8Array {
  const key = JSON.stringify([seconds, size, audio, encoder]);
  const made = sources.get(key) ?? makeSource(seconds, size, audio, encoder);
  sources.set(key, made);
  return made;
}

function makeSource(seconds: number, size: string, audio: boolean, encoder: readonly string[]): Uint8Array {
  if (!hasFfmpeg) return readFileSync(new URL('../fixtures/media/video.webm', import.meta.url));
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-cmaf-'));
  try {
    const file = join(directory, 'source.mp4');
    const sound = audio ? ['-f', 'lavfi', '-i', 'sine=frequency=440:sample_rate=48000'] : [];
    execFileSync('ffmpeg', [
      '-v', 'error', '-f', 'lavfi', '-i', `testsrc=size=${size}:rate=30`, ...sound, '-t', String(seconds),
      '-c:v', 'libx264', '-preset', 'ultrafast', '-pix_fmt', 'yuv420p', '-bf', '0', '-g', '30', '-keyint_min', '30', '-sc_threshold', '0',
      ...(audio ? ['-c:a', 'aac', '-b:a', '96k'] : []), ...encoder, file,
    ]); // prettier-ignore
    return readFileSync(file);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function packetsOf(track: InputVideoTrack | InputAudioTrack | null): Promise<EncodedPacket[]> {
  const packets: EncodedPacket[] = [];
  if (!track) return packets;
  for await (const packet of new EncodedPacketSink(track).packets()) packets.push(packet);
  return packets;
}

export async function makeCmaf({ seconds = 4, size = '320x240', audio = true, start: at = 0, seq = 1, encoder = [] }: CmafOptions = {}): Promise<Cmaf> {
  using input = new Input({ formats: ALL_FORMATS, source: new BufferSource(sourceFile(seconds, size, audio, encoder)) });
  const videoTrack = await input.getPrimaryVideoTrack();
  if (!videoTrack) throw new Error('the source has no picture');
  const audioTrack = audio ? await input.getPrimaryAudioTrack() : null;
  const video = await packetsOf(videoTrack);
  const sound = (await packetsOf(audioTrack)).filter(({ timestamp }) => timestamp >= 0);
  const begin = (video[0]?.timestamp ?? 0) - at;
  const end = Math.max(...video.map(({ timestamp, duration }) => timestamp + duration));
  const starts = video.filter(({ type }) => type === 'key').map(({ timestamp }) => timestamp);
  const videoConfig = await videoTrack.getDecoderConfig();
  const audioConfig = await audioTrack?.getDecoderConfig();
  const parts: CmafPart[] = [];
  let frames = 0;

  for (const [i, start] of starts.entries()) {
    const until = starts[i + 1] ?? end;
    const within = ({ timestamp }: EncodedPacket) => timestamp >= start && (timestamp < until || i === starts.length - 1);
    const initTarget = new BufferTarget();
    const target = new BufferTarget();
    const output = new Output({ format: new CmafOutputFormat(), target, initTarget });
    const videoSource = new EncodedVideoPacketSource((await videoTrack.getCodec()) ?? 'avc');
    const audioCodec = await audioTrack?.getCodec();
    const audioSource = audioCodec ? new EncodedAudioPacketSource(audioCodec) : null;
    output.addVideoTrack(videoSource);
    if (audioSource) output.addAudioTrack(audioSource);
    await output.start();
    const pictures = video.filter(within);
    for (const packet of pictures) {
      await videoSource.add(packet.clone({ timestamp: packet.timestamp - begin }), videoConfig ? { decoderConfig: videoConfig } : {});
    }
    videoSource.close();
    for (const packet of sound.filter(within)) {
      await audioSource?.add(packet.clone({ timestamp: packet.timestamp - begin }), audioConfig ? { decoderConfig: audioConfig } : {});
    }
    await output.finalize();
    if (i === 0) parts.push({ header: { type: 'init', seq }, payload: new Uint8Array(initTarget.buffer ?? new ArrayBuffer(0)) });
    const micros = (time: number) => Math.round((time - begin) * 1e6);
    parts.push({
      header: { type: 'segment', seq: seq + parts.length, start: micros(start), duration: micros(until) - micros(start), frames: pictures.length },
      payload: new Uint8Array(target.buffer ?? new ArrayBuffer(0)),
    });
    frames += pictures.length;
  }
  parts.push({ header: { type: 'end', seq: seq + parts.length, duration: Math.round((end - begin) * 1e6) }, payload: new Uint8Array() });
  return {
    parts,
    frames,
    duration: end - begin - at,
    width: await videoTrack.getCodedWidth(),
    height: await videoTrack.getCodedHeight(),
    audio: audioTrack !== null,
  };
}
