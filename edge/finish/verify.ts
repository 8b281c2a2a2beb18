/** Reads a finished file back, as a player would, by another reader than what wrote it. */
import { createHash } from 'node:crypto';
import { CustomSource, EncodedPacketSink, Input, MP4, type EncodedPacket, type InputTrack } from 'mediabunny';
import { TabreelError } from '../../shared/errors.ts';
import type { RecordingFile, Verification } from '../../shared/recording.ts';
import type { Storage } from '../storage/storage.ts';
import { boxAt, boxesIn, boxIn, viewOf } from './boxes.ts';
import { avcSettings, checkPictures } from './h264.ts';
import type { Joined } from './join.ts';
import type { Chunk, Laid } from './layout.ts';
import type { Plan } from './plan.ts';
import { release } from './release.ts';
import { audioConfig } from './silence.ts';

export type Verified = Verification & { duration: number; width: number; height: number };

/** The file is not what was planned: worth another try, and kept if that doesn't help. */
export class VerificationFailed extends Error {
  readonly verification: Verification;
  readonly files: readonly RecordingFile[];

  constructor(verification: Verification, files: readonly RecordingFile[]) {
    const failed = verification.checks.filter(({ ok }) => !ok).map(({ name, detail }) => `${name}: ${detail}`);
    super(`the finished file is not as it should be (${failed.join('; ')})`);
    this.name = 'VerificationFailed';
    this.verification = verification;
    this.files = files;
  }
}

/**
 * @param joined what was written
 * @returns every check with what was found; a file that can't be read at all fails those that need it
 * @throws what the storage threw
 */
export async function verifyFile(storage: Storage, key: string, plan: Plan, joined: Joined): Promise<Verified> {
  const found = { duration: 0, width: 0, height: 0 };
  const checks: Verification['checks'] = [];
  const check = async (name: string, look: () => Promise<string>) => {
    try {
      checks.push({ name, ok: true, detail: await look() });
    } catch (error) {
      // of the storage, not of the file
      if (error instanceof TabreelError) throw error;
      checks.push({ name, ok: false, detail: error instanceof Error ? error.message : String(error) });
    }
  };
  const stored = await describe(storage, key);
  await check('bytes', async () => {
    must(stored.bytes === joined.bytes && stored.sha256 === joined.sha256, `${stored.bytes} bytes were read back, ${joined.bytes} written; they ${stored.sha256 === joined.sha256 ? 'are' : 'are not'} the same`);
    return `all ${stored.bytes} read back as written`;
  });
  using input = new Input({
    formats: [MP4],
    source: new CustomSource({ getSize: () => stored.bytes, read: async (start, end) => (await storage.get(key, { start, end })) ?? new Uint8Array() }),
  });
  const tracks = { video: await orNull(input.getPrimaryVideoTrack()), audio: await orNull(input.getPrimaryAudioTrack()) };
  await check('tracks', async () => {
    must(tracks.video !== null, 'there is no picture');
    must((tracks.audio !== null) === (plan.audio !== null), `there is ${tracks.audio ? 'sound where none' : 'no sound where some'} was recorded`);
    return tracks.audio ? 'picture and sound' : 'picture';
  });
  await check('size', async () => {
    [found.width, found.height] = [(await tracks.video?.getCodedWidth()) ?? 0, (await tracks.video?.getCodedHeight()) ?? 0];
    const { width, height } = plan.video;
    must(found.width === width && found.height === height, `${found.width} x ${found.height}, recorded were ${width} x ${height}`);
    return `${width} x ${height}`;
  });
  await check('duration', async () => {
    found.duration = await input.computeDuration();
    must(Math.abs(found.duration - plan.duration) <= Math.max(0.5, plan.duration / 100), `${found.duration} s, recorded were ${plan.duration} s`);
    return `${found.duration.toFixed(3)} s of ${plan.duration.toFixed(3)} s`;
  });
  await check('samples', async () => {
    const { vide: pictures = 0, soun: sounds = 0 } = await countSamples(storage, key);
    const planned = [plan.video.sizes.length, plan.audio?.sizes.length ?? 0] as const;
    must(pictures === planned[0] && sounds === planned[1], `${pictures} pictures and ${sounds} packets of sound, planned were ${planned[0]} and ${planned[1]}`);
    return `${pictures} pictures, ${sounds} packets of sound`;
  });
  const ends = endsOf(plan);
  await check('structure', async () => {
    const details = [];
    for (const { which, from, to, entry } of ends.video) details.push(`${which} segment: ${await checkVideo(tracks.video, plan, from, to, entry)}`);
    if (plan.audio) for (const { from, to, entry } of ends.audio) await checkAudio(tracks.audio, plan, from, to, entry);
    return `${details.join('; ')}${plan.audio ? '; sound framed as AAC' : ''}; not decoded`;
  });
  return { ...found, ok: checks.every(({ ok }) => ok), checks };
}

function must(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new Error(otherwise);
}
const orNull = <T>(promise: Promise<T | null>): Promise<T | null> => promise.catch(() => null);

