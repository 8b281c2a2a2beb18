/**
 * Stored parts carry what is known of them in their names, so that a listing alone gives playlist and file: an edge that
 * restarts, and the finaliser that never asks one, need nothing else.
 */
import type { PartHeader } from '../../shared/media-protocol.ts';

export type StoredPart = PartHeader & { attempt: number; /** The last segment of its key. */ name: string };

export const partsPrefix = (id: string): string => `${id}/parts/`;
export const partKey = (id: string, name: string): string => `${partsPrefix(id)}${name}`;

const pad = (value: number, digits: number): string => String(value).padStart(digits, '0');

/** Names sort as attempts and parts follow each other. */
export function partName(attempt: number, header: PartHeader): string {
  const base = `a${pad(attempt, 4)}-s${pad(header.seq, 7)}`;
  switch (header.type) {
    case 'init':
      return `${base}-init.mp4`;
    case 'segment':
      return `${base}-t${header.start}-d${header.duration}-f${header.frames}.m4s`;
    case 'thumbnail':
      return `${base}-thumbnail.jpg`;
    case 'end':
      return `${base}-d${header.duration}-end`;
  }
}

const pattern = /^a(\d{4,})-s(\d{7,})-(?:(init)\.mp4|t(\d+)-d(\d+)-f(\d+)\.m4s|(thumbnail)\.jpg|d(\d+)-end)$/;

/** Null for a name that is not a part's. */
export function parsePartName(name: string): StoredPart | null {
  const match = pattern.exec(name);
  if (!match) return null;
  const [, attempt, seq, init, start, duration, frames, thumbnail, end] = match;
  const common = { name, attempt: Number(attempt), seq: Number(seq) };
  if (init !== undefined) return { type: 'init', ...common };
  if (thumbnail !== undefined) return { type: 'thumbnail', ...common };
  if (end !== undefined) return { type: 'end', ...common, duration: Number(end) };
  return { type: 'segment', ...common, start: Number(start), duration: Number(duration), frames: Number(frames) };
}

/** What a listing holds of parts, in their order. */
export function partsOf(keys: readonly string[]): StoredPart[] {
  return keys
    .map((key) => parsePartName(key.slice(key.lastIndexOf('/') + 1)))
    .filter((part) => part !== null)
    .sort(byOrder);
}

export const byOrder = (a: StoredPart, b: StoredPart): number => a.attempt - b.attempt || a.seq - b.seq;

/** The last part of an attempt before the first that is missing; 0 for none. @param from a part up to which none is looked for */
export function lastContiguous(parts: readonly StoredPart[], attempt: number, from = 0): number {
  let last = from;
  for (const part of parts) if (part.attempt === attempt && part.seq === last + 1) last += 1;
  return last;
}
