/** Reading, stopping and deleting recordings. */
import type { Context } from 'hono';
import { z } from 'zod';
import { TabreelError } from '../../shared/errors.ts';
import { newFinishJob } from '../../shared/job.ts';
import { againJobOptions, finishJobOptions } from '../../shared/queue.ts';
import { isEnd, MARKERS_AT_MOST, markerRequest, recordingId, recordingStates } from '../../shared/recording.ts';
import type { RecordingRecord } from '../../shared/recording-store.ts';
import type { AppDeps, AppEnv } from '../app.ts';
import { readBody } from './body.ts';
import { linkSecrets, viewOf } from './view.ts';

/** A worker that runs a deleted recording learns of it within a beat; its files are removed once it surely has. */
const REMOVE_DELAY_MS = 10_000;

export const listQuery = z.object({
  state: z.enum(recordingStates).optional(),
  limit: z.coerce.number().int().min(1).max(100).default(20),
  cursor: recordingId.optional(),
});

/**
 * The recording that a request names.
 * @throws {TabreelError} recording_not_found, also for a deleted one that is not yet gone, and for one of somebody else's
 */
export async function findRecord({ store }: AppDeps, c: Context<AppEnv>, id = c.req.param('id') ?? ''): Promise<RecordingRecord> {
  const record = recordingId.safeParse(id).success ? await store.get(id, c.get('caller').sees) : null;
  if (record === null || record.desired === 'deleted') throw new TabreelError('recording_not_found', `there is no recording ${id}`);
  return record;
}

export const listRecordings = (deps: AppDeps) => async (c: Context<AppEnv>): Promise<Response> => {
  const query = listQuery.safeParse(c.req.query());
  if (!query.success) {
    const issues = query.error.issues.map(({ path, message }) => ({ path: path.join('.'), message }));
    throw new TabreelError('invalid_request', issues.map(({ path, message }) => `${path}: ${message}`).join('; '), { issues });
  }
  const { state, limit } = query.data;
  const items: RecordingRecord[] = [];
  let cursor: string | null | undefined = query.data.cursor;
  do {
    const page = await deps.store.list({
      limit: limit - items.length,
      of: c.get('caller').sees,
      ...(state === undefined ? {} : { state }),
      ...(cursor === undefined || cursor === null ? {} : { cursor }),
    });
    items.push(...page.items.filter(({ desired }) => desired !== 'deleted'));
    cursor = page.cursor;
  } while (cursor !== null && items.length < limit);
  const origin = c.get('origin')();
  const now = deps.now();
  const recordings = await Promise.all(items.map((record) => viewOf(record, origin, linkSecrets(deps, c), now)));
  return c.json({ recordings, cursor }, 200, { 'Cache-Control': 'no-store' });
};

async function answer(deps: AppDeps, c: Context<AppEnv>, id: string): Promise<Response> {
  const record = await findRecord(deps, c, id);
  const view = await viewOf(record, c.get('origin')(), linkSecrets(deps, c), deps.now());
  return c.json(view, 200, { 'Cache-Control': 'no-store' });
}

export const getRecording = (deps: AppDeps) => (c: Context<AppEnv>) => answer(deps, c, c.req.param('id') ?? '');

/** States in which an attempt runs, or the next one is awaited. */
const running = ['starting', 'recording', 'paused'] as const;
/** What is wanted of a recording that is to go on. */
const going = ['recording', 'paused'] as const;

/** Idempotent: a recording that is over, or about to be, stays as it is. */
export const stopRecording = (deps: AppDeps) => async (c: Context<AppEnv>): Promise<Response> => {
  const before = await findRecord(deps, c);
  await stop(deps, before);
  return answer(deps, c, before.id);
};

export async function stop(deps: AppDeps, before: RecordingRecord): Promise<void> {
  const { store, log } = deps;
  if (await cancelQueued(deps, before.id, 'stopped')) return;
  const stopped = await store.change(before.id, { from: running, wanted: going, desired: 'stopped' });
  if (stopped.outcome === 'changed') log.info('recording is to stop', { recording: before.id });
  await dropNextJob(deps, before);
}

/** Ends it without a file: what is stored of it is discarded. Idempotent; a recording that has come to another end keeps its file. */
export const cancelRecording = (deps: AppDeps) => async (c: Context<AppEnv>): Promise<Response> => {
  const before = await findRecord(deps, c);
  await cancel(deps, before);
  const record = await findRecord(deps, c, before.id);
  if (record.state === 'completed' || record.state === 'failed') throw illegal(record, 'canceled');
  return answer(deps, c, before.id);
};

export async function cancel(deps: AppDeps, before: RecordingRecord): Promise<void> {
  const { store, finishQueue, log } = deps;
  const { id } = before;
  if (!(await cancelQueued(deps, id, 'canceled'))) {
    const canceled = await store.change(id, { from: [...running, 'finishing'], wanted: [...going, 'stopped', 'canceled'], desired: 'canceled' });
    if (canceled.outcome === 'changed') log.info('recording is to be canceled', { recording: id });
    await dropNextJob(deps, before);
    if (canceled.state === 'finishing' && canceled.desired === 'canceled') {
      // no worker has it. Where this edge dies before the end, the reconciler finds what is wanted; the job waits for the state
      await finishQueue.add('discard', newFinishJob(id, 'discard'), finishJobOptions(id, 'discard', REMOVE_DELAY_MS));
      await store.change(id, { from: ['finishing'], wanted: ['canceled'], to: 'canceled' });
    }
  }
}

