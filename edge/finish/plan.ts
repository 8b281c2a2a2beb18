/** What is to be joined: the stored parts of a recording, their tracks and packet counts, on one timeline. */
import { BufferSource, CustomSource, EncodedPacketSink, Input, MP4, type AudioCodec, type InputTrack, type VideoCodec } from 'mediabunny';
import { partKey, type StoredPart } from '../storage/part-names.ts';
import type { Storage } from '../storage/storage.ts';

type SegmentPart = Extract<StoredPart, { type: 'segment' }>;

export type VideoTrackPlan = { codec: VideoCodec; config: VideoDecoderConfig; packets: number };
export type AudioTrackPlan = { codec: AudioCodec; config: AudioDecoderConfig; packets: number };

/** Segments that share a header. */
export type Section = {
  attempt: number;
  init: Uint8Array;
  segments: readonly SegmentPart[];
  /** Microseconds that are added to the attempt's own timeline. */
  offset: number;
};

export type Plan = {
  sections: Section[];
  video: VideoTrackPlan;
  audio: AudioTrackPlan | null;
  /** Key of the last segment with sound: behind it, the track is closed. */
  lastSound: string | null;
  /** Microseconds. */
  duration: number;
  attempts: { attempt: number; start: number; duration: number; segments: number }[];
  warnings: string[];
};

/** Tracks of one segment; packets are read from its header alone. */
export function openSegment(source: BufferSource | CustomSource, init: Input): Input {
  return new Input({ formats: [MP4], source, initInput: init });
}

export const openInit = (init: Uint8Array): Input => new Input({ formats: [MP4], source: new BufferSource(init) });

/**
 * Reads every segment's header, not its media: four hours cost about twenty seconds.
 *
 * @returns null where no segment is stored that could be played
 */
export async function planJoin(storage: Storage, id: string, parts: readonly StoredPart[], signal: AbortSignal): Promise<Plan | null> {
  const plan: Omit<Plan, 'video' | 'audio'> = { sections: [], lastSound: null, duration: 0, attempts: [], warnings: [] };
  let video: VideoTrackPlan | null = null;
  let audio: AudioTrackPlan | null = null;

  for (const [attempt, ofAttempt] of groupByAttempt(parts)) {
    const offset = plan.duration;
    let taken = 0;
    for (const { init, segments } of sectionsOf(ofAttempt)) {
      const initBytes = await storage.get(partKey(id, init.name));
      if (initBytes === null || segments.length === 0) continue;
      using initInput = openInit(initBytes);
      const tracks = await readTracks(initInput);
      if (tracks.video === null) throw new Error(`attempt ${attempt} has no picture`);
      if (video !== null && !canFollow({ video, audio }, tracks)) {
        plan.warnings.push(`part of attempt ${attempt} has other codec parameters than the recording's beginning and is not in the file`);
        continue;
      }
      video ??= { ...tracks.video, packets: 0 };
      audio ??= tracks.audio && { ...tracks.audio, packets: 0 };
      for (const segment of segments) {
        signal.throwIfAborted();
        const counts = await countPackets(storage, partKey(id, segment.name), initInput);
        video.packets += counts.video;
        if (audio) audio.packets += counts.audio;
        if (counts.audio > 0) plan.lastSound = segment.name;
      }
      plan.sections.push({ attempt, init: initBytes, segments, offset });
      taken += segments.length;
    }
    if (taken === 0) continue;
    const duration = durationOf(ofAttempt);
    plan.duration += duration;
    plan.attempts.push({ attempt, start: offset / 1e6, duration: duration / 1e6, segments: taken });
  }
  return video === null ? null : { ...plan, video, audio };
}

function groupByAttempt(parts: readonly StoredPart[]): Map<number, StoredPart[]> {
  const groups = new Map<number, StoredPart[]>();
  for (const part of parts) groups.set(part.attempt, [...(groups.get(part.attempt) ?? []), part]);
  return groups;
}

function sectionsOf(parts: readonly StoredPart[]): { init: StoredPart; segments: SegmentPart[] }[] {
  const sections: { init: StoredPart; segments: SegmentPart[] }[] = [];
  for (const part of parts) {
    if (part.type === 'init') sections.push({ init: part, segments: [] });
    if (part.type === 'segment') sections.at(-1)?.segments.push(part);
  }
  return sections;
}

/** What the worker said at the end, or the end of the last segment where it was lost before it could. Microseconds. */
function durationOf(parts: readonly StoredPart[]): number {
  const last = parts.findLast((part) => part.type === 'segment');
  const end = parts.findLast((part) => part.type === 'end');
  // an end before the last segment would contradict the media
  return end !== undefined && end.duration > (last?.start ?? 0) ? end.duration : (last?.start ?? 0) + (last?.duration ?? 0);
}

type Tracks = { video: Omit<VideoTrackPlan, 'packets'> | null; audio: Omit<AudioTrackPlan, 'packets'> | null };

async function readTracks(init: Input): Promise<Tracks> {
  const video = await init.getPrimaryVideoTrack();
  const audio = await init.getPrimaryAudioTrack();
  const [videoCodec, videoConfig] = [(await video?.getCodec()) ?? null, (await video?.getDecoderConfig()) ?? null];
  const [audioCodec, audioConfig] = [(await audio?.getCodec()) ?? null, (await audio?.getDecoderConfig()) ?? null];
  return {
    video: videoCodec && videoConfig && { codec: videoCodec, config: videoConfig },
    audio: audioCodec && audioConfig && { codec: audioCodec, config: audioConfig },
  };
}

/** Whether packets of both can stand in one file, which has one header a track. One without sound leaves a gap in it. */
const canFollow = (first: Tracks, next: Tracks): boolean =>
  same(first.video, next.video) && (first.audio === null || next.audio === null || same(first.audio, next.audio));

type TrackHeader = { codec: string; config: object } | null;

function same(a: TrackHeader, b: TrackHeader): boolean {
  const text = (track: TrackHeader) => JSON.stringify([track?.codec, track?.config], (_key, value: unknown) => (isBytes(value) ? bytesOf(value) : value));
  return text(a) === text(b);
}

const isBytes = (value: unknown): value is AllowSharedBufferSource => value instanceof ArrayBuffer || ArrayBuffer.isView(value);
const bytesOf = (value: AllowSharedBufferSource): number[] =>
  ArrayBuffer.isView(value) ? [...new Uint8Array(value.buffer, value.byteOffset, value.byteLength)] : [...new Uint8Array(value)];

async function countPackets(storage: Storage, key: string, init: Input): Promise<{ video: number; audio: number }> {
  const size = (await storage.stat(key))?.bytes;
  if (size === undefined) throw new Error(`${key} is not in the storage any more`);
  const source = new CustomSource({
    getSize: () => size,
    async read(start, end) {
      const bytes = await storage.get(key, { start, end });
      if (bytes?.length !== end - start) throw new Error(`${key} is shorter than it was`);
      return bytes;
    },
  });
  using input = openSegment(source, init);
  return { video: await count(await input.getPrimaryVideoTrack()), audio: await count(await input.getPrimaryAudioTrack()) };
}

async function count(track: InputTrack | null): Promise<number> {
  let packets = 0;
  if (!track) return packets;
  for await (const _packet of new EncodedPacketSink(track).packets(undefined, undefined, { metadataOnly: true })) packets += 1;
  return packets;
}
