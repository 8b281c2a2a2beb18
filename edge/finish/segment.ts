/** Reads stored CMAF: what an init part says of its tracks, and where a segment's samples lie. No media is looked at. */
import { boxAt, boxesIn, boxIn, viewOf } from './boxes.ts';

export type InitTrack = {
  id: number;
  kind: 'video' | 'audio';
  /** Ticks a second. */
  timescale: number;
  /** The sample entry (avc1, mp4a ...), as it stands: codec and its settings. */
  entry: Uint8Array;
  /** Pixels; 0 for sound. */
  width: number;
  height: number;
  defaults: Defaults;
};
type Defaults = { duration: number; size: number; flags: number };

export type Init = { video: InitTrack; audio: InitTrack | null };

/** One sample of a segment: where its bytes lie in there, and its time on the recording's timeline in its track's ticks. */
export type Sample = { time: number; duration: number; offset: number; size: number; key: boolean };
export type SegmentSamples = { video: Sample[]; audio: Sample[] };

/** A segment's boxes before its media are some kilobytes. */
const HEAD_BYTES = 16 * 1024;
const NON_SYNC = 0x10000;

const fourcc = (bytes: Uint8Array, at: number): string => String.fromCharCode(...bytes.subarray(at, at + 4));

/** @throws {Error} where it has no picture, or is no CMAF header */
export function readInit(bytes: Uint8Array): Init {
  const view = viewOf(bytes);
  const moov = boxIn(bytes, 'moov');
  const defaults = new Map<number, Defaults>();
  const tracks: InitTrack[] = [];
  for (const { type, body, end } of boxesIn(bytes, moov.body, moov.end)) {
    if (type === 'mvex') {
      for (const trex of boxesIn(bytes, body, end)) {
        if (trex.type !== 'trex') continue;
        const at = trex.body;
        defaults.set(view.getUint32(at + 4), { duration: view.getUint32(at + 12), size: view.getUint32(at + 16), flags: view.getUint32(at + 20) });
      }
    }
    if (type !== 'trak') continue;
    const tkhd = boxIn(bytes, 'tkhd', body, end).body;
    const mdhd = boxIn(bytes, 'mdia/mdhd', body, end).body;
    const handler = fourcc(bytes, boxIn(bytes, 'mdia/hdlr', body, end).body + 8);
    if (handler !== 'vide' && handler !== 'soun') continue;
    const stsd = boxIn(bytes, 'mdia/minf/stbl/stsd', body, end);
    const entry = boxAt(bytes, stsd.body + 8, stsd.end);
    // version 1 has 64 bits for each of three times
    const long = (at: number) => bytes[at] === 1;
    tracks.push({
      id: view.getUint32(tkhd + (long(tkhd) ? 20 : 12)),
      kind: handler === 'vide' ? 'video' : 'audio',
      timescale: view.getUint32(mdhd + (long(mdhd) ? 20 : 12)),
      entry: bytes.slice(entry.start, entry.end),
      width: handler === 'vide' ? view.getUint16(entry.body + 24) : 0,
      height: handler === 'vide' ? view.getUint16(entry.body + 26) : 0,
      defaults: { duration: 0, size: 0, flags: 0 },
    });
  }
  for (const track of tracks) track.defaults = defaults.get(track.id) ?? track.defaults;
  const video = tracks.find(({ kind }) => kind === 'video');
  if (video === undefined) throw new Error('a header without a picture');
  return { video, audio: tracks.find(({ kind }) => kind === 'audio') ?? null };
}

/**
 * @param read bytes `start` to `end` of the segment; its media are not read
 * @param bytes how long the segment is
 * @throws {Error} where it is no segment of the header, or is shorter than it says
 */
export async function readSegment(read: (start: number, end: number) => Promise<Uint8Array>, bytes: number, init: Init): Promise<SegmentSamples> {
  const samples: SegmentSamples = { video: [], audio: [] };
  let head = new Uint8Array();
  let from = 0;
  const have = async (start: number, end: number) => {
    if (end > bytes) throw new RangeError('a segment that ends early');
    if (start >= from && end <= from + head.length) return;
    head = new Uint8Array(await read(start, Math.min(bytes, Math.max(end, start + HEAD_BYTES))));
    from = start;
    if (head.length < end - start) throw new RangeError('a segment that ends early');
  };
  for (let at = 0; at < bytes; ) {
    await have(at, Math.min(at + 16, bytes));
    const { type, end } = boxAt(head, at - from, bytes - from);
    const until = end + from;
    if (until > bytes) throw new RangeError(`a segment that ends early: its ${type} is longer`);
    if (type === 'moof') {
      await have(at, until);
      readFragment(head, at - from, until - from, at, init, samples);
    }
    at = until;
  }
  for (const { offset, size } of [...samples.video, ...samples.audio]) {
    if (offset + size > bytes) throw new RangeError('a segment that ends early: a sample lies behind its end');
  }
  if (samples.video.length === 0) throw new Error('a segment without a picture');
  return samples;
}

/** @param moofStart where the moof begins in its segment */
function readFragment(bytes: Uint8Array, start: number, end: number, moofStart: number, init: Init, samples: SegmentSamples): void {
  const view = viewOf(bytes);
  const moof = boxAt(bytes, start, end);
  for (const traf of boxesIn(bytes, moof.body, moof.end)) {
    if (traf.type !== 'traf') continue;
    let track: InitTrack | null = null;
    let defaults: Defaults = { duration: 0, size: 0, flags: 0 };
    let base = moofStart;
    let time = 0;
    let next = moofStart;
    for (const { type, body } of boxesIn(bytes, traf.body, traf.end)) {
      const flags = view.getUint32(body) & 0xffffff;
      let at = body + 4;
      const take = (bit: number): number | null => {
        if ((flags & bit) === 0) return null;
        at += 4;
        return view.getUint32(at - 4);
      };
      if (type === 'tfhd') {
        const id = view.getUint32(at);
        at += 4;
        track = [init.video, init.audio].find((known) => known?.id === id) ?? null;
        if (track === null) break;
        if (flags & 1) {
          base = Number(view.getBigUint64(at));
          at += 8;
        }
        take(2);
        const { duration, size, flags: usual } = track.defaults;
        defaults = { duration: take(8) ?? duration, size: take(0x10) ?? size, flags: take(0x20) ?? usual };
      } else if (type === 'tfdt') {
        time = bytes[body] === 1 ? Number(view.getBigUint64(at)) : view.getUint32(at);
      } else if (type === 'trun' && track !== null) {
        const count = view.getUint32(at);
        at += 4;
        const offset = take(1);
        if (offset !== null) next = base + (offset | 0);
        const first = take(4);
        for (let i = 0; i < count; i += 1) {
          const duration = take(0x100) ?? defaults.duration;
          const size = take(0x200) ?? defaults.size;
          const own = take(0x400);
          if ((take(0x800) ?? 0) !== 0) throw new Error('pictures that are not shown in the order of their coding');
          const sampleFlags = own ?? (i === 0 ? first : null) ?? defaults.flags;
          samples[track.kind].push({ time, duration, offset: next, size, key: (sampleFlags & NON_SYNC) === 0 });
          time += duration;
          next += size;
        }
      }
    }
  }
}
