/** The finaliser's actions on a recording. Each may run twice, or again after dying half-way, to the same result. */
import { createHash } from 'node:crypto';
import { TabreelError } from '../../shared/errors.ts';
import { withoutQuery, type Log } from '../../shared/log.ts';
import { isEnd } from '../../shared/recording.ts';
import type { Change, RecordingRecord, RecordingStore } from '../../shared/recording-store.ts';
import { partsPrefix } from '../storage/part-names.ts';
import { seal } from '../storage/seal.ts';
import type { Storage } from '../storage/storage.ts';
import { makeFiles } from './make.ts';
import { foundParts, type FoundPart } from './plan.ts';
import { VerificationFailed } from './verify.ts';

export type FinishDeps = { store: RecordingStore; storage: Storage; log: Log };

/**
 * @property outcome `gone` where it isn't wanted any more; after the others something may have to be swept
 * @property seen what was stored when it was looked at: where more may come, it is to be looked at again, and to be the same
 */
export type Finished = { outcome: 'file' | 'nothing' | 'gone' } | { outcome: 'wait'; seen: string };

/** Joins before the seal, where each time more was stored meanwhile: what an attempt that was given up still delivers is let in. */
const JOINS = 5;

/** Removes all that is stored of the recording, and what is known of it. */
export async function removeRecording({ store, storage, log }: FinishDeps, id: string): Promise<void> {
  await storage.remove(`${id}/`);
  await store.remove(id);
  log.info('recording removed', { recording: id });
}

/**
 * Removes all that is stored of a recording that was canceled.
 * @throws where it isn't canceled yet: its worker may still be at work
 */
export async function discardRecording({ store, storage, log }: FinishDeps, id: string): Promise<void> {
  const record = await store.get(id);
  if (record !== null && record.state !== 'canceled') throw new Error(`the recording is ${record.state}, not canceled`);
  await storage.remove(`${id}/`);
  log.info('media of a canceled recording removed', { recording: id });
}

/** Removes the parts, all of which are in the finished file; where there is no file because nothing was recorded, also the seal. */
export async function sweepParts({ store, storage, log }: FinishDeps, id: string): Promise<void> {
  const record = await store.get(id);
  if (record === null || (isEnd(record.state) && (await hasNothing(storage, record)))) return storage.remove(`${id}/`);
  // without a file that is as it should be the parts are all there is
  if (!isEnd(record.state) || record.verification?.ok !== true) return;
  // what came behind the seal was never acknowledged
  await storage.remove(partsPrefix(id));
  log.info('parts swept', { recording: id });
}

const hasNothing = async (storage: Storage, { id, files }: RecordingRecord): Promise<boolean> =>
  files === undefined && !hasSegments(await list(storage, id));
const hasSegments = (parts: readonly FoundPart[]): boolean => parts.some(({ type }) => type === 'segment');

const list = async (storage: Storage, id: string): Promise<FoundPart[]> => foundParts(await storage.list(partsPrefix(id)));
const fingerprint = (parts: readonly FoundPart[]): string =>
  createHash('sha256').update(parts.map(({ name }) => name).join('\n')).digest('base64url');

/**
 * Makes the file, its picture and its manifest of what is stored, and ends the recording.
 *
 * @param seen of an earlier look that said to wait; null at the first
 * @param signal breaks off; the recording stays in `finishing`, to be finished by another run
 * @throws what storage or Redis threw, what can't be read, VerificationFailed: worth trying again; the signal's reason
 */
