/** What each operation does to a recording wherever it is: the table of docs/recordings.md, cell by cell, against the real edge. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startFinaliser } from '../../edge/finishing.ts';
import { diskStorage } from '../../edge/storage/disk.ts';
import { partKey, partName } from '../../edge/storage/part-names.ts';
import { againJobOptions } from '../../shared/queue.ts';
import type { DesiredState, RecordingState } from '../../shared/recording.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { makeCmaf, type Cmaf } from './cmaf.ts';
import { eventually, testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis);
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const operations = ['stop', 'pause', 'resume', 'cancel', 'markers'] as const;
type Operation = (typeof operations)[number];
const situations = ['queued', 'starting', 'recording', 'paused', 'between two attempts', 'stopping', 'canceling', 'finishing', 'completed', 'failed', 'canceled'] as const;
type Situation = (typeof situations)[number];

/** Brings a new recording there, as worker and finaliser would. */
async function bring(to: Situation): Promise<{ id: string; attempt: number }> {
  const { store } = edge.control;
  const { id } = await edge.create();
  if (to === 'queued') return { id, attempt: 0 };
  const { attempt } = (await store.claim(id)) ?? { attempt: 0 };
  const change = (from: RecordingState, next: RecordingState) => store.change(id, { from: [from], to: next, attempt });
  if (to === 'starting') return { id, attempt };
  await store.change(id, { from: ['starting'], to: 'recording', attempt, engine: 'tab', startedAt: Date.now() - 5000 });
  if (to === 'paused') await store.change(id, { from: ['recording'], to: 'paused', attempt, desired: 'paused', pausedAt: Date.now() - 1000 });
  if (to === 'between two attempts') await store.release(id, attempt, 60_000, null);
  if (to === 'stopping') await store.change(id, { from: ['recording'], desired: 'stopped' });
  if (to === 'canceling') await store.change(id, { from: ['recording'], desired: 'canceled' });
  if (['finishing', 'completed', 'failed', 'canceled'].includes(to)) await change('recording', 'finishing');
  if (to === 'completed' || to === 'failed') await change('finishing', to);
  if (to === 'canceled') await store.change(id, { from: ['finishing'], to, attempt, desired: 'canceled' });
  return { id, attempt };
}

const call = (id: string, operation: Operation, by = edge) =>
  by.api(`/v1/recordings/${id}/${operation}`, {
    method: 'POST',
    ...(operation === 'markers' ? { body: JSON.stringify({ label: 'Questions' }), headers: { 'content-type': 'application/json' } } : {}),
  });

/** Rows of the table in docs/recordings.md: situation, then a cell for each operation. */
const table = new Map(
  (await readFile(new URL('../../docs/recordings.md', import.meta.url), 'utf8'))
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim().replaceAll('`', '')))
    .map(([situation = '', ...cells]) => [situation, cells]),
);

describe.each(situations)('a recording that is %s', (situation) => {
  test.each(operations)('%s', async (operation) => {
    const cell = table.get(situation)?.[operations.indexOf(operation)];
    const { id, attempt } = await bring(situation);
    const first = await call(id, operation);
    const record = await edge.control.store.get(id);
    const told = (state?: RecordingState, desired?: DesiredState) => `${state}, ${desired}`;
    if (first.status === 409) {
      expect(cell).toBe('409');
      expect(first.body).toMatchObject({ code: 'illegal_state', blame: 'caller', retryable: false, detail: expect.stringContaining(record?.state ?? 'never') });
    } else {
      expect(first).toMatchObject({ status: 200, body: { id, state: record?.state, desired: record?.desired } });
      expect(cell).toBe(told(record?.state, record?.desired));
    }
    // once more: the same answer, and nothing else has changed; a marker is another one
    const again = await call(id, operation);
    expect(again.status).toBe(first.status);
    if (operation !== 'markers') expect(await edge.control.store.get(id)).toEqual(record);
    else if (first.status === 200) expect(again.body.markers).toHaveLength(2);
    // it holds for the worker, which hears of it with its next beat
    if (situation === 'between two attempts') {
      const goesOn = record?.desired === 'recording' || record?.desired === 'paused';
      expect((await edge.control.store.claim(id)) !== null).toBe(goesOn);
    } else if (attempt > 0 && ['starting', 'recording', 'paused'].includes(record?.state ?? '')) {
      expect(await edge.control.store.beat(id, attempt, null)).toMatchObject({ desired: record?.desired });
    }
    const job = await edge.control.recordQueue.getJob(id);
    if (record?.state === 'canceled' && situation === 'queued') expect(job).toBeUndefined();
    if (record?.state === 'canceled' && situation === 'finishing') expect(await edge.control.finishQueue.getJob(`${id}-discard`)).toBeDefined();
  });
});

