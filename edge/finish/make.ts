/** Makes a recording's files of its stored parts: recording.mp4, thumbnail.jpg, manifest.json. */
import type { Marker, Pause, RecordingFile } from '../../shared/recording.ts';
import { assertFits, type Storage } from '../storage/storage.ts';
import { chaptersOf } from './chapters.ts';
import { codecOf } from './codec.ts';
import { joinSegments } from './join.ts';
import type { Manifest } from './manifest.ts';
import { planJoin, type FoundPart, type Plan } from './plan.ts';
import { describe, VerificationFailed, verifyFile } from './verify.ts';

/** What is known of the recording beside its parts. Times are seconds of its timeline. */
export type About = {
  id: string;
  url: string | null;
  /** Milliseconds since the epoch. */
  createdAt: number;
  startedAt: number | null;
  markers: readonly Marker[];
  pauses: readonly Pause[];
  warnings: readonly string[];
};

export type Made = { manifest: Manifest; files: RecordingFile[]; startedAt: number | null };

/**
 * The same parts give the same bytes, however often.
 *
 * @returns null where no segment is stored that could be played
 * @throws {VerificationFailed}; what can't be read, or what the storage threw; the signal's reason
 */
export async function makeFiles(storage: Storage, parts: readonly FoundPart[], about: About, signal: AbortSignal): Promise<Made | null> {
  const { id } = about;
  const plan = await planJoin(storage, parts, signal);
  if (plan === null) return null;
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
  await assertFits(storage, bytes);
  const { startedAt, pauses, markers } = place(about, plan);
  const chapters = chaptersOf(markers, plan.duration * 1000);
  const key = `${id}/recording.mp4`;
  const joined = await joinSegments(storage, plan, { key, chapters, created: Math.floor(about.createdAt / 1000), signal });
  const files: RecordingFile[] = [{ name: 'recording.mp4', type: 'video/mp4', ...joined }];
  if (await copyThumbnail(storage, id, parts)) files.push({ name: 'thumbnail.jpg', type: 'image/jpeg', ...(await describe(storage, `${id}/thumbnail.jpg`)) });
  const { ok, checks } = await verifyFile(storage, key, plan, joined);
  if (!ok) throw new VerificationFailed({ ok, checks }, files);

  const { video, audio } = plan;
  const manifest: Manifest = {
    version: 1,
    id,
    url: about.url,
    createdAt: new Date(about.createdAt).toISOString(),
    startedAt: startedAt === null ? null : new Date(startedAt).toISOString(),
    duration: round(plan.duration),
    width: video.width,
    height: video.height,
    frames: video.sizes.length,
    video: video.entries.map(codecOf).join(', '),
    audio: audio && audio.entries.map(codecOf).join(', '),
    segments: plan.segments.size,
    attempts: plan.attempts,
    gaps: plan.gaps,
    pauses,
    markers,
    trimmed: round(plan.trimmed),
    shifts: plan.shifts,
    silence: round(plan.silence),
    parts: { count: parts.length, bytes },
    verification: { ok, checks },
    warnings: [...about.warnings],
    files: [...files],
  };
  const name = 'manifest.json';
  await storage.put(`${id}/${name}`, new TextEncoder().encode(`${JSON.stringify(manifest, null, 2)}\n`));
  return { manifest, files: [...files, { name, type: 'application/json', ...(await describe(storage, `${id}/${name}`)) }], startedAt };
}

/** What was told of the recording's timeline, as it is in the file: what lies before its first picture is no part of it. */
function place({ startedAt, markers, pauses }: About, plan: Plan): { startedAt: number | null; markers: Marker[]; pauses: Pause[] } {
  const before = pauses.filter(({ at }) => plan.trimmed > 0 && at <= plan.trimmed);
  const cut = before.reduce((sum, { duration }) => sum + duration, 0);
  return {
    startedAt: startedAt === null ? null : Math.round(startedAt + (plan.trimmed + cut) * 1000),
    markers: markers.map(({ label, at }) => ({ label, at: round(plan.place(at)) })),
    pauses: pauses.filter((pause) => !before.includes(pause)).map(({ at, duration }) => ({ at: round(plan.place(at)), duration })),
  };
}

const round = (value: number): number => Math.round(value * 1e6) / 1e6;

async function copyThumbnail(storage: Storage, id: string, parts: readonly FoundPart[]): Promise<boolean> {
  const part = parts.findLast(({ type }) => type === 'thumbnail');
  const bytes = part === undefined ? null : await storage.get(part.key);
  if (bytes === null) return false;
  await storage.put(`${id}/thumbnail.jpg`, bytes);
  return true;
}
