/** Joins stored segments into one ordinary MP4, sample by sample: nothing is encoded again, little is held in memory. */
import { createHash } from 'node:crypto';
import type { Storage, Upload } from '../storage/storage.ts';
import { ahead } from './ahead.ts';
import { lengthOf, piecesOf, type Pieces } from './boxes.ts';
import { chapterSamples, type Chapter } from './chapters.ts';
import { fileType, mediaBoxHeader, movieHeader, type Placed } from './movie.ts';
import { bytesOf, type Plan } from './plan.ts';
import { release } from './release.ts';
import { readSegment } from './segment.ts';
import { silentFrame } from './silence.ts';

/** Bytes that are collected before they are written. */
const WRITE_BYTES = 1024 * 1024;
/** Positions beyond are written in 64 bits, some bytes before they have to be. */
const LARGE_BYTES = 2 ** 32 - 2 ** 24;
/** Segments that are read at a time. */
const READ_AHEAD = 2;

export type Joined = { bytes: number; sha256: string };

/**
 * Writes the file to `key`, from its first byte to its last: all that its header says is known before the media are read.
 *
 * @param created seconds since the epoch
 * @throws {Error} where a segment is not what it was when it was planned; what the storage threw; the signal's reason
 */
export async function joinSegments(
  storage: Storage,
  plan: Plan,
  { key, chapters, created, signal }: { key: string; chapters: readonly Chapter[]; created: number; signal: AbortSignal },
): Promise<Joined> {
  const media = plan.laid.reduce((sum, { chunks }) => chunks.reduce((total, { bytes }) => total + bytes, sum), 0);
  const upload = await storage.create(key, media);
  try {
    const out = writer(upload);
    const texts = chapterSamples(chapters);
    for (const piece of piecesOf(headOf(plan, chapters, texts, created))) await out.write(piece);
    for (const text of texts) await out.write(text);
    const segments = ahead(plan.laid, READ_AHEAD, async (laid) => {
      signal.throwIfAborted();
      const part = plan.segments.get(laid.name)!;
      return { ...laid, bytes: await bytesOf(storage, part.key) };
    });
    for await (const { name, init, chunks, sets, bytes } of segments) {
      const samples = await readSegment(async (start, end) => bytes.subarray(start, end), bytes.length, init);
      const next = { video: 0, audio: 0 };
      for (const { track, entry, count, bytes: expected, silent } of chunks) {
        const silence = silent ? silentFrame(plan.audio!.entries[entry - 1]!)! : null;
        let written = 0;
        for (let i = 0; i < count; i += 1) {
          const sample = silence === null ? samples[track][next[track]++] : undefined;
          const data = silence ?? bytes.subarray(sample?.offset ?? 0, (sample?.offset ?? 0) + (sample?.size ?? 0));
          if (track === 'video' && sample?.key && sets) {
            await out.write(sets);
            written += sets.length;
          }
          await out.write(data);
          written += data.length;
        }
        if (written !== expected) throw new Error(`${name} is not what it was`);
      }
      release(bytes);
    }
    const joined = await out.end();
    await upload.commit();
    return joined;
  } catch (error) {
    await upload.abort();
    throw error;
  }
}

/** All that stands before the media. */
function headOf(plan: Plan, chapters: readonly Chapter[], texts: readonly Uint8Array[], created: number): Pieces {
  const sum = (sizes: readonly number[]) => sizes.reduce((total, size) => total + size, 0);
  const sizes = texts.map(({ length }) => length);
  const media = sum(sizes) + sum(plan.video.sizes) + sum(plan.audio?.sizes ?? []);
  // with room for the header, which has some 20 bytes for each sample
  const large = media + 20 * (plan.video.sizes.length + (plan.audio?.sizes.length ?? 0)) > LARGE_BYTES;
  const headerAt = (begin: number) => {
    let at = begin + sum(sizes);
    const chunks = plan.laid.flatMap((laid) =>
      laid.chunks.map(({ track, entry, count, bytes }): Placed => {
        at += bytes;
        return { track, entry, count, at: at - bytes };
      }),
    );
    return movieHeader({ video: plan.video, audio: plan.audio, chunks, chapters, chapterText: { at: begin, sizes }, large, created });
  };
  const around = [fileType(), mediaBoxHeader(media, large)] as const;
  // positions have one length, so the header has its own before they are known
  const before = lengthOf(around) + lengthOf(headerAt(0));
  return [around[0], headerAt(before), around[1]];
}

/** Collects what is written, and its checksum. */
function writer(upload: Upload) {
  const hash = createHash('sha256');
  const buffer = new Uint8Array(WRITE_BYTES);
  let filled = 0;
  let position = 0;
  const flush = async () => {
    if (filled === 0) return;
    const piece = buffer.subarray(0, filled);
    hash.update(piece);
    await upload.write(position, piece);
    position += filled;
    filled = 0;
  };
  return {
    async write(bytes: Uint8Array): Promise<void> {
      for (let at = 0; at < bytes.length; ) {
        const piece = bytes.subarray(at, at + buffer.length - filled);
        buffer.set(piece, filled);
        filled += piece.length;
        at += piece.length;
        if (filled === buffer.length) await flush();
      }
    },
    async end(): Promise<Joined> {
      await flush();
      return { bytes: position, sha256: hash.digest('hex') };
    },
  };
}
