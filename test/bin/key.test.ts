/** `tabreel key`, as it is typed, and `tabreel doctor` with what it printed. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { keyEntry, parseKeys } from '../../edge/access/keys.ts';
import { testEdge } from '../edge/harness.ts';
import { keySetting, testKey } from '../helpers/keys.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';

const program = fileURLToPath(new URL('../../bin/tabreel.ts', import.meta.url));
const tabreel = (args: string[], environment: Record<string, string> = {}): Promise<{ code: number; out: string; err: string }> =>
  new Promise((resolve) => {
    execFile(process.execPath, [program, ...args], { env: { ...process.env, ...environment } }, (error, out, err) => resolve({ code: error === null ? 0 : Number(error.code), out, err }));
  });

describe('tabreel key', () => {
  test('prints a key once, and an entry that knows it', async () => {
    const { code, out, err } = await tabreel(['key', 'team-a', '--scope', 'record,read', '--concurrent', '10', '--per-minute', '60', '--max-duration', '3600']);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const lines = out.trim().split('\n');
    const [key = '', entry = ''] = [lines[0], lines.at(-1)];
    expect(key).toMatch(/^tbr_[A-Za-z0-9]{32}$/);
    expect(entry).not.toContain(key);
    const { sha256: _, ...said } = keyEntry.parse(JSON.parse(entry));
    expect(said).toEqual({ name: 'team-a', scopes: ['record', 'read'], limits: { concurrent: 10, perMinute: 60, maxDuration: 3600 } });
    expect(await parseKeys(`{"keys":[${entry}]}`, 'x').find(key)).toMatchObject({ name: 'team-a' });
    const other = (await tabreel(['key', 'team-a'])).out;
    expect(other.split('\n')[0]).not.toBe(key);
    expect(JSON.parse(other.trim().split('\n').at(-1) ?? '')).toMatchObject({ scopes: ['record', 'read'], limits: {} });
  });

  test.each([
    [[], /key takes one NAME/],
    [['a b'], /NAME: must have 1 to 64/],
    [['a', '--scope', 'write'], /--scope: /],
    [['a', '--concurrent', 'x'], /--concurrent: /],
    [['a', '--max-duration', '0'], /--max-duration: /],
    [['a', '--limit', '1'], /limit/],
  ])('%j is refused', async (args, message) => {
    const { code, out, err } = await tabreel(['key', ...args]);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(message);
  });
});

describe('tabreel doctor', () => {
  let redis: TestRedis;
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis[Symbol.asyncDispose]());

  test('says whether an edge knows the key, by --key or TABREEL_KEY, and never prints it', async () => {
    const known = await testKey('ci', ['record', 'read']);
    const unknown = await testKey('ci', ['record', 'read']);
    await using edge = await testEdge(redis, { apiKeys: keySetting(known) });
    const good = await tabreel(['doctor', edge.url], { TABREEL_KEY: known.key });
    expect(good.code, good.out).toBe(0);
    expect(good.out).toMatch(/^ok {4}key +the edge knows the API key$/m);
    const bad = await tabreel(['doctor', edge.url, '--key', unknown.key]);
    expect(bad.code).toBe(1);
    expect(bad.out).toMatch(/^FAIL {2}key +GET \/v1\/recordings: 401 unauthorized[\s\S]*API_KEYS/m);
    for (const { out, err } of [good, bad]) for (const { key } of [known, unknown]) expect(out + err).not.toContain(key);
    const none = await tabreel(['doctor', edge.url, '--record']);
    expect(none.out).toMatch(/^FAIL {2}request[\s\S]*--key KEY, or TABREEL_KEY/m);
  });
});
