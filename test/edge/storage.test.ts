import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { diskStorage } from '../../edge/storage/disk.ts';
import type { Storage } from '../../edge/storage/storage.ts';

let root: string;
let storage: Storage;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'tabreel-storage-'));
  storage = diskStorage(join(root, 'files'));
});
afterEach(() => rmSync(root, { recursive: true }));

const bytes = (text: string) => new TextEncoder().encode(text);
const text = async (stream: ReadableStream<Uint8Array> | null) => (stream ? Buffer.from(await new Response(stream).arrayBuffer()).toString() : null);

test('what was put is there, whole or in part', async () => {
  await storage.put('rec_1/parts/a', bytes('0123456789'));
  expect(Buffer.from((await storage.get('rec_1/parts/a')) ?? []).toString()).toBe('0123456789');
  expect(Buffer.from((await storage.get('rec_1/parts/a', { start: 2, end: 5 })) ?? []).toString()).toBe('234');
  expect(await text(await storage.stream('rec_1/parts/a'))).toBe('0123456789');
  expect(await text(await storage.stream('rec_1/parts/a', { start: 7, end: 10 }))).toBe('789');
  expect(await storage.stat('rec_1/parts/a')).toMatchObject({ bytes: 10 });
  await storage.put('rec_1/parts/a', bytes('new'));
  expect(await text(await storage.stream('rec_1/parts/a'))).toBe('new');
});

test('what is missing is null, and an empty list', async () => {
  expect(await storage.get('rec_1/none')).toBeNull();
  expect(await storage.stream('rec_1/none')).toBeNull();
  expect(await storage.stat('rec_1/none')).toBeNull();
  expect(await storage.stat('rec_1')).toBeNull();
  expect(await storage.list('rec_1/')).toEqual([]);
  await storage.remove('rec_1/');
});

test('lists in order, without what is only being written', async () => {
  for (const key of ['rec_1/parts/b', 'rec_1/parts/a', 'rec_1/x', 'rec_2/y']) await storage.put(key, bytes(key));
  writeFileSync(join(root, 'files/rec_1/parts/.new-1'), 'half');
  const upload = await storage.create('rec_1/parts/c');
  await upload.write(0, bytes('c'));
  expect(await storage.list('rec_1/')).toEqual([
    { key: 'rec_1/parts/a', bytes: 13 },
    { key: 'rec_1/parts/b', bytes: 13 },
    { key: 'rec_1/x', bytes: 7 },
  ]);
  await upload.abort();
  await storage.remove('rec_1/parts/');
  expect((await storage.list('rec_1/')).map(({ key }) => key)).toEqual(['rec_1/x']);
  expect(await storage.list('rec_2/')).toHaveLength(1);
});

test('an upload appears when it is committed, with its head written last', async () => {
  const upload = await storage.create('rec_1/recording.mp4');
  await upload.write(4, bytes('5678'));
  await upload.write(0, bytes('1234'));
  expect(await storage.stat('rec_1/recording.mp4')).toBeNull();
  await upload.commit();
  await upload.abort();
  expect(await text(await storage.stream('rec_1/recording.mp4'))).toBe('12345678');
});

test('an aborted upload leaves nothing', async () => {
  const upload = await storage.create('rec_1/recording.mp4');
  await upload.write(0, bytes('half'));
  await upload.abort();
  expect(readdirSync(join(root, 'files/rec_1'))).toEqual([]);
});

test('a cancelled stream is closed', async () => {
  await storage.put('rec_1/big', new Uint8Array(2_000_000));
  const stream = await storage.stream('rec_1/big');
  const reader = stream!.getReader();
  expect((await reader.read()).value?.length).toBe(256 * 1024);
  await reader.cancel();
});

test.each(['../x', 'a/../../x', '/etc/passwd', 'a//b', '', '.', 'a/.hidden', 'a\\b', 'a\0b', 'a/', `a/${'x'.repeat(300)}`])(
  'key %j is refused',
  async (key) => {
    await expect(storage.put(key, bytes('x'))).rejects.toThrow(TypeError);
    await expect(storage.get(key)).rejects.toThrow(TypeError);
  },
);

test.each(['', '/', '../', 'a', '.'])('prefix %j is refused', async (prefix) => {
  await expect(storage.remove(prefix)).rejects.toThrow(TypeError);
});

test('checks that it can be written to', async () => {
  const { freeBytes } = await storage.check();
  expect(freeBytes).toBeGreaterThan(0);
  expect(readdirSync(join(root, 'files'))).toEqual([]);
});
