/** What each operation does to a recording wherever it is: the table of docs/recordings.md, cell by cell, against the real edge. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DesiredState, RecordingState } from '../../shared/recording.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis.url);
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const operations = ['stop', 'pause', 'resume', 'cancel', 'markers'] as const;
type Operation = (typeof operations)[number];
const situations = ['queued', 'starting', 'recording', 'paused', 'stopping', 'canceling', 'finishing', 'completed', 'failed', 'canceled'] as const;
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
  if (to === 'stopping') await store.change(id, { from: ['recording'], desired: 'stopped' });
  if (to === 'canceling') await store.change(id, { from: ['recording'], desired: 'canceled' });
  if (['finishing', 'completed', 'failed', 'canceled'].includes(to)) await change('recording', 'finishing');
  if (to === 'completed' || to === 'failed' || to === 'canceled') await change('finishing', to);
  return { id, attempt };
}

const call = (id: string, operation: Operation) =>
  edge.api(`/v1/recordings/${id}/${operation}`, {
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
      expect(first).toMatchObject({ status: 200, body: { id, state: record?.state } });
      expect(cell).toBe(told(record?.state, record?.desired));
    }
    // once more: the same answer, and nothing else has changed; a marker is another one
    const again = await call(id, operation);
    expect(again.status).toBe(first.status);
    if (operation !== 'markers') expect(await edge.control.store.get(id)).toEqual(record);
    else if (first.status === 200) expect(again.body.markers).toHaveLength(2);
    // it holds for the worker, which hears of it with its next beat
    if (attempt > 0 && ['starting', 'recording', 'paused'].includes(record?.state ?? '')) {
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

test('stop, pause, resume and cancel at the same moment leave one wish, and a stop or cancel holds', async () => {
  for (let i = 0; i < 10; i += 1) {
    const { id } = await bring('recording');
    const answers = await Promise.all((['pause', 'stop', 'resume', 'pause', 'cancel'] as const).map((operation) => call(id, operation)));
    for (const { status } of answers) expect([200, 409]).toContain(status);
    expect((await edge.control.store.get(id))?.desired).toBe('canceled');
  }
});

test('what does not exist is not found', async () => {
  for (const operation of operations) expect((await call('rec_00000000000000000000000000', operation)).status).toBe(404);
});
