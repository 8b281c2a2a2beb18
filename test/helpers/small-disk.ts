/** A disk of its own, small, that can be filled. Needs root, who may mount. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { open, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type SmallDisk = Disposable & {
  path: string;
  /** @param leave bytes that stay free @returns makes room again when it is disposed of */
  fill(leave?: number): Promise<AsyncDisposable>;
};

/** @param size as mount's option has it: 8m */
export function smallDisk(size: string): SmallDisk {
  const path = mkdtempSync(join(tmpdir(), 'tabreel-disk-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path]);
  const free = async () => {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  };
  return {
    path,
    async fill(leave = 0) {
      const filler = join(path, 'filler');
      await using file = await open(filler, 'w');
      try {
        for (let left = await free(); left > leave; left = await free()) await file.write(Buffer.alloc(Math.min(left - leave, 2 ** 24)));
      } catch (error) {
        if ((error as { code?: string }).code !== 'ENOSPC') throw error;
      }
      return { [Symbol.asyncDispose]: () => rm(filler, { force: true }) };
    },
    [Symbol.dispose]() {
      execFileSync('umount', [path]);
      rmSync(path, { recursive: true });
    },
  };
}
