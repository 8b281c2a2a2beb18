/** What is to be joined: the stored parts of a recording, laid on one timeline. Reads the head of each segment, no media. */
import { parsePartName, byOrder, type StoredPart } from '../storage/part-names.ts';
import type { Storage, StoredObject } from '../storage/storage.ts';
import { ahead } from './ahead.ts';
import { createLayout, type AudioTable, type Laid, type LaidSection, type VideoTable } from './layout.ts';
import { readInit, readSegment, type Init } from './segment.ts';

/** A part, its key in the storage and its length. */
export type FoundPart = StoredPart & { key: string; bytes: number };
type SegmentPart = Extract<FoundPart, { type: 'segment' }>;

export type AttemptPlan = { attempt: number; start: number; duration: number; segments: number; bytes: number };

/** All times are seconds in the file, where nothing else is said. */
export type Plan = {
  laid: readonly Laid[];
  /** By name. */
  segments: ReadonlyMap<string, SegmentPart>;
  video: VideoTable;
  audio: AudioTable | null;
  duration: number;
  attempts: AttemptPlan[];
  /** Where nothing was recorded between two attempts. */
  gaps: { start: number; duration: number; afterAttempt: number }[];
  /** Where an attempt was moved, since the one before had recorded on; by how much its time differs from here on. */
  shifts: { attempt: number; start: number; by: number }[];
  /** Of the recording's timeline: nothing was stored before. */
  trimmed: number;
  /** Sound that no segment has. */
  silence: number;
  /** Where a moment of the recording's timeline lies in the file. */
  place(at: number): number;
};

/** Segments that share a header. */
type Section = { attempt: number; init: Init; segments: SegmentPart[] };

/** Heads that are read at a time: of use where the storage is far. */
const READ_AHEAD = 8;
/** Below this a gap or a shift is the rounding of times, in microseconds. */
const NOTABLE = 1000;

/** The parts of a listing, in their order. */
export const foundParts = (objects: readonly StoredObject[]): FoundPart[] =>
  objects
    .flatMap(({ key, bytes }) => {
      const part = parsePartName(key.slice(key.lastIndexOf('/') + 1));
      return part === null ? [] : [{ ...part, key, bytes }];
    })
    .sort(byOrder);

/**
 * @returns null where no segment is stored that could be played
 * @throws {Error} naming the part that can't be read; what the storage threw; the signal's reason
 */
export async function planJoin(storage: Storage, parts: readonly FoundPart[], signal: AbortSignal): Promise<Plan | null> {
  const sections = await sectionsOf(storage, parts);
  if (sections.length === 0) return null;
  const layout = createLayout(sections.map(({ init }) => init));
  const items = sections.flatMap(({ attempt, init, segments }) =>
    segments.map((segment, i) => ({ segment, init, begins: i === 0 ? { attempt } : null })),
  );
  const heads = ahead(items, READ_AHEAD, async (item) => {
    signal.throwIfAborted();
    const { key, bytes } = item.segment;
    const samples = await named(item.segment, () => readSegment((start, end) => bytesOf(storage, key, { start, end }), bytes, item.init));
    return { ...item, samples };
  });
  for await (const { segment, init, samples, begins } of heads) layout.add(segment.name, init, samples, begins);

  const lastAttempt = sections.at(-1)!.attempt;
  const laid = layout.finish(endOf(parts.filter(({ attempt }) => attempt === lastAttempt)));
  return {
    ...laid,
    segments: new Map(items.map(({ segment }) => [segment.name, segment])),
    duration: laid.duration / 1e6,
    trimmed: laid.trimmed / 1e6,
    silence: laid.silence / 1e6,
    attempts: attemptsOf(laid.sections, sections, laid.duration),
    ...seamsOf(laid.sections),
    place(at) {
      const section = laid.sections.findLast(({ timeline }) => timeline <= at * 1e6);
      const placed = at - laid.trimmed / 1e6 + (section?.shift ?? 0) / 1e6;
      return Math.min(Math.max(0, placed), laid.duration / 1e6);
    },
  };
}

/** An error that says of which part it is. */
async function named<T>(part: FoundPart, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof RangeError) && (error as Error).constructor !== Error) throw error;
    throw new Error(`${part.name}: ${(error as Error).message}`, { cause: error });
  }
}

/** @throws {Error} where it is not there, or shorter than asked for */
export async function bytesOf(storage: Storage, key: string, range?: { start: number; end: number }): Promise<Uint8Array> {
  const bytes = await storage.get(key, range);
  if (bytes === null) throw new Error('it is not in the storage any more');
  return bytes;
}

async function sectionsOf(storage: Storage, parts: readonly FoundPart[]): Promise<Section[]> {
  const open: { part: FoundPart; segments: SegmentPart[] }[] = [];
  for (const part of parts) {
    if (part.type === 'init') open.push({ part, segments: [] });
    const last = open.at(-1);
    // what has no header of its own attempt can't be decoded
    if (part.type === 'segment' && last?.part.attempt === part.attempt) last.segments.push(part);
  }
  const sections: Section[] = [];
  const filled = open.filter(({ segments }) => segments.length > 0);
  const inits = ahead(filled, READ_AHEAD, async (section) => ({
    ...section,
    init: await named(section.part, async () => readInit(await bytesOf(storage, section.part.key))),
  }));
  for await (const { part, init, segments } of inits) sections.push({ attempt: part.attempt, init, segments });
  return sections;
}

/** What the worker said at the end, or the end of the last segment where it was lost before it could. Microseconds. */
function endOf(parts: readonly FoundPart[]): number {
  const last = parts.findLast((part) => part.type === 'segment');
  const end = parts.findLast((part) => part.type === 'end');
  // an end before the last segment would contradict the media
  return end !== undefined && end.duration > (last?.start ?? 0) ? end.duration : (last?.start ?? 0) + (last?.duration ?? 0);
}

const seconds = (micros: number): number => Math.round(micros) / 1e6;

function attemptsOf(laid: readonly LaidSection[], sections: readonly Section[], duration: number): AttemptPlan[] {
  const attempts: AttemptPlan[] = [];
  for (const [i, { attempt, at, end }] of laid.entries()) {
    const segments = sections[i]!.segments;
    let last = attempts.at(-1);
    if (last?.attempt !== attempt) attempts.push((last = { attempt, start: seconds(at), duration: 0, segments: 0, bytes: 0 }));
    last.duration = seconds((i === laid.length - 1 ? duration : Math.min(end, laid[i + 1]!.at)) - last.start * 1e6);
    last.segments += segments.length;
    last.bytes += segments.reduce((sum, { bytes }) => sum + bytes, 0);
  }
  return attempts;
}

function seamsOf(laid: readonly LaidSection[]): Pick<Plan, 'gaps' | 'shifts'> {
  const gaps: Plan['gaps'] = [];
  const shifts: Plan['shifts'] = [];
  for (const [i, { attempt, at, shift }] of laid.entries()) {
    const before = laid[i - 1];
    if (before && at - before.end >= NOTABLE) gaps.push({ start: seconds(before.end), duration: seconds(at - before.end), afterAttempt: before.attempt });
    if (shift >= NOTABLE && (before?.attempt !== attempt || shift - before.shift >= NOTABLE)) shifts.push({ attempt, start: seconds(at), by: seconds(shift) });
  }
  return { gaps, shifts };
}
