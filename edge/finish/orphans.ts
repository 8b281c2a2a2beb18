/**
 * Finishes what nobody owns: parts of recordings that have no record, as where Redis lost its data. Their file and manifest are
 * made beside the parts, which stay; the API knows nothing of them.
 */
import type { Log } from '../../shared/log.ts';
import { recordingId } from '../../shared/recording.ts';
import { timeOf, type RecordingStore } from '../../shared/recording-store.ts';
import { partsPrefix } from '../storage/part-names.ts';
import type { Storage } from '../storage/storage.ts';
import { makeFiles } from './make.ts';
import { foundParts } from './plan.ts';

/** Nothing comes for so long: nobody is recording it. */
const QUIET_MS = 10 * 60_000;

/**
 * @returns how many were finished
 * @throws what Redis or a listing of the storage threw; what is wrong with one recording is logged, and the next one seen to
 */
export async function finishOrphans(
  { store, storage, log }: { store: RecordingStore; storage: Storage; log: Log },
  signal: AbortSignal,
  quiet = QUIET_MS,
): Promise<number> {
  let finished = 0;
  for (const id of await storage.folders()) {
    signal.throwIfAborted();
    if (!recordingId.safeParse(id).success || (await store.get(id)) !== null) continue;
    try {
      if (await finishOrphan(storage, id, signal, quiet)) {
        finished += 1;
        log.warn('a recording without a record was finished where it lies', { recording: id });
      }
    } catch (error) {
      if (signal.aborted) throw error;
      log.error('a recording without a record could not be finished', { recording: id, error });
    }
  }
  return finished;
}

async function finishOrphan(storage: Storage, id: string, signal: AbortSignal, quiet: number): Promise<boolean> {
  if ((await storage.stat(`${id}/manifest.json`)) !== null) return false;
  const parts = foundParts(await storage.list(partsPrefix(id)));
  const last = parts.at(-1);
  const stored = last && (await storage.stat(last.key));
  if (!stored || stored.modified.getTime() > Date.now() - quiet) return false;
  const about = { id, url: null, createdAt: timeOf(id), startedAt: null, markers: [], pauses: [] };
  return (await makeFiles(storage, parts, { ...about, warnings: ['Of this recording only the media were left'] }, signal)) !== null;
}