test('a paused recording begins paused', async () => {
  const { id } = await edge.create();
  await call(id, 'pause');
  const claim = await edge.control.store.claim(id);
  expect(await edge.control.store.beat(id, claim?.attempt ?? 0, null)).toMatchObject({ desired: 'paused' });
});

test('a marker is where the timeline is, which stands still in a pause', async () => {
  const { id } = await bring('paused');
  const { body } = await call(id, 'markers');
  expect(body.markers).toEqual([{ label: 'Questions', at: expect.closeTo(4, 1) }]);
});

test.each([
  [{}, ['label']],
  [{ label: '' }, ['label']],
  [{ label: 'x'.repeat(201) }, ['label']],
  [{ label: 'a\nb' }, ['label']],
  [{ label: 'a', at: 3 }, ['at']],
])('a marker of %j is refused by the field', async (body, paths) => {
  const { id } = await bring('recording');
  const answer = await edge.api(`/v1/recordings/${id}/markers`, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
  expect(answer.status).toBe(400);
  expect(answer.body.errors.map(({ path }: { path: string }) => path)).toEqual(paths);
});

test('a 501st marker is refused', async () => {
  const { id } = await bring('recording');
  for (let i = 1; i < 500; i += 1) await edge.control.store.mark(id, `slide ${i}`);
  const both = await Promise.all([call(id, 'markers'), call(id, 'markers')]);
  expect(new Set(both.map(({ status }) => status))).toEqual(new Set([200, 409]));
  expect(both.find(({ status }) => status === 409)?.body.code).toBe('too_many_markers');
  expect((await edge.get(id)).markers).toHaveLength(500);
});

test.each([
  ['completed', 'cancel', 'the recording is completed, and can\'t be canceled; what can be done: DELETE'],
  ['stopping', 'pause', 'the recording is recording, to be stopped, and can\'t be paused; what can be done: cancel, DELETE'],
  ['starting', 'markers', 'the recording is starting, and can\'t be marked before its first picture; what can be done: stop, pause, resume, cancel, DELETE'],
  ['finishing', 'resume', 'the recording is finishing, and can\'t be resumed; what can be done: cancel, DELETE'],
] as const)('the refusal of one that is %s, to %s, says what is and what can be done', async (situation, operation, detail) => {
  const { id } = await bring(situation);
  expect((await call(id, operation)).body).toMatchObject({ status: 409, detail });
});

describe('of the jobs of one that is not to run', () => {
  const keysOf = (id: string) => edge.control.redis.keys(`${edge.config.queuePrefix}:record:*${id}*`);
  const inSets = async (jobId: string) => {
    const { redis: client } = edge.control;
    const queue = (name: string) => `${edge.config.queuePrefix}:record:${name}`;
    const listed = (await client.lrange(queue('wait'), 0, -1)).includes(jobId);
    return listed || (await client.zscore(queue('delayed'), jobId)) !== null || (await client.zscore(queue('prioritized'), jobId)) !== null;
  };
  test.each([
    ['waiting', {}],
    ['delayed', { startAt: new Date(Date.now() + 3600_000).toISOString() }],
    ['prioritized', { priority: 5 }],
  ])('nothing is left: %s', async (_name, body) => {
    for (const end of ['stop', 'cancel', 'delete'] as const) {
      const { id } = await edge.create(body);
      expect(await inSets(id)).toBe(true);
      const path = `/v1/recordings/${id}${end === 'delete' ? '' : `/${end}`}`;
      expect((await edge.api(path, { method: end === 'delete' ? 'DELETE' : 'POST' })).status).toBeLessThan(300);
      expect(await inSets(id)).toBe(false);
      expect(await keysOf(id)).toEqual([]);
    }
  });

  test('nothing is left: of the next attempt, and of one whose first stop came to half of it', async () => {
    const { id, attempt } = await bring('between two attempts');
    await edge.control.recordQueue.remove(id);
    const record = await edge.control.store.get(id);
    await edge.control.recordQueue.add('record', record!.job, againJobOptions(id, attempt + 1));
    await call(id, 'stop');
    expect(await keysOf(id)).toEqual([]);
    const half = await edge.create();
    await edge.control.store.change(half.id, { from: ['queued'], to: 'canceled', desired: 'stopped' });
    expect(await keysOf(half.id)).not.toEqual([]);
    await call(half.id, 'stop');
    expect(await keysOf(half.id)).toEqual([]);
  });
});

describe('two edges at once', () => {
  let other: TestEdge;
  let cmaf: Cmaf;
  beforeAll(async () => {
    other = await testEdge(redis, { queuePrefix: edge.config.queuePrefix, storageUrl: edge.config.storageUrl });
    cmaf = await makeCmaf({ seconds: 1 });
  });
  afterAll(() => other[Symbol.asyncDispose]());
  const remove = (id: string, by = edge) => by.api(`/v1/recordings/${id}`, { method: 'DELETE' });
  const stored = async (id: string) => (await readdir(join(edge.directory, id), { recursive: true }).catch(() => [])).length;
  /** Recorded, and about to be finished. */
  const finishing = async () => {
    const { id } = await edge.create();
    const attempt = await edge.control.run(id);
    for (const { header, payload } of cmaf.parts) await diskStorage(edge.directory).put(partKey(id, partName(attempt, header)), payload);
    return id;
  };
  const finaliser = () => startFinaliser(edge.config, edge.log, { reconciler: { look: 100, steady: 200, round: 300, discard: 300 } });

  test.each(situations)('stop, pause, resume and cancel of one that is %s leave one wish, of which cancel is the strongest', async (situation) => {
    for (let i = 0; i < 5; i += 1) {
      const { id } = await bring(situation);
      const before = await edge.control.store.get(id);
      const wishes = (['pause', 'stop', 'resume', 'cancel', 'stop', 'pause'] as const).map((operation, n) => call(id, operation, n % 2 === 0 ? edge : other));
      for (const { status } of await Promise.all(wishes)) expect([200, 409]).toContain(status);
      const after = await edge.control.store.get(id);
      if (situation === 'completed' || situation === 'failed') expect(after).toEqual(before);
      else if (situation === 'queued') expect(after).toMatchObject({ state: 'canceled', desired: expect.stringMatching(/^(stopped|canceled)$/) });
      else expect(after?.desired).toBe('canceled');
    }
  });

  test.each(situations)('a delete of one that is %s holds, whatever else is asked for', async (situation) => {
    const { id } = await bring(situation);
    const asked = [call(id, 'cancel'), remove(id, other), call(id, 'stop'), remove(id), call(id, 'pause', other)];
    for (const { status } of await Promise.all(asked)) expect([200, 204, 404, 409]).toContain(status);
    expect((await edge.control.store.get(id))?.desired).toBe('deleted');
    expect((await edge.api(`/v1/recordings/${id}`)).status).toBe(404);
  });

  test('a claim at the same moment runs it, or finds that it is not to be run', async () => {
    for (let i = 0; i < 20; i += 1) {
      const { id } = await edge.create();
      const [claim, { body }] = await Promise.all([edge.control.store.claim(id), call(id, i % 2 === 0 ? 'stop' : 'cancel', other)]);
      const record = await edge.control.store.get(id);
      if (claim === null) expect(record).toMatchObject({ state: 'canceled', attempt: 0 });
      else expect(await edge.control.store.beat(id, claim.attempt, null)).toMatchObject({ state: 'starting', desired: i % 2 === 0 ? 'stopped' : 'canceled' });
      expect(body.desired).toBe(record?.desired);
    }
  });

  test('a cancel or a delete while it is finished leaves a file that is whole, or nothing', async () => {
    await using running = await finaliser();
    void running;
    const rounds = Array.from({ length: 16 }, async (_, i) => {
      const id = await finishing();
      await edge.control.finish(id);
      await sleep(Math.random() * 600);
      const { status } = await (i % 4 === 3 ? remove(id, other) : call(id, 'cancel', i % 2 === 0 ? edge : other));
      return { id, status };
    });
    const counts: Record<number, number> = {};
    for (const { id, status } of await Promise.all(rounds)) {
      counts[status] = (counts[status] ?? 0) + 1;
      if (status === 409) {
        expect(await edge.get(id)).toMatchObject({ state: 'completed', files: expect.arrayContaining([expect.objectContaining({ name: 'recording.mp4' })]) });
        expect((await edge.api(`/v1/recordings/${id}/recording.mp4`)).status).toBe(200);
        continue;
      }
      if (status === 200) {
        expect(await edge.get(id)).toMatchObject({ state: 'canceled', desired: 'canceled', files: [] });
        expect((await edge.api(`/v1/recordings/${id}/live.m3u8`)).status).toBe(410);
      }
      await eventually(() => stored(id), (count) => count === 0, 12_000);
    }
    console.log(`while finishing: ${JSON.stringify(counts)}`);
  });

  test('a cancel that came to half of it, with its edge, is carried out', async () => {
    const id = await finishing();
    await using running = await finaliser();
    void running;
    await edge.control.store.change(id, { from: ['recording'], to: 'finishing' });
    await edge.control.store.change(id, { from: ['finishing'], desired: 'canceled' });
    await eventually(() => edge.get(id), ({ state }) => state === 'canceled');
    await eventually(() => stored(id), (count) => count === 0);
  });
});

test('what does not exist is not found', async () => {
  for (const operation of operations) expect((await call('rec_00000000000000000000000000', operation)).status).toBe(404);
});
