/** The list of API keys: what may stand in it, whose a key is, and that a new list is in force without a restart. */
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir, rename, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openKeyFile } from '../../edge/access/key-file.ts';
import { keyRing, newApiKey, parseKeys } from '../../edge/access/keys.ts';
import { createLog } from '../../shared/log.ts';
import { keyList, testKey, type TestKey } from '../helpers/keys.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { startNode } from '../runtimes/runtimes.ts';

const [a, b, c] = [await testKey('a', ['read']), await testKey('b', ['record', 'read'], { concurrent: 1 }), await testKey('a', ['admin'])];

describe('a list of keys', () => {
  test('finds whose a key is, wherever it stands', async () => {
    const ring = parseKeys(keyList(a, b, c), 'x');
    for (const { key, entry } of [a, b, c]) expect(await ring.find(key)).toEqual(entry);
    for (const key of ['', newApiKey(), `${a.key}x`, a.key.slice(0, -1), a.entry.sha256, a.key.toLowerCase()]) expect(await ring.find(key)).toBeNull();
    expect(await keyRing([]).find(a.key)).toBeNull();
  });

  test('has keys of 190 bits, of which it keeps none', async () => {
    const made = new Set(Array.from({ length: 1000 }, newApiKey));
    expect(made.size).toBe(1000);
    for (const key of made) expect(key).toMatch(/^tbr_[A-Za-z0-9]{32}$/);
    expect(keyList(a)).not.toContain(a.key.slice(4));
  });

  test.each([
    ['no JSON', '{"keys":[', /^x: must be JSON/],
    ['no list', '[]', /^x: /],
    ['a key for its hash', keyList(a).replace(a.entry.sha256, a.key), /^x: keys\.0\.sha256: must be the SHA-256/],
    ['one key twice', JSON.stringify({ keys: [a.entry, a.entry] }), /keys\.1\.sha256: is there twice/],
    ['no scope', JSON.stringify({ keys: [{ ...a.entry, scopes: [] }] }), /keys\.0\.scopes/],
    ['a scope that there isn’t', JSON.stringify({ keys: [{ ...a.entry, scopes: ['write'] }] }), /keys\.0\.scopes\.0/],
    ['a limit that there isn’t', JSON.stringify({ keys: [{ ...a.entry, limits: { perHour: 1 } }] }), /perHour/],
    ['a name that would look like another’s keys in Redis', JSON.stringify({ keys: [{ ...a.entry, name: 'a:b' }] }), /keys\.0\.name: must have/],
  ])('%s is refused, and no key is repeated', (_name, text, message) => {
    expect(() => parseKeys(text, 'x')).toThrow(message);
    expect(() => parseKeys(text, 'x')).not.toThrow(a.key);
  });
});

describe('the file of keys', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-keys-'));
  afterAll(() => rmSync(directory, { recursive: true }));
  const logs: string[] = [];
  const log = createLog('info', (line) => logs.push(line));
  /** As the kubelet mounts a Secret: a link to a file behind a link to a directory, which is swapped. */
  async function mount(at: string, version: string, text: string) {
    await mkdir(join(at, version), { recursive: true });
    await writeFile(join(at, version, 'api-keys.json'), text);
    await symlink(version, join(at, '..data_tmp'));
    await rename(join(at, '..data_tmp'), join(at, '..data'));
    await symlink('..data/api-keys.json', join(at, 'api-keys.json')).catch(() => undefined);
  }
  const knows = async (file: Awaited<ReturnType<typeof openKeyFile>>, ...keys: TestKey[]) =>
    Promise.all(keys.map(async ({ key }) => (await file.current().find(key)) !== null));

  test('is read again when Kubernetes swaps it, when it is written anew, and when it is put in its place', async () => {
    const at = join(directory, 'secret');
    await mkdir(at);
    await mount(at, '..1', keyList(a));
    const path = join(at, 'api-keys.json');
    const file = await openKeyFile(path, log);
    expect(await knows(file, a, b)).toEqual([true, false]);
    await mount(at, '..2', keyList(a, b));
    await expect.poll(() => knows(file, a, b), { timeout: 10_000 }).toEqual([true, true]);
    await mount(at, '..3', keyList(b));
    await expect.poll(() => knows(file, a, b), { timeout: 10_000 }).toEqual([false, true]);
    // as an operator does on a machine of his own
    await unlink(path);
    await writeFile(path, keyList(c));
    await expect.poll(() => knows(file, b, c), { timeout: 10_000 }).toEqual([false, true]);
    await writeFile(`${path}.new`, keyList(a));
    await rename(`${path}.new`, path);
    await expect.poll(() => knows(file, a, c), { timeout: 10_000 }).toEqual([true, false]);
    file.close();
  });

  test('that is wrong, or gone, changes nothing, and the log says so once; none left is none', async () => {
    const path = join(directory, 'api-keys.json');
    await writeFile(path, keyList(a, b));
    let reload: () => void = () => undefined;
    const file = await openKeyFile(path, log, (listener) => (reload = listener));
    logs.length = 0;
    const errors = () => logs.filter((line) => line.includes('those before stay in force'));
    await writeFile(path, keyList(a).replace('"a"', '""'));
    await expect.poll(errors, { timeout: 10_000 }).toHaveLength(1);
    expect(errors()[0]).toContain('keys.0.name');
    expect(await knows(file, a, b)).toEqual([true, true]);
    await unlink(path);
    await expect.poll(errors, { timeout: 10_000 }).toHaveLength(2);
    reload();
    expect(await knows(file, a, b)).toEqual([true, true]);
    await writeFile(path, '{"keys":[]}');
    await expect.poll(() => knows(file, a, b), { timeout: 10_000 }).toEqual([false, false]);
    expect(errors()).toHaveLength(2);
    file.close();
  });

  test('that is not there at the start is an error with its name', async () => {
    await expect(openKeyFile(join(directory, 'none.json'), log)).rejects.toThrow(/API_KEYS=".*none\.json": must be a file that can be read/);
  });
});

describe('an edge', () => {
  let redis: TestRedis;
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-keys-'));
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(async () => {
    await redis[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  });

  test('takes a new key and refuses an old one without a restart, and reads again on SIGHUP', async () => {
    const path = join(directory, 'api-keys.json');
    await writeFile(path, keyList(a));
    const settings = { ...redis.environment, API_KEYS: path, TOKEN_SECRET: 'keys-test-token-secret', STORAGE_URL: `file://${directory}/r` };
    await using edge = await startNode(settings);
    const status = async ({ headers }: TestKey) => (await fetch(`${edge.url}/v1/recordings`, { headers })).status;
    expect([await status(a), await status(b)]).toEqual([200, 401]);
    // both for a while, then the new one alone
    await writeFile(path, keyList(a, b));
    edge.signal('SIGHUP');
    await expect.poll(() => status(b), { timeout: 10_000 }).toBe(200);
    expect(await status(a)).toBe(200);
    await writeFile(path, keyList(b));
    await expect.poll(() => status(a), { timeout: 10_000 }).toBe(401);
    expect(await status(b)).toBe(200);
    expect(edge.output()).not.toContain(a.key);
  });
});
