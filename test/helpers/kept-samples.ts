/** Whether a recording's file has all that was stored of it: each access unit, as it was, in its order. Read by mediabunny. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { BufferSource, EncodedPacketSink, Input, MP4, type InputTrack } from 'mediabunny';
import type { TappedPart } from './parts-tap.ts';

export type KeptTrack = {
  /** Access units in all stored segments, and in the file. */
  stored: number;
  inFile: number;
  /** Stored ones that the file lacks, or has out of their order. */
  lost: number;
  /** The file's that no segment has, but for repeats of one alone (silence). */
  added: number;
};
export type KeptSamples = { video: KeptTrack; audio: KeptTrack; segments: number; bytes: number };

export async function keptSamples(parts: readonly TappedPart[], file: string): Promise<KeptSamples> {
  const stored: Samples = { video: [], audio: [] };
  let section: { init: TappedPart; media: TappedPart[] } | null = null;
  const flush = async () => {
    if (section === null || section.media.length === 0) return;
    const bytes = Buffer.concat(await Promise.all([section.init, ...section.media].map(({ path }) => readFile(path))));
    const { video, audio } = await samplesOf(bytes);
    stored.video.push(...video);
    stored.audio.push(...audio);
  };
  for (const part of parts) {
    if (part.type === 'init') {
      await flush();
      section = { init: part, media: [] };
    } else if (part.type === 'segment') {
      if (section === null || section.init.attempt !== part.attempt) throw new Error(`${part.name} follows no header`);
      section.media.push(part);
    }
  }
  await flush();
  const bytes = await readFile(file);
  const { video, audio } = await samplesOf(bytes);
  return {
    video: compare(stored.video, video),
    audio: compare(stored.audio, audio),
    segments: parts.filter(({ type }) => type === 'segment').length,
    bytes: bytes.length,
  };
}

type Samples = { video: string[]; audio: string[] };

async function samplesOf(bytes: Uint8Array): Promise<Samples> {
  using input = new Input({ formats: [MP4], source: new BufferSource(bytes) });
  return {
    video: await hashes(await input.getPrimaryVideoTrack(), withoutParameterSets),
    audio: await hashes(await input.getPrimaryAudioTrack(), (data) => data),
  };
}

async function hashes(track: InputTrack | null, read: (data: Uint8Array) => Uint8Array): Promise<string[]> {
  const found: string[] = [];
  if (track === null) return found;
  for await (const { data } of new EncodedPacketSink(track).packets()) found.push(createHash('sha1').update(read(data)).digest('base64'));
  return found;
}

/** A file of several encoders' pictures has their parameter sets (NAL unit types 7 and 8) before its key frames as well. */
function withoutParameterSets(data: Uint8Array): Uint8Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let at = 0;
  while (at + 5 <= data.length && [7, 8].includes((data[at + 4] as number) & 31)) at += 4 + view.getUint32(at);
  return data.subarray(at);
}

function compare(stored: readonly string[], file: readonly string[]): KeptTrack {
  let at = 0;
  let lost = 0;
  const extra: string[] = [];
  for (const sample of stored) {
    const found = file.indexOf(sample, at);
    if (found === -1) lost += 1;
    else {
      extra.push(...file.slice(at, found));
      at = found + 1;
    }
  }
  extra.push(...file.slice(at));
  const silence = extra[0];
  const kinds = new Set(extra);
  return { stored: stored.length, inFile: file.length, lost, added: kinds.size <= 1 && silence !== undefined ? 0 : extra.length };
}
