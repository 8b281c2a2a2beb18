/** HEALTH_PORT of edge and finaliser: for probes and Prometheus, without keys, and nothing else. */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { keyList, testKey } from '../helpers/keys.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { start, startNode } from '../runtimes/runtimes.ts';

const admin = await testKey('ops', ['admin']);
const reader = await testKey('team-a', ['read']);
const directory = mkdtempSync(join(tmpdir(), 'tabreel-probes-'));

let redis: TestRedis;
let settings: Record<string, string>;
beforeAll(async () => {
  redis = await startRedis();
  settings = { ...redis.environment, TOKEN_SECRET: 'probes-test-token-secret', STORAGE_URL: `file://${directory}/r`, HEALTH_PORT: '0' };
});
afterAll(async () => {
  await redis[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true });
});

const status = async (url: string, headers: Record<string, string> = {}) => (await fetch(url, { headers })).status;
/** The port of the listener for probes, which is told before the process says that it runs. */
const portIn = (output: string) => /"event":"probes are answered".*?"port":(\d+)/.exec(output)?.[1];

describe('an edge with HEALTH_PORT', () => {
  test('answers probes there without a key, and nothing else; at its own port /metrics is an admin’s', async () => {
    await using edge = await startNode({ ...settings, API_KEYS: keyList(admin, reader) });
    const probes = `http://127.0.0.1:${portIn(edge.output())}`;
    for (const path of ['/healthz', '/readyz', '/metrics']) expect([path, await status(`${probes}${path}`)]).toEqual([path, 200]);
    expect(await status(`${probes}/metrics`, { 'x-forwarded-for': '10.0.0.1' })).toBe(200);
    expect(await (await fetch(`${probes}/metrics`)).text()).toContain('tabreel_recordings{state="queued"}');
    for (const path of ['/v1/recordings', '/v1/origin', '/dashboard', '/docs', '/openapi.json']) expect([path, await status(`${probes}${path}`, admin.headers)]).toEqual([path, 404]);
    expect([await status(`${edge.url}/metrics`), await status(`${edge.url}/metrics`, reader.headers), await status(`${edge.url}/metrics`, admin.headers)]).toEqual([401, 403, 200]);
    for (const path of ['/healthz', '/readyz', '/v1/origin']) expect([path, await status(`${edge.url}${path}`)]).not.toEqual([path, 401]);
  });

  test('METRICS_OPEN: /metrics needs no key at its own port', async () => {
    await using edge = await startNode({ ...settings, API_KEYS: keyList(admin), METRICS_OPEN: 'true' });
    expect(await status(`${edge.url}/metrics`)).toBe(200);
    expect(await status(`${edge.url}/v1/recordings`)).toBe(401);
  });

  test('does not start where the port is taken', async () => {
    const taken = createServer().listen(0);
    await once(taken, 'listening');
    const edge = start(process.execPath, ['edge/node.ts'], { ...settings, HOST: '127.0.0.1', PORT: '0', HEALTH_PORT: String((taken.address() as AddressInfo).port) });
    const { code, output } = await edge.ended;
    expect(code).toBe(1);
    expect(output).toContain('EADDRINUSE');
    taken.close();
  });
});

test('a finaliser with HEALTH_PORT answers probes', async () => {
  await using finaliser = start(process.execPath, ['edge/finaliser.ts'], settings);
  await finaliser.line((line) => line['event'] === 'finaliser runs');
  const probes = `http://127.0.0.1:${portIn(finaliser.output())}`;
  expect(await status(`${probes}/healthz`)).toBe(200);
  await expect.poll(() => status(`${probes}/readyz`), { timeout: 10_000 }).toBe(200);
  expect(await (await fetch(`${probes}/metrics`)).text()).toMatch(/^tabreel_finaliser_jobs 0$/m);
});
