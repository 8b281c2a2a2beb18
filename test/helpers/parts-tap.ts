/** Keeps every part that was ever stored, for a later look at what became of it. */
import { linkSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { byOrder, parsePartName, type StoredPart } from '../../edge/storage/part-names.ts';

/** @property at when it was found in the storage, in milliseconds since the epoch: at most 100 ms late */
export type TappedPart = StoredPart & { path: string; at: number };
export type TappedSegment = Extract<TappedPart, { type: 'segment' }>;

export type PartsTap = Disposable & {
  /** Of a recording, in their order. */
  parts(id: string): TappedPart[];
  segments(id: string): TappedSegment[];
};

/**
 * Links each part into a side directory as it appears: a name in the storage's directory is there once the part is whole.
 * @param into on the same file system
 */
export function tapParts(storage: string, into: string): PartsTap {
  const found = new Map<string, Map<string, TappedPart>>();
  const look = () => {
    for (const id of namesIn(storage)) {
      const names = namesIn(join(storage, id, 'parts'));
      if (names.length === 0) continue;
      let known = found.get(id);
      if (known === undefined) {
        mkdirSync(join(into, id), { recursive: true });
        found.set(id, (known = new Map()));
      }
      for (const name of names) {
        const part = known.has(name) ? null : parsePartName(name);
        if (part === null) continue;
        const path = join(into, id, name);
        try {
          linkSync(join(storage, id, 'parts', name), path);
        } catch {
          continue; // it went while it was looked at
        }
        known.set(name, { ...part, path, at: Date.now() });
      }
    }
  };
  const looking = setInterval(look, 100).unref();
  const parts = (id: string): TappedPart[] => {
    look();
    return [...(found.get(id)?.values() ?? [])].sort(byOrder);
  };
  return {
    parts,
    segments: (id) => parts(id).filter((part): part is TappedSegment => part.type === 'segment'),
    [Symbol.dispose]: () => clearInterval(looking),
  };
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
