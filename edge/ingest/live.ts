/** What is stored of the recordings that are being recorded or watched, kept in memory so that a viewer costs no listing. */
import { partsPrefix, partsOf, byOrder, type StoredPart } from '../storage/part-names.ts';
import type { Storage } from '../storage/storage.ts';

/** How long a listing is good where another process may be taking the media. */
const LISTING_MS = 1000;
/** And where a media socket is open here, from the last part that came: it may have been taken over without our knowing. */
const ATTACHED_MS = 8000;
const MAX_ENTRIES = 200;

type Entry = { parts: StoredPart[]; loadedAt: number; sockets: number };

export type LiveParts = ReturnType<typeof createLiveParts>;

export function createLiveParts(storage: Storage, now: () => number = Date.now) {
  const entries = new Map<string, Entry>();
  const loading = new Map<string, Promise<Entry>>();

  const load = (id: string): Promise<Entry> => {
    const running = loading.get(id);
    if (running) return running;
    const started = storage
      .list(partsPrefix(id))
      .then((objects) => {
        const entry = entries.get(id) ?? { parts: [], loadedAt: 0, sockets: 0 };
        const listed = partsOf(objects.map(({ key }) => key));
        // parts stored while the listing ran may be missing in it
        const names = new Set(listed.map(({ name }) => name));
        const since = entry.sockets > 0 ? entry.parts.filter(({ name }) => !names.has(name)) : [];
        entry.parts = [...listed, ...since].sort(byOrder);
        entry.loadedAt = now();
        entries.delete(id);
        entries.set(id, entry);
        evict();
        return entry;
      })
      .finally(() => loading.delete(id));
    loading.set(id, started);
    return started;
  };

  const evict = () => {
    for (const [id, { sockets }] of entries) {
      if (entries.size <= MAX_ENTRIES) return;
      if (sockets === 0) entries.delete(id);
    }
  };

  return {
    /** All parts that are stored, in order. */
    async parts(id: string): Promise<readonly StoredPart[]> {
      const entry = entries.get(id);
      const fresh = entry !== undefined && now() - entry.loadedAt < (entry.sockets > 0 ? ATTACHED_MS : LISTING_MS);
      return (fresh ? entry : await load(id)).parts;
    },

    /** While parts come over a media socket this process knows of them by itself. */
    async attach(id: string): Promise<{ parts(): readonly StoredPart[]; add(part: StoredPart): void; detach(): void }> {
      const entry = await load(id);
      entry.sockets += 1;
      return {
        parts: () => entry.parts,
        add(part) {
          entry.loadedAt = now();
          if (entry.parts.some(({ name }) => name === part.name)) return;
          const last = entry.parts.at(-1);
          entry.parts.push(part);
          if (last && byOrder(last, part) > 0) entry.parts.sort(byOrder);
        },
        detach() {
          entry.sockets -= 1;
          entry.loadedAt = now();
        },
      };
    },

    forget(id: string): void {
      const entry = entries.get(id);
      if (entry && entry.sockets === 0) entries.delete(id);
    },
  };
}
