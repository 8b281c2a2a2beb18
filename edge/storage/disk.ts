/** Storage in a directory. Durable means: the data, then the name that leads to it, were flushed to the disk. */
import { mkdir, open, readdir, rename, rm, stat, statfs, unlink, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join, relative, sep } from 'node:path';
import { assertKey, assertPrefix, storageFull, type Storage, type StoredObject } from './storage.ts';

/** Names of files that are being written: no key begins with a dot. */
const TEMPORARY = '.new-';
const READ_BYTES = 256 * 1024;
/** What is left free for running recordings, where nothing else is said: this much, or this part of a small disk. */
const MIN_FREE_BYTES = 512 * 1024 * 1024;
const MIN_FREE_PART = 0.1;
/** A file that is being written changes all the time. */
const ABANDONED_MS = 3_600_000;

const isMissing = (error: unknown): boolean => ['ENOENT', 'ENOTDIR'].includes((error as { code?: string }).code ?? '');
const isFull = (error: unknown): boolean => ['ENOSPC', 'EDQUOT'].includes((error as { code?: string }).code ?? '');

/**
 * @param root directory; made where it is missing
 * @param minFreeBytes below this no recording is begun; by default 512 MiB, on a disk below 5 GiB a tenth of it
 */
export function diskStorage(root: string, minFreeBytes: number | null = null): Storage {
  const pathOf = (key: string): string => {
    assertKey(key);
    return join(root, ...key.split('/'));
  };
  const temporaryIn = (directory: string): string => join(directory, `${TEMPORARY}${crypto.randomUUID()}`);
  /** Names of one object's, so that whoever begins it again finds what was left of it. */
  const unfinishedOf = (path: string) => {
    const begin = `${TEMPORARY}${basename(path)}-`;
    return {
      name: () => `${begin}${crypto.randomUUID()}`,
      is: (name: string) => name.startsWith(begin) && name.length === begin.length + 36,
    };
  };

  const space = async () => {
    await mkdir(root, { recursive: true });
    return statfs(root);
  };
  const freeBytes = async (): Promise<number> => {
    const { bavail, bsize } = await space();
    return bavail * bsize;
  };

  return {
    async put(key, bytes) {
      const path = pathOf(key);
      await full(async () => {
        await makeDirectory(dirname(path));
        const temporary = temporaryIn(dirname(path));
        try {
          const file = await open(temporary, 'wx');
          try {
            await file.writeFile(bytes);
            await file.datasync();
          } finally {
            await file.close();
          }
          await publish(temporary, path);
        } catch (error) {
          await rm(temporary, { force: true });
          throw error;
        }
      });
    },

    async get(key, range) {
      const file = await openOrNull(pathOf(key));
      if (!file) return null;
      try {
        if (!range) return await file.readFile();
        const bytes = new Uint8Array(range.end - range.start);
        let filled = 0;
        while (filled < bytes.length) {
          const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, range.start + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
        return bytes.subarray(0, filled);
      } finally {
        await file.close();
      }
    },

    async stream(key, range) {
      const file = await openOrNull(pathOf(key));
      if (!file) return null;
      let position = range?.start ?? 0;
      const end = range?.end ?? Number.POSITIVE_INFINITY;
      return new ReadableStream<Uint8Array>(
        {
          async pull(controller) {
            try {
              const buffer = new Uint8Array(Math.min(READ_BYTES, end - position));
              const { bytesRead } = buffer.length === 0 ? { bytesRead: 0 } : await file.read(buffer, 0, buffer.length, position);
              position += bytesRead;
              if (bytesRead > 0) return controller.enqueue(buffer.subarray(0, bytesRead));
              await file.close();
              return controller.close();
            } catch (error) {
              await file.close().catch(() => undefined);
              throw error;
            }
          },
          cancel: () => file.close(),
        },
        { highWaterMark: 1 },
      );
    },

    async stat(key) {
      try {
        const found = await stat(pathOf(key));
        return found.isFile() ? { bytes: found.size, modified: found.mtime } : null;
      } catch (error) {
        if (isMissing(error)) return null;
        throw error;
      }
    },

    async list(prefix) {
      assertPrefix(prefix);
      const directory = join(root, ...prefix.split('/'));
      const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(ignoreMissing);
      const found: StoredObject[] = [];
      for (const entry of entries) {
        if (!entry.isFile() || entry.name.startsWith('.')) continue;
        const path = join(entry.parentPath, entry.name);
        const size = await stat(path).then((result) => result.size, () => null);
        // gone between listing and stat: it was removed
        if (size !== null) found.push({ key: relative(root, path).split(sep).join('/'), bytes: size });
      }
      return found.sort((a, b) => (a.key < b.key ? -1 : 1));
    },

    async folders() {
      const entries = await readdir(root, { withFileTypes: true }).catch(ignoreMissing);
      return entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort();
    },

    async remove(prefix) {
      assertPrefix(prefix);
      // a part that comes meanwhile makes its directory not empty again
      await rm(join(root, ...prefix.split('/')), { recursive: true, force: true, maxRetries: 5 });
    },

    async removeObject(key) {
      await rm(pathOf(key), { force: true });
    },

    async create(key) {
      const path = pathOf(key);
      const directory = dirname(path);
      const unfinished = unfinishedOf(path);
      const temporary = join(directory, unfinished.name());
      const file = await full(async () => {
        await makeDirectory(directory);
        for (const name of await readdir(directory)) {
          if (unfinished.is(name)) await rm(join(directory, name), { force: true });
        }
        return open(temporary, 'wx');
      });
      let closed = false;
      const close = async () => {
        if (!closed) await file.close();
        closed = true;
      };
      return {
        write: (position, bytes) =>
          full(async () => {
            for (let done = 0; done < bytes.length; ) {
              done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
            }
          }),
        commit: () =>
          full(async () => {
            await file.datasync();
            await close();
            await publish(temporary, path);
          }),
        async abort() {
          await close();
          await rm(temporary, { force: true });
        },
      };
    },

    async check() {
      return full(async () => {
        await mkdir(root, { recursive: true });
        const probe = temporaryIn(root);
        const file = await open(probe, 'wx');
        try {
          await file.writeFile('.');
        } finally {
          await file.close();
          await unlink(probe);
        }
        return { freeBytes: await freeBytes() };
      });
    },

    freeBytes,

    async minFreeBytes() {
      if (minFreeBytes !== null) return minFreeBytes;
      const { blocks, bsize } = await space();
      return Math.min(MIN_FREE_BYTES, Math.floor(blocks * bsize * MIN_FREE_PART));
    },

    async sweep() {
      let swept = 0;
      const sweepDirectory = async (directory: string): Promise<void> => {
        for (const entry of await readdir(directory, { withFileTypes: true }).catch(ignoreMissing)) {
          const path = join(directory, entry.name);
          if (entry.isDirectory()) await sweepDirectory(path);
          if (!entry.isFile() || !entry.name.startsWith(TEMPORARY)) continue;
          const changed = await stat(path).then(({ mtimeMs }) => mtimeMs, () => null);
          if (changed === null || changed > Date.now() - ABANDONED_MS) continue;
          await rm(path, { force: true });
          swept += 1;
        }
      };
      await sweepDirectory(root);
      return swept;
    },
  };
}

function ignoreMissing(error: unknown): [] {
  if (isMissing(error)) return [];
  throw error;
}

/** The name leads to the data only once the directory itself is on the disk. */
async function publish(temporary: string, path: string): Promise<void> {
  await rename(temporary, path);
  await syncDirectory(dirname(path));
}

async function makeDirectory(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true });
  if (first === undefined) return;
  for (let at = path; at.length >= first.length; at = dirname(at)) await syncDirectory(dirname(at));
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

async function openOrNull(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

async function full<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (isFull(error)) throw storageFull(error);
    throw error;
  }
}
