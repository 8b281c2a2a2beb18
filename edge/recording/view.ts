/** A recording as the API answers it, from its record. */
import type { Context } from 'hono';
import { toHttpUrl, type ExternalOrigin } from '../../shared/origin.ts';
import { isEnd, type Recording, type RecordingState } from '../../shared/recording.ts';
import { statsOf, type PushStanding, type RecordingRecord } from '../../shared/recording-store.ts';
import { signToken } from '../../shared/token.ts';
import type { AppDeps, AppEnv } from '../app.ts';

/** Links work for a day: `<video>`, native HLS and EventSource can't send headers, so the link itself is the credential. */
const LINK_MS = 24 * 3600 * 1000;

const isoOrNull = (time: number | undefined): string | null => (time === undefined ? null : new Date(time).toISOString());

/** What links are signed with for this caller; null for one who may not see what they show. */
export const linkSecrets = ({ config }: AppDeps, c: Context<AppEnv>): readonly string[] | null => (c.get('caller').may('read') ? config.tokenSecrets : null);

/** `?token=...`, good for a day and for looking at this recording alone. @param now milliseconds since the epoch */
export const linkQuery = async (id: string, tokenSecrets: readonly string[], now: number): Promise<string> =>
  `?token=${await signToken(tokenSecrets, id, 'view', now + LINK_MS)}`;

/**
 * @param tokenSecrets null for links that carry no credential
 * @param now milliseconds since the epoch, from which the links' day counts
 */
export async function viewOf(record: RecordingRecord, origin: ExternalOrigin, tokenSecrets: readonly string[] | null, now: number): Promise<Recording> {
  const self = `${toHttpUrl(origin)}/v1/recordings/${record.id}`;
  const token = tokenSecrets === null ? '' : await linkQuery(record.id, tokenSecrets, now);
  return {
    ...detailsOf(record),
    links: {
      self,
      stop: `${self}/stop`,
      pause: `${self}/pause`,
      resume: `${self}/resume`,
      cancel: `${self}/cancel`,
      markers: `${self}/markers`,
      events: `${self}/events${token}`,
      live: `${self}/live.m3u8${token}`,
      file: `${self}/recording.mp4${token}`,
      thumbnail: `${self}/thumbnail.jpg${token}`,
    },
  };
}

/** All that needs no secret to be told. */
export function detailsOf(record: RecordingRecord): Omit<Recording, 'links'> {
  const { job } = record;
  return {
    id: record.id,
    state: record.state,
    desired: record.desired,
    url: job.spec.url,
    engine: record.engine ?? null,
    mediaUrl: job.mediaUrl,
    origin: record.origin,
    createdAt: new Date(record.createdAt).toISOString(),
    startAt: record.startAt ?? null,
    startedAt: isoOrNull(record.startedAt),
    endedAt: isoOrNull(record.endedAt),
    duration: record.duration ?? 0,
    width: job.spec.width,
    height: job.spec.height,
    frameRate: job.spec.frameRate,
    attempts: record.attempt,
    stats: statsOf(record),
    ...(record.error === undefined ? {} : { error: record.error }),
    warnings: record.warnings,
    push: pushesOf(record),
    markers: record.markers ?? [],
    pauses: record.pauses ?? [],
    verification: record.verification ?? null,
    files: record.files ?? [],
    metadata: record.metadata,
  };
}

function pushesOf({ job, state, pushes, stats }: RecordingRecord): Recording['push'] {
  return job.spec.push.map(({ type, url, streamId }, i) => ({
    type,
    url,
    streamId,
    ...standingIn(state, pushes[i] ?? { state: 'waiting' }),
    stats: stats?.push?.[i] ?? null,
  }));
}

/** Whoever pushed may have been lost before he said that it is over; the next attempt begins anew. */
function standingIn(state: RecordingState, known: PushStanding): PushStanding {
  if (state === 'queued' || state === 'starting') return { state: 'waiting' };
  if (known.state === 'failed' || !(state === 'finishing' || isEnd(state))) return known;
  return { ...known, state: 'ended' };
}
