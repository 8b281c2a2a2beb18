/**
 * Parts that wait to be stored, first in, first out: the oldest in memory, and on disk what is too much for it. Nothing that was
 * taken is ever given up to make room.
 */
import { mkdir, mkdtemp, readFile, rm, statfs, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../../shared/log.ts';
import type { PartHeader } from '../../shared/media-protocol.ts';

/** Where parts go that are too much for the memory. */
export type SpoolPlace = {
  /** Made where it is missing; each sink has a directory of its own in it. */
  directory: string;
  /** Bytes of one sink at most. */
  bytes: number;
};

export type BacklogOptions = {
  /** Bytes in memory at most, half of them for what is to be sent next; the rest is on its way to the disk. */
  memoryBytes: number;
  /** Null for memory alone. */
  spool: SpoolPlace | null;
  /** Bytes that are left free on the disk, for whatever else lives there. */
  reserve: number;
  /** Beginning of the name of the sink's own directory. */
  name: string;
  log: Log;
};

export type WaitingPart = { header: PartHeader; payloadBytes: number; bytes: number };

export type Backlog = {
  parts(): number;
  /** Of all that waits, and of what of it is on disk. */
  bytes(): number;
  spooledBytes(): number;
  /** Seconds of media that wait. */
  seconds(): number;
  /** Share of all that can be kept that is taken, 0 to 1. */
  pressure(): number;
  /** @returns false, and has not taken it, where there is no room; `end` always finds some */
  push(header: PartHeader, payloadBytes: number, message: Uint8Array): boolean;
  /** A part's message where it is in memory; null where `read` has to fetch it. */
  message(seq: number): Uint8Array | null;
  /** @throws the disk's own error */
  read(seq: number): Promise<Uint8Array>;
  /** Forgets the parts up to this one, which are stored. @returns them */
  drop(seq: number): WaitingPart[];
  /** Writes to disk what is in memory only, and leaves it there. @returns where; null where nothing could be left */
  leave(): Promise<string | null>;
  /** Removes what is on disk, unless it was left. */
  dispose(): Promise<void>;
};

type Entry = WaitingPart & {
  /** Null once it is on disk. */
  message: Uint8Array | null;
  path: string | null;
  /** Belongs on disk. */
  spill: boolean;
  dropped: boolean;
};

/** Milliseconds after which a disk that had no room is tried again. */
const RETRY_MS = 1000;

export function createBacklog({ memoryBytes, spool, reserve, name, log }: BacklogOptions): Backlog {
  /** Without gaps in their numbers. */
  const entries: Entry[] = [];
  const spilling: Entry[] = [];
  let inMemory = 0;
  /** Of those in memory, what is to stay there. */
  let headBytes = 0;
  let onDisk = 0;
  let microseconds = 0;

  let directory: Promise<string> | null = null;
  /** Bytes that may still be written for all that is known. */
  let diskRoom = spool?.bytes ?? 0;
  let fullSince: number | null = null;
  let writing: Promise<void> | null = null;
  let left = false;
  let disposed = false;

  const entryOf = (seq: number): Entry | undefined => entries[seq - (entries[0]?.header.seq ?? 0)];

  const makeDirectory = ({ directory: place }: SpoolPlace): Promise<string> =>
    (directory ??= mkdir(place, { recursive: true })
      // a name that nobody else can have made
      .then(() => mkdtemp(join(place, `${name}-`)))
      .then((path) => {
        log.warn('media goes to disk', { directory: path, waitingBytes: inMemory });
        return path;
      })
      .catch((error: unknown) => {
        directory = null;
        throw error;
      }));

  const look = async (place: SpoolPlace): Promise<void> => {
    const { bavail, bsize } = await statfs(place.directory);
    diskRoom = Math.max(0, Math.min(place.bytes - onDisk, bavail * bsize - reserve));
  };

  const write = async (entry: Entry, message: Uint8Array, place: SpoolPlace): Promise<void> => {
    const path = join(await makeDirectory(place), `${String(entry.header.seq).padStart(7, '0')}.part`);
    try {
      await writeFile(path, message, { mode: 0o600 });
    } catch (error) {
      await unlink(path).catch(() => undefined);
      throw error;
    }
    if (entry.dropped) {
      await unlink(path).catch(() => undefined);
      return;
    }
    entry.path = path;
    entry.message = null;
    inMemory -= entry.bytes;
    if (!entry.spill) headBytes -= entry.bytes;
    onDisk += entry.bytes;
    diskRoom -= entry.bytes;
  };

  const spillAll = async (place: SpoolPlace): Promise<void> => {
    for (let entry = spilling[0]; entry !== undefined && !disposed; entry = spilling[0]) {
      if (!entry.dropped && entry.message !== null) {
        await makeDirectory(place);
        await look(place);
        if (diskRoom < entry.bytes) throw new Error(`the disk has room for ${diskRoom} bytes more`);
        await write(entry, entry.message, place);
      }
      spilling.shift();
      fullSince = null;
    }
  };

  /** One part after the other, in their order; what can't be written stays in memory. */
  const spill = (): void => {
    if (spool === null || writing !== null || spilling.length === 0 || disposed) return;
    if (fullSince !== null && performance.now() - fullSince < RETRY_MS) return;
    writing = spillAll(spool)
      .catch((error: unknown) => {
        if (fullSince === null) log.warn('media can not go to disk', { error, waitingBytes: inMemory, spooledBytes: onDisk });
        fullSince = performance.now();
      })
      .finally(() => {
        writing = null;
      });
  };

  if (spool !== null) {
    mkdir(spool.directory, { recursive: true })
      .then(() => look(spool))
      .catch((error: unknown) => {
        diskRoom = 0;
        log.warn('there is no disk for media that waits', { error, directory: spool.directory });
      });
  }

  return {
    parts: () => entries.length,
    bytes: () => inMemory + onDisk,
    spooledBytes: () => onDisk,
    seconds: () => microseconds / 1e6,
    pressure: () => Math.min(1, (inMemory + onDisk) / (memoryBytes + onDisk + Math.max(0, diskRoom))),

    push(header, payloadBytes, message) {
      const bytes = message.length;
      // one part alone is always taken: it may be as long as the bound
      if (header.type !== 'end' && entries.length > 0 && inMemory + bytes > memoryBytes) {
        spill();
        return false;
      }
      const toDisk = spool !== null && header.type !== 'end' && (onDisk > 0 || spilling.length > 0 || headBytes + bytes > memoryBytes / 2);
      const entry: Entry = { header, payloadBytes, bytes, message, path: null, spill: toDisk, dropped: false };
      entries.push(entry);
      inMemory += bytes;
      if (toDisk) spilling.push(entry);
      else headBytes += bytes;
      if (header.type === 'segment') microseconds += header.duration;
      spill();
      return true;
    },

    message: (seq) => entryOf(seq)?.message ?? null,

    async read(seq) {
      const entry = entryOf(seq);
      if (entry === undefined) throw new RangeError(`part ${seq} does not wait`);
      return entry.message ?? readFile(entry.path as string);
    },

    drop(seq) {
      const count = entries.findIndex(({ header }) => header.seq > seq);
      const dropped = entries.splice(0, count === -1 ? entries.length : count);
      for (const entry of dropped) {
        entry.dropped = true;
        if (entry.header.type === 'segment') microseconds -= entry.header.duration;
        if (entry.message !== null) {
          inMemory -= entry.bytes;
          if (!entry.spill) headBytes -= entry.bytes;
        } else if (entry.path !== null) {
          onDisk -= entry.bytes;
          diskRoom += entry.bytes;
          unlink(entry.path).catch((error: unknown) => log.warn('a part stays on disk', { path: entry.path, error }));
          if (onDisk === 0) log.info('no media is on disk any more');
        }
        // what is being written is no reason to hold its bytes
        entry.message = null;
      }
      if (dropped.length > 0) spill();
      return dropped;
    },

    async leave() {
      if (spool === null || entries.length === 0) return null;
      left = true;
      await writing;
      try {
        for (const entry of entries) if (entry.message !== null) await write(entry, entry.message, spool);
      } catch (error) {
        log.error('media that waits can not be left on disk', { error });
      }
      return directory;
    },

    async dispose() {
      disposed = true;
      await writing;
      if (left || directory === null) return;
      const path = await directory.catch(() => null);
      if (path !== null) await rm(path, { recursive: true, force: true }).catch((error: unknown) => log.warn('media stays on disk', { path, error }));
    },
  };
}
