/** ISO base media file format (ISO 14496-12), as far as it is needed: boxes are found, and made. */

/** Positions in the bytes it was found in; the content stands from `body` to `end`. */
export type Box = { type: string; start: number; body: number; end: number };

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * The header of the box that begins at a position of the bytes; its end may lie behind theirs.
 *
 * @throws {RangeError} where no box can begin there
 */
export function boxAt(bytes: Uint8Array, start: number, end = bytes.length): Box {
  const view = viewOf(bytes);
  const short = view.getUint32(start);
  const type = String.fromCharCode(...bytes.subarray(start + 4, start + 8));
  // 0: up to the end; 1: the size follows in 64 bits
  const size = short === 0 ? end - start : short === 1 ? Number(view.getBigUint64(start + 8)) : short;
  const header = short === 1 ? 16 : 8;
  if (size < header) throw new RangeError(`a box of ${size} bytes`);
  return { type, start, body: start + header, end: start + size };
}

/** @throws {RangeError} where a box does not fit */
export function boxesIn(bytes: Uint8Array, start = 0, end = bytes.length): Box[] {
  const boxes: Box[] = [];
  for (let at = start; at < end; ) {
    const box = boxAt(bytes, at, end);
    if (box.end > end) throw new RangeError(`the box ${box.type} is longer than what holds it`);
    boxes.push(box);
    at = box.end;
  }
  return boxes;
}

/**
 * The box at a path below a position.
 *
 * @throws {RangeError} where there is none
 */
export function boxIn(bytes: Uint8Array, path: string, start = 0, end = bytes.length): Box {
  let found: Box = { type: '', start, body: start, end };
  for (const name of path.split('/')) {
    const { body, end: until } = found;
    const next = boxesIn(bytes, body, until).find(({ type }) => type === name);
    if (next === undefined) throw new RangeError(`there is no box ${name}`);
    found = next;
  }
  return found;
}

/** Bytes in pieces, which nobody copies until they are written: the tables of a long recording are megabytes. */
export type Pieces = Uint8Array | readonly Pieces[];

export const lengthOf = (bytes: Pieces): number =>
  bytes instanceof Uint8Array ? bytes.length : bytes.reduce((sum, piece) => sum + lengthOf(piece), 0);

export function* piecesOf(bytes: Pieces): Generator<Uint8Array> {
  if (bytes instanceof Uint8Array) yield bytes;
  else for (const piece of bytes) yield* piecesOf(piece);
}

export function concat(bytes: Pieces): Uint8Array {
  const all = new Uint8Array(lengthOf(bytes));
  let at = 0;
  for (const piece of piecesOf(bytes)) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

export const latin1 = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0));

export const u8 = (...values: number[]): Uint8Array => Uint8Array.from(values);
export function u16(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 2);
  const view = viewOf(bytes);
  for (const [i, value] of values.entries()) view.setUint16(i * 2, value);
  return bytes;
}
export function u32(...values: number[]): Uint8Array {
  return u32s(values);
}
export function u32s(values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = viewOf(bytes);
  for (let i = 0; i < values.length; i += 1) view.setUint32(i * 4, values[i]!);
  return bytes;
}
export function u64s(values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 8);
  const view = viewOf(bytes);
  for (let i = 0; i < values.length; i += 1) view.setBigUint64(i * 8, BigInt(values[i]!));
  return bytes;
}

export const box = (type: string, ...content: Pieces[]): Pieces => [u32(lengthOf(content) + 8), latin1(type), content];
export const fullBox = (type: string, version: number, flags: number, ...content: Pieces[]): Pieces =>
  box(type, u32(version * 2 ** 24 + flags), content);
