/** Scripts for a page, between the edges and whoever has the page: taken once, by the newest attempt, or taken back. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { testEdge, type TestEdge } from './harness.ts';
import { stubWorker, type StubWorker } from './stub-worker.ts';

let redis: TestRedis;
let edge: TestEdge;
let worker: StubWorker;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis);
  worker = await stubWorker(edge, {
    standing: ({ metadata }) => (metadata['wait'] === undefined ? { state: 'live' } : null),
    answer({ script }) {
      if (script === 'silence') return null;
      return script === 'throw' ? { error: { code: 'script_threw', message: 'Error: no (line 1)' } } : { result: script };
    },
  });
});
afterAll(async () => {
  await worker[Symbol.asyncDispose]();
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const run = (id: string, body: unknown, at = edge) =>
  at.api(`/v1/recordings/${id}/commands`, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
const live = async (): Promise<string> => {
  const { id } = await edge.create();
  await expect.poll(async () => (await edge.get(id)).state, { timeout: 20_000 }).toBe('recording');
  return id;
};

describe('a script', () => {
  test('goes to the worker once, and its answer comes back to whichever edge asked', async () => {
    const id = await live();
    await using second = await testEdge(redis, { queuePrefix: edge.config.queuePrefix });
    const scripts = Array.from({ length: 12 }, (_, i) => `script ${i}`);
    const answers = await Promise.all(scripts.map((script, i) => run(id, { script, timeout: 5 }, i % 2 === 0 ? edge : second)));
    expect(answers.map(({ status, body }) => [status, body])).toEqual(scripts.map((script) => [200, { result: script }]));
    expect(worker.commands.map(({ script }) => script).filter((script) => script.startsWith('script ')).sort()).toEqual([...scripts].sort());
    expect(worker.commands.at(-1)).toMatchObject({ isBody: false, timeout: 5 });
    // nothing of it stays in Redis
    expect(await edge.control.redis.keys(`${edge.config.queuePrefix}:cmd*`)).toEqual([]);
    expect([...edge.logs, ...second.logs].filter((line) => line.includes('script 3'))).toEqual([]);
  });

  test('what it throws is a problem with its code', async () => {
    const { status, body } = await run(await live(), { script: 'throw' });
    expect([status, body.code, body.blame, body.detail]).toEqual([422, 'script_threw', 'caller', 'Error: no (line 1)']);
  });

  test('that nobody takes is taken back, and never run', async () => {
    const { id } = await edge.create({ metadata: { wait: '1' } });
    // nobody hears for this one
    await edge.control.run(id);
    const { status, body } = await run(id, { script: 'late' });
    expect([status, body.code, body.retryable]).toEqual([503, 'command_not_taken', true]);
    expect(await edge.control.redis.keys(`${edge.config.queuePrefix}:cmd*`)).toEqual([]);
    expect(worker.commands.map(({ script }) => script)).not.toContain('late');
  });

  test('that was taken and not answered may have been run', async () => {
    const { status, body } = await run(await live(), { script: 'silence', timeout: 0.1 });
    expect([status, body.code, body.retryable]).toEqual([504, 'command_lost', false]);
  });

  test('is for the newest attempt alone, and once', async () => {
    const id = await live();
    const { commands } = edge.control;
    const attempt = worker.attempts.get(id) ?? 0;
    // another prefix's announcement: the stub takes nothing of this
    await edge.control.redis.set(`${edge.config.queuePrefix}:cmd:x`, JSON.stringify({ script: '1', isBody: false, timeout: 1 }));
    expect(await commands.take(id, attempt - 1, 'x')).toBeNull();
    expect(await commands.take(id, attempt + 1, 'x')).toBeNull();
    expect(await commands.take(id, attempt, 'x')).toEqual({ script: '1', isBody: false, timeout: 1 });
    expect(await commands.take(id, attempt, 'x')).toBeNull();
    expect(await commands.withdraw('x')).toBe(false);
  });
});

describe('is refused', () => {
  test.each([
    [{}, 'script'],
    [{ script: '' }, 'script'],
    [{ script: 1 }, 'script'],
    [{ script: 'ü'.repeat(32 * 1024 + 1) }, 'script'],
    [{ script: '1', timeout: 0 }, 'timeout'],
    [{ script: '1', timeout: 61 }, 'timeout'],
    [{ script: '1', engine: 'x' }, 'engine'],
  ])('a body that is not valid, at its field', async (body, path) => {
    const answer = await run((await edge.create({ metadata: { wait: '1' } })).id, body);
    expect([answer.status, answer.body.errors.map((each: { path: string }) => each.path)]).toEqual([400, [path]]);
  });

  test('where the page is not open, by what the recording is', async () => {
    const { id } = await edge.create({ metadata: { wait: '1' } });
    const outcome = async () => {
      const { status, body } = await run(id, { script: '1' });
      return [status, body.code, body.retryable, body.detail];
    };
    expect(await outcome()).toEqual([409, 'page_not_open', true, expect.stringContaining('queued')]);
    const attempt = await edge.control.run(id);
    await edge.control.store.release(id, attempt, 60_000, null);
    expect(await outcome()).toEqual([409, 'page_not_open', true, expect.stringContaining('between two attempts')]);
    await edge.control.store.change(id, { from: ['starting'], desired: 'canceled' });
    expect(await outcome()).toEqual([409, 'illegal_state', false, 'the recording is starting, to be canceled, and its page is closed']);
    await edge.control.store.change(id, { from: ['starting'], to: 'failed' });
    expect(await outcome()).toEqual([409, 'illegal_state', false, 'the recording is failed, and its page is closed']);
    expect((await run('rec_00000000000000000000000000', { script: '1' })).status).toBe(404);
  });
});
