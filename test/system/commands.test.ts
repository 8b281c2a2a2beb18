/** Scripts in the page of a recording, asked for over HTTP at two edges, with a real worker and a real page. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readEdgeConfig } from '../../edge/config.ts';
import { startEdge, type Edge } from '../../edge/server.ts';
import { createLog } from '../../shared/log.ts';
import { lacks, startService, type Answer, type Service } from '../helpers/service.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';

type Result = { result?: unknown; code?: string; detail?: string };

/** A page whose policy forbids eval, and a second document of its own origin to go to. */
const policy = "default-src 'none'; script-src 'nonce-n'; style-src 'unsafe-inline'";
const pages = createServer((request, response) => {
  response.setHeader('content-type', 'text/html; charset=utf-8');
  response.setHeader('content-security-policy', policy);
  response.end(`<!doctype html><title>${request.url}</title><script nonce="n">
    var seen = ['page'];
    try { eval('1'); seen.push('eval'); } catch { seen.push('no eval'); }
  </script><h1 style="animation: a 1s infinite alternate">Strict</h1><style>@keyframes a { to { color: red } }</style>`);
});

describe.skipIf(await lacks('redis-server', 'headless shell'))('scripts in a real page', () => {
  let redis: TestRedis;
  let service: Service;
  let second: Edge;
  const secondLines: string[] = [];
  let id: string;
  const url = (path: string) => `http://127.0.0.1:${(pages.address() as AddressInfo).port}${path}`;
  const run = (script: string, more: object = {}, edge = service.url): Promise<Answer<Result>> =>
    service.api<Result>(`${edge}/v1/recordings/${id}/commands`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ script, ...more }),
    });

  beforeAll(async () => {
    await new Promise<void>((resolve) => pages.listen(0, '127.0.0.1', resolve));
    redis = await startRedis();
    service = await startService({ redis });
    const environment = { ...redis.environment, PORT: '0', TOKEN_SECRET: 'system-test-token-secret', STORAGE_URL: `file://${service.storage}` };
    second = await startEdge(readEdgeConfig(environment, ''), createLog('debug', (line) => secondLines.push(line)));
    ({ id } = await service.create({ url: url('/strict'), maxDuration: 60 }));
    await service.waitFor(id, 'recording');
  }, 30_000);
  afterAll(async () => {
    await second?.[Symbol.asyncDispose]();
    await service?.[Symbol.asyncDispose]();
    await redis?.[Symbol.asyncDispose]();
    pages.close();
  }, 20_000);

  test('a script runs in the page’s own world, whatever its policy says of eval, and its result is JSON', async () => {
    expect((await run('seen.push("command"); seen')).body).toEqual({ result: ['page', 'no eval', 'command'] });
    expect((await run('document.title + " " + seen.length')).body).toEqual({ result: '/strict 3' });
    expect((await run('new Promise((resolve) => setTimeout(() => resolve({ a: [1, null], at: new Date(0) }), 50))')).body).toEqual({
      result: { a: [1, null], at: '1970-01-01T00:00:00.000Z' },
    });
    for (const [script, result] of [['undefined', null], ['null', null], ['-0', 0], ['void 0;\nvar late = 1', null], ['""', '']] as const) {
      expect((await run(script)).body, script).toEqual({ result });
    }
  });

  test('what a script throws is told with its line, and what is no JSON, is too large or takes too long by a code each', async () => {
    const outcome = async (script: string, more: object = {}) => {
      const { status, body } = await run(script, more);
      return [status, body.code, body.detail];
    };
    expect(await outcome('let a = 1;\n\nnull.x')).toEqual([422, 'script_threw', "TypeError: Cannot read properties of null (reading 'x') (line 3)"]);
    expect(await outcome('1;\nPromise.reject(new RangeError("far"))')).toEqual([422, 'script_threw', 'RangeError: far (line 2)']);
    expect(await outcome('1;\nthrow "plain"')).toEqual([422, 'script_threw', '"plain" (line 2)']);
    expect(await outcome('1;\n1 +')).toEqual([422, 'script_threw', 'SyntaxError: Unexpected end of input (line 2)']);
    expect(await outcome('1n')).toEqual([422, 'result_not_json', "The script's result is not JSON: it is 1n"]);
    expect((await outcome('NaN')).slice(0, 2)).toEqual([422, 'result_not_json']);
    expect((await outcome('window.open')).slice(0, 2)).toEqual([422, 'result_not_json']);
    expect((await outcome('const ring = {}; ring.ring = ring; ring')).slice(0, 2)).toEqual([422, 'result_not_json']);
    expect((await outcome('"x".repeat(300000)')).slice(0, 2)).toEqual([422, 'result_too_large']);
    expect((await outcome('["x".repeat(300000)]')).slice(0, 2)).toEqual([422, 'result_too_large']);
    expect(await outcome('new Promise(() => {})', { timeout: 0.3 })).toEqual([422, 'script_timeout', 'The script did not come to its end within 0.3 s']);
    expect((await outcome('for (;;);', { timeout: 0.5 })).slice(0, 2)).toEqual([422, 'script_timeout']);
    expect((await run('6 * 7')).body).toEqual({ result: 42 });
  });

  test('a page that goes elsewhere meanwhile is told of, within its origin and to another one; the next script runs in the new document', async () => {
    for (const next of [url('/next'), url('/other').replace('127.0.0.1', 'localhost')]) {
      const { status, body } = await run(`setTimeout(() => (location.href = ${JSON.stringify(next)}), 50); new Promise(() => {})`, { timeout: 4 });
      expect([status, body.code], JSON.stringify(body)).toEqual([409, 'page_navigated']);
      await expect.poll(async () => (await run('document.readyState + seen[0] + location.href')).body.result, { timeout: 10_000 }).toBe(`completepage${next}`);
    }
  });

  test('another edge reaches the same page, also while the recording is paused; scripts take turns', async () => {
    await service.api(`/v1/recordings/${id}/pause`, { method: 'POST' });
    await service.waitFor(id, 'paused');
    const edges = [service.url, second.url];
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, i) => run('window.busy = (window.busy ?? 0) + 1; new Promise((go) => setTimeout(() => go(window.busy--), 20))', {}, edges[i % 2])),
    );
    expect(answers.map(({ body }) => body.result)).toEqual(Array.from({ length: 8 }, () => 1));
    await service.api(`/v1/recordings/${id}/resume`, { method: 'POST' });
    await service.waitFor(id, 'recording');
  });

  test('a stop ends what runs, and no script is taken after it; neither scripts nor results are in the logs', async () => {
    const running = run('window.secretScript = "secretResult"; new Promise(() => {})', { timeout: 20 });
    await expect.poll(async () => (await run('1', { timeout: 0.2 })).body.code).toBe('script_timeout');
    await service.stop(id);
    expect((await running).body).toMatchObject({ code: 'page_gone' });
    expect((await run('1')).body).toMatchObject({ code: 'illegal_state' });
    await service.waitFor(id, 'completed');
    const { status, body } = await run('1', {}, second.url);
    expect([status, body.code, body.detail]).toEqual([409, 'illegal_state', 'the recording is completed, and its page is closed']);
    expect([...service.lines, ...secondLines].filter((line) => /secretScript|secretResult/.test(line))).toEqual([]);
    expect(service.lines.filter((line) => line.includes('"command"')).length).toBeGreaterThan(20);
  });
});