/** Both idempotent, and good from the moment the recording is created: a paused one opens its page and waits. */
export const pauseRecording = (deps: AppDeps) => (c: Context<AppEnv>) => wish(deps, c, 'paused');
export const resumeRecording = (deps: AppDeps) => (c: Context<AppEnv>) => wish(deps, c, 'recording');

async function wish(deps: AppDeps, c: Context<AppEnv>, desired: 'paused' | 'recording'): Promise<Response> {
  const { store, log } = deps;
  const before = await findRecord(deps, c);
  const verb = desired === 'paused' ? 'paused' : 'resumed';
  const { outcome } = await store.change(before.id, { from: ['queued', ...running], wanted: going, desired });
  if (outcome !== 'changed') throw illegal(await findRecord(deps, c, before.id), verb);
  if (before.desired !== desired) log.info(`recording is to be ${verb}`, { recording: before.id });
  return answer(deps, c, before.id);
}

/** Names the present moment of the recording's timeline. Each call is another marker. */
export const markRecording = (deps: AppDeps) => async (c: Context<AppEnv>): Promise<Response> => {
  const { id } = await findRecord(deps, c);
  const { label } = await readBody(c, markerRequest);
  const { outcome } = await deps.store.mark(id, label);
  if (outcome === 'full') throw new TabreelError('too_many_markers', `a recording has ${MARKERS_AT_MOST} markers at most`);
  if (outcome !== 'changed') throw illegal(await findRecord(deps, c, id), 'marked');
  return answer(deps, c, id);
};

function illegal({ state, desired, startedAt }: RecordingRecord, verb: 'paused' | 'resumed' | 'canceled' | 'marked'): TabreelError {
  const ends = isEnd(state);
  const goes = state !== 'finishing' && !ends && (desired === 'recording' || desired === 'paused');
  const possible = [
    ...(goes ? ['stop', 'pause', 'resume'] : []),
    ...(!ends && desired !== 'canceled' ? ['cancel'] : []),
    ...(goes && state !== 'queued' && startedAt !== undefined ? ['markers'] : []),
    'DELETE',
  ];
  const coming = !goes && !ends && (desired === 'stopped' || desired === 'canceled') ? `, to be ${desired}` : '';
  const why = verb === 'marked' && goes && startedAt === undefined ? ' before its first picture' : '';
  return new TabreelError('illegal_state', `the recording is ${state}${coming}, and can't be ${verb}${why}; what can be done: ${possible.join(', ')}`);
}

/** @returns whether it is canceled now that was queued */
async function cancelQueued(deps: AppDeps, id: string, desired: 'stopped' | 'canceled'): Promise<boolean> {
  const { outcome, state } = await deps.store.change(id, { from: ['queued'], wanted: going, to: 'canceled', desired });
  if (state !== 'canceled') return false;
  if (outcome === 'changed') deps.log.info('recording canceled', { recording: id });
  // also of one that was canceled before: it may not have come to this then
  await dropJob(deps, id, id);
  return true;
}

export const deleteRecording = (deps: AppDeps) => async (c: Context<AppEnv>): Promise<Response> => {
  const { store, finishQueue, log } = deps;
  const id = c.req.param('id') ?? '';
  const known = recordingId.safeParse(id).success ? await store.get(id, c.get('caller').sees) : null;
  if (known === null) return answer(deps, c, id);
  const { state } = await store.change(id, { from: recordingStates, desired: 'deleted' });
  if (state === 'queued') {
    await store.change(id, { from: ['queued'], to: 'canceled' });
    await dropJob(deps, id, id);
  }
  await dropNextJob(deps, known);
  deps.media?.end(id, 'over', 'the recording was deleted');
  const idle = state === null || state === 'queued' || isEnd(state);
  await finishQueue.add('remove', newFinishJob(id, 'remove'), finishJobOptions(id, 'remove', idle ? 0 : REMOVE_DELAY_MS));
  deps.media?.live.forget(id);
  // all the above also for one that was deleted before: the job may not have got into the queue then
  if (known.desired === 'deleted') return answer(deps, c, id);
  log.info('recording deleted', { recording: id, state });
  return c.body(null, 204);
};

/** Of a recording that is between two attempts: a worker with a free slot may be long in coming. */
const dropNextJob = async (deps: AppDeps, { id, attempt, released }: RecordingRecord): Promise<void> => {
  if (released !== undefined) await dropJob(deps, id, againJobOptions(id, attempt + 1).jobId as string);
};

/** Best effort: a worker that takes the job finds that the recording isn't to be run. */
async function dropJob({ recordQueue, log }: AppDeps, id: string, jobId: string): Promise<void> {
  await recordQueue.remove(jobId).catch((error: unknown) => log.warn('the job could not be removed', { recording: id, error }));
}
