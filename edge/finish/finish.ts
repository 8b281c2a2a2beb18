/** The finaliser's three actions on a recording. Each may run twice, or again after dying half-way, to the same result. */
import { createHash } from 'node:crypto';
import { TabreelError } from '../../shared/errors.ts';
import { withoutQuery, type Log } from '../../shared/log.ts';
import { isEnd, type RecordingFile } from '../../shared/recording.ts';
import type { Change, RecordingRecord, RecordingStore } from '../../shared/recording-store.ts';
import { partKey, partsOf, partsPrefix, type StoredPart } from '../storage/part-names.ts';
import type { Storage } from '../storage/storage.ts';
import { joinSegments } from './join.ts';
import type { Manifest } from './manifest.ts';
import { planJoin } from './plan.ts';
import { verifyFile } from './verify.ts';

export type FinishDeps = { store: RecordingStore; storage: Storage; log: Log };

/** Removes all that is stored of the recording, and what is known of it. */
export async function removeRecording({ store, storage, log }: FinishDeps, id: string): Promise<void> {
  await storage.remove(`${id}/`);
  await store.remove(id);
  log.info('recording removed', { recording: id });
}

/** Removes the parts, which the finished file has made superfluous. */
export async function sweepParts({ store, storage, log }: FinishDeps, id: string): Promise<void> {
  const record = await store.get(id);
  if (record === null) return storage.remove(`${id}/`);
  // without a file the parts are all there is
  if (!isEnd(record.state) || !record.files?.some(({ name }) => name === 'recording.mp4')) return;
  await storage.remove(partsPrefix(id));
  log.info('parts swept', { recording: id });
}

/**
 * Makes the file, its picture and its manifest of what is stored, and ends the recording.
 *
 * @param signal breaks off; the recording stays in `finishing`, to be finished by another run
 * @returns whether there are parts to sweep later
 * @throws what storage, Redis or the muxer threw: worth trying again; the signal's reason
 */
export async function finishRecording(deps: FinishDeps, id: string, signal: AbortSignal): Promise<boolean> {
  const { store, storage } = deps;
  const log = deps.log.with({ recording: id });
  const record = await store.get(id);
  if (record === null || record.desired === 'deleted') return false;
  if (isEnd(record.state)) return record.files !== undefined;
  if (record.state !== 'finishing') throw new Error(`the recording is ${record.state}, not finishing`);

  const parts = partsOf((await storage.list(partsPrefix(id))).map(({ key }) => key));
  const begin = performance.now();
  const plan = await planJoin(storage, id, parts, signal);
  if (plan === null) {
    await end(nothingRecorded(record));
    log.info('recording ended without media');
    return false;
  }
  for (const [i, warning] of plan.warnings.entries()) await store.warn(id, `finish-${i}`, warning);

  const key = `${id}/recording.mp4`;
  await joinSegments(storage, id, plan, key, signal);
  const verified = await verifyFile(storage, key, plan);
  const duration = Math.round(verified.duration * 1e6) / 1e6;
  const files = [await describeFile(storage, id, 'recording.mp4', 'video/mp4')];
  if (await copyThumbnail(storage, id, parts)) files.push(await describeFile(storage, id, 'thumbnail.jpg', 'image/jpeg'));
  const manifest: Manifest = {
    version: 1,
    id,
    url: withoutQuery(record.job.spec.url),
    createdAt: new Date(record.createdAt).toISOString(),
    startedAt: record.startedAt === undefined ? null : new Date(record.startedAt).toISOString(),
    duration,
    width: verified.width,
    height: verified.height,
    frames: plan.video.packets,
    video: plan.video.config.codec,
    audio: plan.audio?.config.codec ?? null,
    segments: plan.sections.reduce((sum, { segments }) => sum + segments.length, 0),
    attempts: plan.attempts,
    warnings: [...record.warnings, ...plan.warnings],
    files: [...files],
  };
  await storage.put(`${id}/manifest.json`, new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`));
  files.push(await describeFile(storage, id, 'manifest.json', 'application/json'));
  await end({ to: record.error === undefined ? 'completed' : 'failed', files, duration });
  log.info('recording finished', {
    duration,
    bytes: verified.bytes,
    segments: manifest.segments,
    attempts: plan.attempts.length,
    took: Math.round(performance.now() - begin) / 1000,
  });
  return true;

  async function end(change: Omit<Change, 'from'>): Promise<void> {
    const { outcome, state, desired } = await store.change(id, { from: ['finishing'], ...change });
    // deleted while it was finished: the removal that was queued may have run before the files were written
    if (outcome === 'missing') await storage.remove(`${id}/`);
    else if (outcome !== 'changed') log.warn('the recording left finishing by other means', { state, desired });
  }
}

/** The last try failed: what is stored stays, so that it can be finished by hand. */
export async function giveUp({ store, log }: FinishDeps, id: string, cause: unknown): Promise<void> {
  const error = new TabreelError('finish_failed', cause instanceof Error ? cause.message : String(cause)).toRecordingError();
  const record = await store.get(id);
  await store.change(id, { from: ['finishing'], to: 'failed', error: record?.error ?? error });
  log.error('the recording could not be finished', { recording: id, error: cause });
}

/** Nothing was stored: as wanted where the caller stopped it before its first frame. */
function nothingRecorded(record: RecordingRecord): Omit<Change, 'from'> {
  if (record.error !== undefined) return { to: 'failed' };
  if (record.desired === 'stopped') return { to: 'canceled' };
  return { to: 'failed', error: new TabreelError('nothing_recorded', 'the recording ended before any media was stored').toRecordingError() };
}

async function copyThumbnail(storage: Storage, id: string, parts: readonly StoredPart[]): Promise<boolean> {
  const part = parts.findLast(({ type }) => type === 'thumbnail');
  const bytes = part === undefined ? null : await storage.get(partKey(id, part.name));
  if (bytes === null) return false;
  await storage.put(`${id}/thumbnail.jpg`, bytes);
  return true;
}

async function describeFile(storage: Storage, id: string, name: string, type: string): Promise<RecordingFile> {
  const stream = await storage.stream(`${id}/${name}`);
  if (stream === null) throw new Error(`${name} is not in the storage any more`);
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of stream) {
    hash.update(chunk);
    bytes += chunk.length;
  }
  return { name, type, bytes, sha256: hash.digest('hex') };
}
