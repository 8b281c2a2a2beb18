/** What every storage has to do, whatever it is made of; called with each of them. */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Storage } from '../../edge/storage/storage.ts';

export type StorageUnderTest = AsyncDisposable & {
  storage: Storage;
  /** Another process's view of the same storage. */
  beside: Storage;
  /** Files that hold half-written objects. */
  unfinished(): string[];
  /** Where each key's file lies, under the hand of whatever serves it. */
  root: string;
  /** Makes everything that is half-written look as if it had been left two days ago. */
  age(): void;
};

const MIB = 2 ** 20;
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (found: Uint8Array | null) => found && Buffer.from(found).toString();
const read = async (stream: ReadableStream<Uint8Array> | null) => stream && Buffer.from(await new Response(stream).arrayBuffer());
const digest = (content: Uint8Array) => createHash('sha256').update(content).digest('hex');
/** Bytes that tell where they belong. */
const pattern = (length: number, seed = 1): Buffer => {
  const numbers = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < numbers.length; i += 1) numbers[i] = Math.imul(i + seed, 2_654_435_761);
  return Buffer.from(numbers.buffer, 0, length);
};

export function describeStorage(name: string, open: () => Promise<StorageUnderTest>): void {
  describe(name, { timeout: 20_000 }, () => {
    let under: StorageUnderTest;
    let storage: Storage;
    beforeAll(async () => {
      under = await open();
      storage = under.storage;
    });
    afterAll(() => under?.[Symbol.asyncDispose]());

    test('what was put is there, whole or in part, for every process', async () => {
      await storage.put('rec_1/parts/a', bytes('0123456789'));
      for (const { get, stream, stat } of [storage, under.beside]) {
        expect(text(await get('rec_1/parts/a'))).toBe('0123456789');
        expect(text(await get('rec_1/parts/a', { start: 2, end: 5 }))).toBe('234');
        expect(text(await read(await stream('rec_1/parts/a')))).toBe('0123456789');
        expect(text(await read(await stream('rec_1/parts/a', { start: 7, end: 10 })))).toBe('789');
        const found = await stat('rec_1/parts/a');
        expect(found?.bytes).toBe(10);
        expect(Math.abs((found?.modified.getTime() ?? 0) - Date.now())).toBeLessThan(60_000);
      }
    });

    test('a range that reaches beyond the end ends there', async () => {
      await storage.put('rec_1/range', bytes('0123456789'));
      expect(text(await storage.get('rec_1/range', { start: 8, end: 100 }))).toBe('89');
      expect(text(await storage.get('rec_1/range', { start: 10, end: 100 }))).toBe('');
      expect(text(await read(await storage.stream('rec_1/range', { start: 50, end: 60 })))).toBe('');
      expect(text(await read(await storage.stream('rec_1/range', { start: 4, end: 4 })))).toBe('');
    });

    test('what is missing is null, and an empty list', async () => {
      expect(await storage.get('rec_1/none')).toBeNull();
      expect(await storage.get('rec_1/none', { start: 0, end: 0 })).toBeNull();
      expect(await storage.stream('rec_1/none')).toBeNull();
      expect(await storage.stream('rec_1/none', { start: 0, end: 0 })).toBeNull();
      expect(await storage.stat('rec_1/none')).toBeNull();
      expect(await storage.list('rec_none/')).toEqual([]);
      await storage.remove('rec_none/');
      await storage.removeObject('rec_1/none');
    });

    test('an object of no bytes is an object', async () => {
      await storage.put('rec_1/empty', new Uint8Array());
      expect(await storage.stat('rec_1/empty')).toMatchObject({ bytes: 0 });
      expect(text(await storage.get('rec_1/empty'))).toBe('');
      expect(text(await storage.get('rec_1/empty', { start: 0, end: 0 }))).toBe('');
      expect(text(await read(await storage.stream('rec_1/empty', { start: 0, end: 0 })))).toBe('');
      expect(await storage.list('rec_1/')).toContainEqual({ key: 'rec_1/empty', bytes: 0 });
      const upload = await storage.create('rec_1/empty-upload');
      await upload.commit();
      expect(await storage.stat('rec_1/empty-upload')).toMatchObject({ bytes: 0 });
    });

    test('an object appears whole or not at all, and is replaced whole', async () => {
      const versions = [pattern(6 * MIB, 1), pattern(6 * MIB, 2)];
      const known = new Set<string | null>([null, ...versions.map(digest)]);
      let over = false;
      const seen = new Set<string | null>();
      const watching = (async () => {
        while (!over) {
          const found = await under.beside.get('rec_1/big');
          seen.add(found && digest(found));
        }
      })();
      for (const version of versions) await storage.put('rec_1/big', version);
      over = true;
      await watching;
      expect([...seen].filter((one) => !known.has(one))).toEqual([]);
      expect(digest((await storage.get('rec_1/big')) ?? bytes(''))).toBe(digest(versions[1] as Buffer));
    });

    test('of puts of one key at the same time one wins, whole', async () => {
      const versions = Array.from({ length: 8 }, (_, i) => pattern(300_000 + i, i));
      await Promise.all(versions.map((version, i) => (i % 2 ? storage : under.beside).put('rec_1/contested', version)));
      expect(versions.map(digest)).toContain(digest((await storage.get('rec_1/contested')) ?? bytes('')));
      expect(under.unfinished()).toEqual([]);
    });

    const legal = [
      'a', 'A', '-', '_', '0', 'B/a', 'b/A', 'x..y/z--.', 'a.b.c/d.e.f', `deep/${Array.from({ length: 12 }, (_, i) => `d${i}`).join('/')}`,
      `long/${'y'.repeat(201)}`, `a0001-s0000001-t0-d2000000-f60.m4s`, 'con/nul.txt', 'x/%2e'.replace('%', '_'),
    ]; // prettier-ignore
    test('whatever is a key is one', async () => {
      await Promise.all(legal.map((key) => storage.put(`weird/${key}`, bytes(key))));
      expect((await storage.list('weird/')).map(({ key }) => key)).toEqual(legal.map((key) => `weird/${key}`).sort());
      for (const key of legal) expect(text(await storage.get(`weird/${key}`))).toBe(key);
      await storage.remove('weird/');
      expect(await storage.list('weird/')).toEqual([]);
    });

    test.each(['../x', 'a/../../x', '/etc/passwd', 'a//b', '', '.', 'a/.hidden', 'a\\b', 'a\0b', 'a/', 'a b', 'a?b', 'ä', `a/${'x'.repeat(300)}`])(
      'key %j is refused',
      async (key) => {
        await expect(storage.put(key, bytes('x'))).rejects.toThrow(TypeError);
        await expect(storage.get(key)).rejects.toThrow(TypeError);
        await expect(storage.create(key)).rejects.toThrow(TypeError);
      },
    );

    test.each(['', '/', '../', 'a', '.'])('prefix %j is refused', async (prefix) => {
      await expect(storage.remove(prefix)).rejects.toThrow(TypeError);
      await expect(storage.list(prefix)).rejects.toThrow(TypeError);
    });

    test('lists more than a thousand, in order, and removes them and no others', async () => {
      const keys = Array.from({ length: 1050 }, (_, i) => `rec_many/parts/s${String(i).padStart(7, '0')}`);
      await storage.put(keys[0] as string, bytes(keys[0] as string));
      // putting each would cost seconds
      for (const key of keys.slice(1)) writeFileSync(join(under.root, key), key);
      await storage.put('rec_many/recording.mp4', bytes('file'));
      await storage.put('rec_many2/x', bytes('neighbour'));
      const listed = await storage.list('rec_many/parts/');
      expect(listed.map(({ key }) => key)).toEqual(keys);
      expect(listed.every(({ key, bytes: size }) => size === key.length)).toBe(true);
      await storage.remove('rec_many/parts/');
      expect(await storage.list('rec_many/')).toEqual([{ key: 'rec_many/recording.mp4', bytes: 4 }]);
      await storage.removeObject('rec_many/recording.mp4');
      expect(await storage.list('rec_many/')).toEqual([]);
      expect(await storage.list('rec_many2/')).toHaveLength(1);
      expect(await storage.stat('rec_many/parts/s0000000')).toBeNull();
    });

    describe('an upload', () => {
      /** As the muxer writes: what comes first leaves a hole, which is filled at the end, its neighbourhood written again. */
      async function write(key: string, content: Buffer, hole: number, piece = 4 * MIB, commit = true) {
        const upload = await storage.create(key, content.length);
        await upload.write(0, content.subarray(0, 32));
        const wrong = Buffer.concat([Buffer.alloc(16), content.subarray(hole + 16)]);
        for (let at = 0; at < wrong.length; at += piece) await upload.write(hole + at, wrong.subarray(at, at + piece));
        await upload.write(hole, content.subarray(hole, hole + 16));
        for (let at = 32; at < hole; at += piece) await upload.write(at, content.subarray(at, Math.min(at + piece, hole)));
        if (commit) await upload.commit();
        return upload;
      }

      /** Writes most of it and leaves it so, as a process that is killed does; what is on its way arrives. */
      async function leave(key: string) {
        const upload = await write(key, pattern(20_000_000), 100, MIB, false);
        await sleep(150);
        expect(under.unfinished()).not.toEqual([]);
        return upload;
      }

      test.each([
        ['of 20 MB', 20_000_000, 100_000],
        ['whose header is larger than a part', 20_000_000, 6 * MIB],
        ['whose header ends where a part does', 20_000_000, 5 * MIB - 8],
        ['of whole parts', 10 * MIB, 40_000],
        ['of one part', 3_000_000, 40_000],
        ['of almost nothing', 300, 100],
      ])('%s appears when it is committed, with its head written last', async (_what, length, hole) => {
        const content = pattern(length, length);
        const upload = await write('rec_1/recording.mp4', content, hole, 4 * MIB, false);
        expect(await under.beside.stat('rec_1/recording.mp4')).toBeNull();
        expect((await storage.list('rec_1/')).map(({ key }) => key)).not.toContain('rec_1/recording.mp4');
        await upload.commit();
        await upload.abort();
        expect(await storage.stat('rec_1/recording.mp4')).toMatchObject({ bytes: length });
        const found = await read(await under.beside.stream('rec_1/recording.mp4'));
        expect(found?.length).toBe(length);
        expect(digest(found ?? bytes(''))).toBe(digest(content));
        expect(under.unfinished()).toEqual([]);
        await storage.removeObject('rec_1/recording.mp4');
      });

      test('replaces what was there, and until then leaves it', async () => {
        await storage.put('rec_1/replaced', bytes('old'));
        const upload = await write('rec_1/replaced', pattern(6 * MIB), 1000, 4 * MIB, false);
        expect(text(await storage.get('rec_1/replaced'))).toBe('old');
        await upload.commit();
        expect(await storage.stat('rec_1/replaced')).toMatchObject({ bytes: 6 * MIB });
      });

      test('that is aborted leaves nothing', async () => {
        for (const length of [300, 20_000_000]) {
          const upload = await write('rec_1/aborted', pattern(length), 100, MIB, false);
          await upload.abort();
          await upload.abort();
          expect(await storage.stat('rec_1/aborted')).toBeNull();
          expect(under.unfinished()).toEqual([]);
        }
      });

      test('that a killed process left goes when the same object is begun again, and can not be committed any more', async () => {
        const left = await leave('rec_1/twice');
        const next = await under.beside.create('rec_1/twice');
        await next.write(0, bytes('next'));
        await next.commit();
        await expect(left.commit()).rejects.toThrow();
        await left.abort();
        expect(text(await storage.get('rec_1/twice'))).toBe('next');
        expect(under.unfinished()).toEqual([]);
      });

      test('that a killed process left goes with its recording', async () => {
        const left = await leave('rec_left/recording.mp4');
        expect(await storage.list('rec_left/')).toEqual([]);
        await under.beside.remove('rec_left/');
        expect(under.unfinished()).toEqual([]);
        await left.abort();
      });

      test('that a killed process left is swept after a while, and no other', async () => {
        const left = await leave('rec_swept/recording.mp4');
        expect(await under.beside.sweep()).toBe(0);
        under.age();
        expect(await under.beside.sweep()).toBe(1);
        expect(under.unfinished()).toEqual([]);
        await left.abort();
      });
    });

    test('a stream can be left in the middle', async () => {
      await storage.put('rec_1/stream', pattern(8 * MIB));
      const stream = await storage.stream('rec_1/stream');
      const reader = (stream as ReadableStream<Uint8Array>).getReader();
      expect((await reader.read()).value?.length).toBeGreaterThan(0);
      await reader.cancel();
      expect((await reader.read()).done).toBe(true);
    });

    test('a check writes, and leaves nothing', async () => {
      const { freeBytes } = await storage.check();
      expect(freeBytes).toBe(freeBytes === null ? null : Math.max(1, freeBytes));
      expect(await storage.minFreeBytes()).toBeLessThanOrEqual(512 * MIB);
      expect(under.unfinished()).toEqual([]);
    });
  });
}
