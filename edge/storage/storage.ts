/**
 * Where recordings rest. Keys are slash paths (`rec_.../parts/...`), none of which leads through another. An object appears
 * whole or not at all, and is durable once the call that wrote it returns; nothing is renamed or appended to, so that an object
 * store can stand behind it.
 */
import { TabreelError } from '../../shared/errors.ts';

export type StoredObject = { key: string; bytes: number };

/** Bytes `start` to `end`, `end` excluded. */
export type ByteRange = { start: number; end: number };

/** A new object that is written piece by piece. */
export type Upload = {
  /**
   * Pieces come in ascending order, but that a hole left at the beginning may be filled last, and bytes in it written
   * again: an MP4's header is known only at its end. Once it resolves the caller may use the array for something else.
   */
  write(position: number, bytes: Uint8Array): Promise<void>;
  /** The object is there, durably. */
  commit(): Promise<void>;
  /** Nothing stays of it. Harmless after commit. */
  abort(): Promise<void>;
};

/**
 * Every method throws `TabreelError` `storage_full` where no space is left, `storage_unavailable` where an object store
 * doesn't answer or refuses, and the storage's own error otherwise.
 */
export type Storage = {
  /** Replaces what is there. */
  put(key: string, bytes: Uint8Array): Promise<void>;
  /** Null where there is no such object. The bytes are the caller's, as are a stream's. */
  get(key: string, range?: ByteRange): Promise<Uint8Array | null>;
  /** Null where there is no such object. The stream holds resources until it ends or is cancelled. */
  stream(key: string, range?: ByteRange): Promise<ReadableStream<Uint8Array> | null>;
  stat(key: string): Promise<{ bytes: number; modified: Date } | null>;
  /** Everything below a prefix that ends in a slash, sorted by key. */
  list(prefix: string): Promise<StoredObject[]>;
  /** The first segments of all keys that have more, sorted. */
  folders(): Promise<string[]>;
  /** Removes everything below a prefix that ends in a slash, also what is only being written; nothing there is no error. */
  remove(prefix: string): Promise<void>;
  removeObject(key: string): Promise<void>;
  /**
   * Begins an object. What an earlier `create` of the same key left unfinished is removed: its commit fails.
   *
   * @param expected bytes that it may come to, where that is known
   */
  create(key: string, expected?: number): Promise<Upload>;
  /** Writes and removes a little; tells the bytes that are free, null for unlimited. */
  check(): Promise<{ freeBytes: number | null }>;
  /** Bytes that are free, null for unlimited. Cheap enough for every request. */
  freeBytes(): Promise<number | null>;
  /** Below this many free bytes no recording is begun: the running ones need what is left. */
  minFreeBytes(): Promise<number>;
  /** Removes what killed processes left half-written, long ago enough that nobody writes it still. @returns how many */
  sweep(): Promise<number>;
};

/** Whether another recording may be begun. */
export async function hasRoom(storage: Pick<Storage, 'freeBytes' | 'minFreeBytes'>): Promise<boolean> {
  const free = await storage.freeBytes();
  return free === null || free >= (await storage.minFreeBytes());
}

/** Of the space that is left to running recordings, a file that is made of finished ones may take all but this part. */
const RESERVED_PART = 0.25;

/**
 * Whether a file of that many bytes fits, and running recordings go on.
 *
 * @throws {TabreelError} storage_full, saying how much is missing
 */
export async function assertFits(storage: Pick<Storage, 'freeBytes' | 'minFreeBytes'>, bytes: number): Promise<void> {
  const free = await storage.freeBytes();
  if (free === null) return;
  const reserved = (await storage.minFreeBytes()) * RESERVED_PART;
  if (free >= bytes + reserved) return;
  throw new TabreelError(
    'storage_full',
    `the file needs ${mebibytes(bytes)} MiB beside the ${mebibytes(reserved)} MiB for running recordings, and ${mebibytes(free)} MiB are free`,
  );
}

/** For messages, to a tenth. */
export const mebibytes = (bytes: number): number => Math.round(bytes / 2 ** 20 * 10) / 10;

const segmentPattern = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}$/;

/** @throws {TypeError} where a key could mean anything but an object below the root: every segment is a plain name */
export function assertKey(key: string): void {
  if (key.length > 1000 || key.split('/').some((segment) => !segmentPattern.test(segment))) {
    throw new TypeError(`storage: ${JSON.stringify(key)} is not a key`);
  }
}

/** @throws {TypeError} where it is not a key followed by a slash */
export function assertPrefix(prefix: string): void {
  if (!prefix.endsWith('/')) throw new TypeError(`storage: the prefix ${JSON.stringify(prefix)} does not end in a slash`);
  assertKey(prefix.slice(0, -1));
}

export const storageFull = (cause?: unknown): TabreelError =>
  new TabreelError('storage_full', 'the storage has no space left for recordings', { cause });
