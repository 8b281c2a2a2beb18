/**
 * Whether pictures of H.264 are whole, as far as that is seen without decoding them: how their NAL units are laid out, what
 * the parameter sets say, and every slice header up to its frame number (ITU-T H.264, 7.3).
 */
import { boxesIn, concat, u32, viewOf } from './boxes.ts';

type SequenceSet = { width: number; height: number; frameNumBits: number; separatePlanes: boolean };
type PictureSet = { sequence: number };

/** @property lengthBytes how many bytes a NAL unit's length has */
export type AvcSettings = { lengthBytes: number; sequences: Map<number, SequenceSet>; pictures: Map<number, PictureSet> };

const SLICE = 1;
const IDR_SLICE = 5;
/** Profiles whose sets tell the chroma format and more (7.3.2.1.1). */
const highProfiles = new Set([100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135]);

/** What an avc1 entry's decoder configuration holds (ISO 14496-15, 5.3.3.1); null for other codecs. */
function configurationOf(entry: Uint8Array): { lengthBytes: number; sequences: Uint8Array[]; pictures: Uint8Array[] } | null {
  if (String.fromCharCode(...entry.subarray(4, 8)) !== 'avc1') return null;
  // behind the box's header and the fields of VisualSampleEntry
  const avcC = boxesIn(entry, 8 + 78).find(({ type }) => type === 'avcC');
  if (avcC === undefined) throw new Error('no avcC');
  const record = entry.subarray(avcC.body, avcC.end);
  const view = viewOf(record);
  let at = 5;
  const sets = (mask: number) =>
    Array.from({ length: record[at++]! & mask }, () => {
      const begin = at + 2;
      at = begin + view.getUint16(at);
      if (at > record.length) throw new RangeError('a parameter set ends early');
      return record.subarray(begin, at);
    });
  const sequences = sets(31);
  return { lengthBytes: (record[4]! & 3) + 1, sequences, pictures: sets(255) };
}

/**
 * An entry's parameter sets as they stand in a sample, before its slices; null for other codecs.
 *
 * @throws {Error} where its NAL units' lengths have another size than 4 bytes, or there is no avcC
 */
export function parameterSets(entry: Uint8Array): Uint8Array | null {
  const configuration = configurationOf(entry);
  if (configuration === null) return null;
  if (configuration.lengthBytes !== 4) throw new Error(`NAL units' lengths have ${configuration.lengthBytes} bytes`);
  return concat([...configuration.sequences, ...configuration.pictures].flatMap((set) => [u32(set.length), set]));
}

/**
 * From a sample entry.
 *
 * @returns null for other codecs
 * @throws {Error} saying what is wrong with it
 */
export function avcSettings(entry: Uint8Array): AvcSettings | null {
  const configuration = configurationOf(entry);
  if (configuration === null) return null;
  const { lengthBytes, sequences, pictures } = configuration;
  const settings: AvcSettings = { lengthBytes, sequences: new Map(), pictures: new Map() };
  for (const set of sequences) addSequence(settings, set);
  for (const set of pictures) addPicture(settings, set);
  if (settings.sequences.size === 0 || settings.pictures.size === 0) throw new Error('parameter sets are missing');
  return settings;
}

function addSequence(settings: AvcSettings, unit: Uint8Array): void {
  const bits = bitsOf(unit);
  const profile = bits.u(8);
  bits.u(16);
  const id = bits.ue();
  let chroma = 1;
  let separatePlanes = false;
  if (highProfiles.has(profile)) {
    chroma = bits.ue();
    if (chroma === 3) separatePlanes = bits.u(1) === 1;
    bits.ue();
    bits.ue();
    bits.u(1);
    if (bits.u(1) === 1) for (let i = 0; i < (chroma === 3 ? 12 : 8); i += 1) if (bits.u(1) === 1) skipScaling(bits, i < 6 ? 16 : 64);
  }
  const frameNumBits = bits.ue() + 4;
  const order = bits.ue();
  if (order === 0) bits.ue();
  else if (order === 1) {
    bits.u(1);
    bits.ue();
    bits.ue();
    for (let left = bits.ue(); left > 0; left -= 1) bits.ue();
  }
  bits.ue();
  bits.u(1);
  const width = (bits.ue() + 1) * 16;
  const mapUnits = bits.ue() + 1;
  const frames = bits.u(1);
  if (frames === 0) bits.u(1);
  bits.u(1);
  const crop = bits.u(1) === 1 ? [bits.ue(), bits.ue(), bits.ue(), bits.ue()] : [0, 0, 0, 0];
  const [unitX, unitY] = [chroma === 1 || chroma === 2 ? 2 : 1, (chroma === 1 ? 2 : 1) * (2 - frames)];
  settings.sequences.set(id, {
    width: width - (crop[0]! + crop[1]!) * unitX,
    height: mapUnits * 16 * (2 - frames) - (crop[2]! + crop[3]!) * unitY,
    frameNumBits,
    separatePlanes,
  });
}

