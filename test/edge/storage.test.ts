import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { diskStorage } from '../../edge/storage/disk.ts';
import { describeStorage, type StorageUnderTest } from '../conformance/storage.ts';

async function openDisk(): Promise<StorageUnderTest> {
  const root = mkdtempSync(join(tmpdir(), 'tabreel-storage-'));
  const files = join(root, 'files');
  const unfinished = () =>
    readdirSync(root, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.includes('.new-'))
      .map((path) => join(root, path));
  return {
    root: files,
    storage: diskStorage(files),
    beside: diskStorage(files),
    unfinished,
    age() {
      const then = Date.now() / 1000 - 2 * 86_400;
      for (const path of unfinished()) utimesSync(path, then, then);
    },
    [Symbol.asyncDispose]: async () => rmSync(root, { recursive: true }),
  };
}

describeStorage('storage on a disk', openDisk);

test('what is only being written, or was, is in no list', async () => {
  await using disk = await openDisk();
  await disk.storage.put('rec_1/parts/a', Buffer.from('a'));
  writeFileSync(join(disk.root, 'rec_1/parts/.new-1'), 'half');
  expect(await disk.storage.list('rec_1/')).toEqual([{ key: 'rec_1/parts/a', bytes: 1 }]);
  disk.age();
  expect(await disk.storage.sweep()).toBe(1);
  expect(readdirSync(join(disk.root, 'rec_1/parts'))).toEqual(['a']);
});

test('an upload leaves alone what is being written of an object whose name begins alike', async () => {
  await using disk = await openDisk();
  const longer = await disk.storage.create('rec_1/a-b');
  await longer.write(0, Buffer.from('kept'));
  const shorter = await disk.storage.create('rec_1/a');
  await Promise.all([longer.commit(), shorter.commit()]);
  expect(await disk.storage.stat('rec_1/a-b')).toMatchObject({ bytes: 4 });
});

test('a tenth of a small disk is left to running recordings, and what the operator says', async () => {
  await using disk = await openDisk();
  expect(await diskStorage(disk.root, 1000).minFreeBytes()).toBe(1000);
  expect(await diskStorage(disk.root, 0).minFreeBytes()).toBe(0);
  expect(await disk.storage.minFreeBytes()).toBeGreaterThan(0);
});
