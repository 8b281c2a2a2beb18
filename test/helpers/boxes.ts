/** Reads the structure of MP4 files, whole or cut off. */
import { open } from 'node:fs/promises';

/** An MP4 box at the top level of a file. */
export interface Box {
  /** The four characters of its type. */
  readonly type: string;
  /** Its first byte's place in the file. */
  readonly offset: number;
  /** Its length in bytes, header included, as it says itself; it may reach beyond the file's end. */
  readonly size: number;
}

/** What `moovInfo` says. */
export interface MoovInfo {
  /** The file has a moov box that is all there and has an mvhd and a track in it. */
  readonly complete: boolean;
  /** The moov is before all media data: playable while it is still being downloaded. */
  readonly beforeMdat: boolean;
  /** The file has movie fragments (moof), or says in its moov that they will come (mvex). */
  readonly fragmented: boolean;
  /** The last box reaches beyond the file's end, or a box header is torn. */
  readonly truncated: boolean;
  /** The boxes at the top level, in order. */
  readonly boxes: readonly Box[];
}

/** Whether an MP4 file can be played, and how soon; says so of a file that was cut off, too. */
export async function moovInfo(file: string): Promise<MoovInfo> {
  await using handle = await open(file, 'r');
  const { size } = await handle.stat();
  const read = async (offset: number, length: number): Promise<Buffer> => {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, offset);
    return buffer.subarray(0, bytesRead);
  };
  const { boxes, torn } = await readBoxes(read, 0, size);
  const last = boxes.at(-1);
  const moov = boxes.find(({ type }) => type === 'moov');
  const mdat = boxes.find(({ type }) => type === 'mdat' || type === 'moof');
  const whole = moov !== undefined && moov.offset + moov.size <= size;
  const inside = whole ? await readBoxes(read, moov.offset + 8, moov.offset + moov.size) : { boxes: [], torn: true };
  const has = (type: string): boolean => inside.boxes.some((box) => box.type === type);
  return {
    complete: !inside.torn && has('mvhd') && has('trak'),
    beforeMdat: moov !== undefined && (mdat === undefined || moov.offset < mdat.offset),
    fragmented: has('mvex') || boxes.some(({ type }) => type === 'moof'),
    truncated: torn || (last !== undefined && last.offset + last.size > size),
    boxes,
  };
}

async function readBoxes(
  read: (offset: number, length: number) => Promise<Buffer>,
  from: number,
  to: number,
): Promise<{ boxes: Box[]; torn: boolean }> {
  const boxes: Box[] = [];
  let offset = from;
  while (offset < to) {
    const header = await read(offset, 16);
    if (header.length < 8) return { boxes, torn: true };
    let size = header.readUInt32BE(0);
    // 1: a 64 bit size follows; 0: up to the end of the file.
    if (size === 1 && header.length === 16) size = Number(header.readBigUInt64BE(8));
    else if (size === 0) size = to - offset;
    if (size < 8) return { boxes, torn: true };
    boxes.push({ type: header.toString('latin1', 4, 8), offset, size });
    offset += size;
  }
  return { boxes, torn: false };
}