function skipScaling(bits: Bits, size: number): void {
  let [last, next] = [8, 8];
  for (let i = 0; i < size; i += 1) {
    if (next !== 0) next = (last + bits.se() + 256) % 256;
    if (next !== 0) last = next;
  }
}

function addPicture(settings: AvcSettings, unit: Uint8Array): void {
  const bits = bitsOf(unit);
  const id = bits.ue();
  const sequence = bits.ue();
  if (!settings.sequences.has(sequence)) throw new Error(`picture parameter set ${id} needs sequence parameter set ${sequence}, which is missing`);
  settings.pictures.set(id, { sequence });
}

/**
 * A run of pictures that begins with a key frame.
 *
 * @throws {Error} saying which picture is wrong, counted from 1, and what with it
 */
export function checkPictures(settings: AvcSettings, pictures: Iterable<Uint8Array>, size: { width: number; height: number }): void {
  let number = 0;
  let expected: number[] = [];
  for (const picture of pictures) {
    number += 1;
    try {
      expected = checkPicture(settings, picture, size, number === 1, expected);
    } catch (error) {
      throw new Error(`picture ${number}: ${(error as Error).message}`, { cause: error });
    }
  }
}

/** @returns the frame numbers that the next picture may have */
function checkPicture(settings: AvcSettings, picture: Uint8Array, size: { width: number; height: number }, first: boolean, expected: number[]): number[] {
  let slices = 0;
  let frameNum = 0;
  let reference = false;
  let max = 0;
  for (const unit of unitsOf(picture, settings.lengthBytes)) {
    const type = unit[0]! & 31;
    if (unit[0]! & 0x80) throw new Error('a NAL unit with its forbidden bit set');
    if (type === 7) addSequence(settings, unit);
    if (type === 8) addPicture(settings, unit);
    if (type !== SLICE && type !== IDR_SLICE) continue;
    const bits = bitsOf(unit);
    const macroblock = bits.ue();
    if (slices === 0 && macroblock !== 0) throw new Error('it begins in the middle');
    if (bits.ue() > 9) throw new Error('a slice of no known type');
    const set = settings.pictures.get(bits.ue());
    const sequence = set && settings.sequences.get(set.sequence);
    if (sequence === undefined) throw new Error('a slice whose parameter set is missing');
    if (sequence.width !== size.width || sequence.height !== size.height) throw new Error(`it is ${sequence.width} x ${sequence.height}`);
    if (sequence.separatePlanes) bits.u(2);
    frameNum = bits.u(sequence.frameNumBits);
    max = 2 ** sequence.frameNumBits;
    reference = (unit[0]! & 0x60) !== 0;
    if (first && type !== IDR_SLICE) throw new Error('it is no key frame');
    if (type === IDR_SLICE && frameNum !== 0) throw new Error(`a key frame with frame number ${frameNum}`);
    if (type === SLICE && !expected.includes(frameNum)) throw new Error(`frame number ${frameNum} where ${expected.join(' or ')} should be`);
    // what follows a slice's header is its data
    if (bits.left() < 8) throw new Error('a slice that ends early');
    slices += 1;
  }
  if (slices === 0) throw new Error('there is no slice in it');
  // after a picture that others refer to the number goes up; else it may stay (7.4.3)
  return reference ? [(frameNum + 1) % max] : [frameNum, (frameNum + 1) % max];
}

function* unitsOf(sample: Uint8Array, lengthBytes: number): Generator<Uint8Array> {
  for (let at = 0; at < sample.length; ) {
    let length = 0;
    for (let i = 0; i < lengthBytes; i += 1) length = length * 256 + (sample[at + i] ?? 0);
    at += lengthBytes;
    if (length === 0 || at + length > sample.length) throw new Error('a NAL unit that does not fit its sample');
    yield sample.subarray(at, at + length);
    at += length;
  }
}

type Bits = ReturnType<typeof bitsOf>;

/** Of a NAL unit, behind its header. A header's fields lie in the first bytes; emulation prevention is taken out of no more. */
function bitsOf(unit: Uint8Array) {
  const payload: number[] = [];
  const head = unit.subarray(1, 1024);
  for (let i = 0, zeros = 0; i < head.length; i += 1) {
    const byte = head[i]!;
    if (zeros >= 2 && byte === 3) {
      zeros = 0;
      continue;
    }
    payload.push(byte);
    zeros = byte === 0 ? zeros + 1 : 0;
  }
  let position = 0;
  const u = (count: number): number => {
    let value = 0;
    for (let i = 0; i < count; i += 1, position += 1) {
      const byte = payload[position >> 3];
      if (byte === undefined) throw new RangeError('it ends early');
      value = value * 2 + ((byte >> (7 - (position & 7))) & 1);
    }
    return value;
  };
  const ue = (): number => {
    let zeros = 0;
    while (u(1) === 0) zeros += 1;
    return 2 ** zeros - 1 + u(zeros);
  };
  return {
    u,
    ue,
    se() {
      const code = ue();
      return code % 2 === 1 ? (code + 1) / 2 : -code / 2;
    },
    left: () => payload.length * 8 - position,
  };
}
