/** The temporary directories of recording processes, and what is left of them where worker and processes were killed together. */
import { mkdtempSync } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { Log } from '../shared/log.ts';
import { wipeProcessDirectory } from './browser/profile.ts';

/** Containers may share a temporary directory, and don't see each other's processes; their host names differ. */
const PREFIX = `tabreel-recording-${hostname().replace(/[^\w.-]/g, '_')}-`;
/** A younger directory may have no process yet, in milliseconds: one is made in the same turn as its directory. */
const YOUNG_MS = 5000;
/** Milliseconds after which it is looked again: for what was young, and for what processes without a worker left. */
const AGAIN_MS = [2 * YOUNG_MS, 120_000];

/** A directory for one process, made; to be given to it as TMPDIR. */
export const makeProcessDirectory = (): string => mkdtempSync(join(tmpdir(), PREFIX));

/** Whether a process's TMPDIR was made for it alone. */
export const isProcessDirectory = (path: string): boolean => basename(path).startsWith(PREFIX);

/**
 * Removes this machine's directories that no process was started with, as after the restart of a container that ran out of
 * memory: now, when those that are young now are old, and some time later. Only on Linux, where that can be seen. Never throws.
 */
export function sweepProcessDirectories(log: Log): { end(): void } {
  const look = () =>
    removeUnused(YOUNG_MS).then(
      (removed) => removed > 0 && log.info('temporary files of recordings that were killed with their worker are removed', { directories: removed }),
      (error: unknown) => log.warn('temporary files of earlier recordings may stay behind', { error }),
    );
  void look();
  const timers = AGAIN_MS.map((delay) => setTimeout(() => void look(), delay).unref());
  return { end: () => timers.forEach(clearTimeout) };
}

/** @param young milliseconds since a directory was last changed, below which it stays. @returns how many were removed */
export async function removeUnused(young: number): Promise<number> {
  const names = (await readdir(tmpdir())).filter((name) => name.startsWith(PREFIX));
  if (names.length === 0) return 0;
  const processes = await startedWith();
  if (processes === null) return 0;
  let removed = 0;
  for (const path of names.map((name) => join(tmpdir(), name))) {
    const made = await stat(path).catch(() => null);
    if (made === null || Date.now() - made.ctimeMs < young || processes.some((text) => text.includes(path))) continue;
    await wipeProcessDirectory(path);
    removed += 1;
  }
  return removed;
}

/** Arguments and environment of each process that may be looked at; null where none can. */
async function startedWith(): Promise<string[] | null> {
  const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name));
  if (pids.length === 0) return null;
  const files = pids.flatMap((pid) => [`/proc/${pid}/cmdline`, `/proc/${pid}/environ`]);
  return Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => '')));
}