export async function finishRecording(deps: FinishDeps, id: string, signal: AbortSignal, seen: string | null = null): Promise<Finished> {
  const { store, storage } = deps;
  const log = deps.log.with({ recording: id });
  const record = await store.get(id);
  if (record === null) return { outcome: 'gone' };
  if (isUnwanted(record)) {
    // also what an earlier run has made that was killed
    await storage.remove(`${id}/`);
    return { outcome: 'gone' };
  }
  if (isEnd(record.state)) return { outcome: record.files === undefined ? 'nothing' : 'file' };
  if (record.state !== 'finishing') throw new Error(`the recording is ${record.state}, not finishing`);

  if (!record.job.spec.record) {
    await end(record.startedAt === undefined ? nothingRecorded(record) : { to: record.error === undefined ? 'completed' : 'failed' });
    log.info('recording that was only pushed ended');
    return { outcome: 'nothing' };
  }
  let parts = await list(storage, id);
  if (mayGrow(record, parts) && fingerprint(parts) !== seen) return { outcome: 'wait', seen: fingerprint(parts) };
  const begin = performance.now();
  const about = {
    id,
    url: withoutQuery(record.job.spec.url),
    createdAt: record.createdAt,
    startedAt: record.startedAt ?? null,
    markers: record.markers ?? [],
    pauses: record.pauses ?? [],
    warnings: record.warnings,
  };
  let made = await makeFiles(storage, parts, about, signal);
  // what an attempt that was given up delivered while it was joined belongs into the file as well
  for (let joins = 1; joins < JOINS; joins += 1) {
    const now = await list(storage, id);
    if (fingerprint(now) === fingerprint(parts)) break;
    log.info('more was stored meanwhile: it is joined again', { before: parts.length, now: now.length });
    parts = now;
    made = await makeFiles(storage, parts, about, signal);
  }
  await seal(storage, id);
  const all = await list(storage, id);
  if (fingerprint(all) !== fingerprint(parts)) {
    parts = all;
    made = await makeFiles(storage, parts, about, signal);
  }
  if (made === null) {
    if (!hasSegments(parts)) await storage.remove(partsPrefix(id));
    await end(nothingRecorded(record));
    log.info('recording ended without media');
    return { outcome: 'nothing' };
  }
  const { files, startedAt } = made;
  const { duration, verification, markers, pauses, trimmed, shifts, gaps, segments, attempts } = made.manifest;
  await end({
    to: record.error === undefined ? 'completed' : 'failed',
    files,
    duration,
    verification,
    ...(record.markers === undefined ? {} : { markers }),
    ...(record.pauses === undefined ? {} : { pauses }),
    ...(startedAt === null ? {} : { startedAt }),
  });
  log.info('recording finished', {
    duration,
    bytes: files[0]?.bytes,
    segments,
    attempts: attempts.length,
    gaps: gaps.length,
    trimmed,
    shifts,
    took: Math.round(performance.now() - begin) / 1000,
  });
  return { outcome: 'file' };

  async function end(change: Omit<Change, 'from'>): Promise<void> {
    const { outcome, state, desired } = await store.change(id, { from: ['finishing'], wanted: keeping, ...change });
    // deleted while it was finished: the removal that was queued may have run before the files were written
    if (outcome === 'missing' || desired === 'deleted' || desired === 'canceled') await storage.remove(`${id}/`);
    else if (outcome !== 'changed') log.warn('the recording left finishing by other means', { state, desired });
  }
}

/** What is wanted of a recording that is kept. */
const keeping = ['recording', 'paused', 'stopped'] as const;
const isUnwanted = ({ desired }: RecordingRecord): boolean => desired === 'deleted' || desired === 'canceled';

/**
 * Whether more may come: nobody has said that the newest attempt has ended, as where its worker died and the process that
 * records didn't. Attempts before it are not let in any more.
 */
function mayGrow(record: RecordingRecord, parts: readonly FoundPart[]): boolean {
  if (record.released === record.attempt || (record.startedAt === undefined && parts.length === 0)) return false;
  return !parts.some(({ type, attempt }) => type === 'end' && attempt >= record.attempt);
}

/** The last try failed: what is stored stays, and so does a file that is not as it should be. */
export async function giveUp({ store, log }: FinishDeps, id: string, cause: unknown): Promise<void> {
  const error = new TabreelError('finish_failed', cause instanceof Error ? cause.message : String(cause)).toRecordingError();
  const record = await store.get(id);
  const found = cause instanceof VerificationFailed ? { verification: cause.verification, files: cause.files } : {};
  await store.change(id, { from: ['finishing'], wanted: keeping, to: 'failed', error: record?.error ?? error, ...found });
  log.error('the recording could not be finished', { recording: id, error: cause });
}

/** Nothing was stored: as wanted where the caller stopped it before its first frame. */
function nothingRecorded(record: RecordingRecord): Omit<Change, 'from'> {
  if (record.error !== undefined) return { to: 'failed' };
  if (record.desired === 'stopped') return { to: 'canceled' };
  return { to: 'failed', error: new TabreelError('nothing_recorded', 'the recording ended before any media was stored').toRecordingError() };
}