/** How long an object is, and its checksum. @throws {Error} where it is not there */
export async function describe(storage: Storage, key: string): Promise<Joined> {
  const stream = await storage.stream(key);
  if (stream === null) throw new Error(`${key} is not in the storage any more`);
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of stream) {
    hash.update(chunk);
    bytes += chunk.length;
    release(chunk);
  }
  return { bytes, sha256: hash.digest('hex') };
}

/** How many samples the tracks of each kind have, by the file's own tables. */
async function countSamples(storage: Storage, key: string): Promise<Record<string, number>> {
  const read = async (start: number, end: number) => (await storage.get(key, { start, end })) ?? new Uint8Array();
  for (let at = 0; ; ) {
    const { type, end } = boxAt(await read(at, at + 16), 0);
    const moov = type === 'moov' ? await read(at, at + end) : null;
    at += end;
    if (moov === null) continue;
    const counts: Record<string, number> = {};
    for (const trak of boxesIn(moov, 8).filter(({ type: name }) => name === 'trak')) {
      const handler = boxIn(moov, 'mdia/hdlr', trak.body, trak.end).body + 8;
      const sizes = boxIn(moov, 'mdia/minf/stbl/stsz', trak.body, trak.end).body + 8;
      counts[String.fromCharCode(...moov.subarray(handler, handler + 4))] = viewOf(moov).getUint32(sizes);
    }
    return counts;
  }
}

/** Samples of the first and the last segment, counted from 0. */
type Range = { which: 'first' | 'last'; from: number; to: number; entry: number };

function endsOf(plan: Plan): { video: Range[]; audio: Range[] } {
  const countOf = (chunks: readonly Chunk[], track: Chunk['track']) => chunks.reduce((sum, chunk) => sum + (chunk.track === track ? chunk.count : 0), 0);
  const entryIn = (laid: Laid, track: Chunk['track']) => laid.chunks.findLast((chunk) => chunk.track === track)?.entry ?? 1;
  const rangesOf = (track: Chunk['track'], total: number): Range[] => {
    const [first, last] = [plan.laid[0]!, plan.laid.at(-1)!];
    const ranges: Range[] = [{ which: 'first', from: 0, to: countOf(first.chunks, track), entry: entryIn(first, track) }];
    if (last !== first) ranges.push({ which: 'last', from: total - countOf(last.chunks, track), to: total, entry: entryIn(last, track) });
    return ranges;
  };
  return { video: rangesOf('video', plan.video.sizes.length), audio: rangesOf('audio', plan.audio?.sizes.length ?? 0) };
}

/** @throws {Error} where a sample is not what its table says */
async function samplesOf(track: InputTrack | null, sizes: readonly number[], from: number, to: number): Promise<Uint8Array[]> {
  must(track !== null, 'the track is missing');
  const sink = new EncodedPacketSink(track);
  const samples: Uint8Array[] = [];
  let packet: EncodedPacket | null = from === 0 ? await sink.getFirstPacket() : await lastPackets(sink, to - from);
  for (let i = from; i < to; i += 1) {
    must(packet !== null && packet.data.length === sizes[i], `sample ${i + 1} is missing or has another length`);
    samples.push(packet.data);
    if (i < to - 1) packet = await sink.getNextPacket(packet);
  }
  return samples;
}

/** The packet so many before the end. */
async function lastPackets(sink: EncodedPacketSink, packets: number): Promise<EncodedPacket | null> {
  const last = await sink.getPacket(Infinity);
  if (last === null || packets <= 1) return last;
  const passed: EncodedPacket[] = [];
  // there is no way back but by time
  for (let at: EncodedPacket | null = last; at !== null && passed.length < packets; ) {
    passed.push(at);
    at = await sink.getPacket(at.timestamp - 1e-6, { metadataOnly: true });
  }
  const first = passed.at(-1)!;
  return passed.length < packets ? null : sink.getPacket(first.timestamp);
}

async function checkVideo(track: InputTrack | null, plan: Plan, from: number, to: number, entry: number): Promise<string> {
  const samples = await samplesOf(track, plan.video.sizes, from, to);
  const settings = avcSettings(plan.video.entries[entry - 1]!);
  if (settings === null) return `${samples.length} pictures of a codec that is not looked into`;
  checkPictures(settings, samples, plan.video);
  return `${samples.length} pictures of H.264`;
}

/** Bits of a raw data block at most, for each channel (ISO 14496-3, 4.5.3.2). */
const MAX_FRAME_BITS = 6144;
/** syntactic elements that a frame of so many channels begins with, but for fill and data (4.5.2.1.1). */
const firstElements: Record<number, number> = { 1: 0, 2: 1 };

async function checkAudio(track: InputTrack | null, plan: Plan, from: number, to: number, entry: number): Promise<void> {
  const samples = await samplesOf(track, plan.audio?.sizes ?? [], from, to);
  const config = audioConfig(plan.audio!.entries[entry - 1]!);
  if (config === null) return;
  for (const sample of samples) {
    must(sample.length > 0 && sample.length * 8 <= MAX_FRAME_BITS * Math.max(1, config.channels), `a frame of AAC of ${sample.length} bytes`);
    const element = sample[0]! >> 5;
    const expected = firstElements[config.channels];
    must(expected === undefined || element === expected || element === 6 || element === 4, `a frame of AAC that begins with element ${element}`);
  }
}
