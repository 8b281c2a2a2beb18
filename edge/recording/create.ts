/** `POST /v1/recordings`: request to recording to job. */
import type { Context } from 'hono';
import { TabreelError, type FieldIssue } from '../../shared/errors.ts';
import { newJob, type RecordingJob } from '../../shared/job.ts';
import { withoutQuery } from '../../shared/log.ts';
import { mediaUrlOf } from '../../shared/origin.ts';
import { queueRecording } from '../../shared/queue.ts';
import { defaultVideoBitrate, newRecordingId, recordingRequest, type RecordingRequest } from '../../shared/recording.ts';
import type { RecordWebhook } from '../../shared/recording-store.ts';
import { seal, signToken } from '../../shared/token.ts';
import type { AppConfig, AppDeps, AppEnv } from '../app.ts';
import { invalid, readBody } from './body.ts';
import { hasRoom, storageFull } from '../storage/storage.ts';
import { unsupported } from '../unsupported.ts';
import { sealTarget } from '../webhooks/target.ts';
import { viewOf } from './view.ts';

const MAX_AHEAD_MS = 30 * 24 * 3600 * 1000;
/**
 * How long the worker's credential outlives the latest regular end: a job may wait for a free slot. It opens the way in of
 * one recording only and is refused once that is over, so being generous costs little, while a dial refused for a
 * credential that expired in the queue costs the recording.
 */
const CREDENTIAL_SLACK_MS = 24 * 3600 * 1000;

export const createRecording = (deps: AppDeps) => async (c: Context<AppEnv>): Promise<Response> => {
  const { config, log, store, recordQueue, media } = deps;
  if (media === null && config.mediaUrl === null) throw unsupported('create');
  const now = deps.now();
  const request = await readRequest(c, config, now);
  const origin = c.get('origin')();
  const { url: base } = await c.get('mediaBase')();
  const idempotencyKey = readIdempotencyKey(c);
  // one that exists already takes no room
  const isFull = media !== null && config.mediaUrl === null && !(await hasRoom(media.storage));
  const keyHash = idempotencyKey === null ? null : await sha256(idempotencyKey);
  if (isFull && (keyHash === null || !(await store.isKnown(keyHash)))) throw storageFull();

  const id = newRecordingId(now);
  const startAt = request.startAt === undefined ? null : new Date(request.startAt).toISOString();
  const start = Math.max(now, startAt === null ? now : Date.parse(startAt));
  const spec = specOf(request, config);
  const { scheme, host, port, source, prefix, hops } = origin;
  const job = newJob({
    recordingId: id,
    mediaUrl: mediaUrlOf(base, id),
    credential: await signToken(config.tokenSecrets, id, 'media', start + spec.maxDuration * 1000 + CREDENTIAL_SLACK_MS),
    origin: { source, hops },
    spec,
    sealed: await sealSecrets(request, config, id),
  });
  const created = await store.create({
    job,
    origin: { scheme, host, port, source },
    metadata: request.metadata ?? {},
    priority: request.priority,
    startAt,
    now,
    webhook: await sealWebhook(request, config, id, prefix),
    idempotency: keyHash === null ? null : { key: keyHash, bodyHash: await sha256(canonical(request)) },
  });
  if (created.outcome === 'conflict') {
    throw new TabreelError('idempotency_conflict', 'this Idempotency-Key came with another body within the last day');
  }
  const record = await store.get(created.id);
  if (record === null || record.desired === 'deleted') throw new TabreelError('recording_not_found', 'the recording was deleted');
  // also for a repeated request: the first one's job may never have got into the queue, and a known job is not added twice
  if (record.state === 'queued') {
    await queueRecording(recordQueue, record, now);
    // otherwise the reconciler finds that it has its job
    await store.enqueued(record.id).catch((error: unknown) => log.debug('recording is looked at once more', { recording: record.id, error }));
  }
  if (created.outcome === 'created') {
    log.info('recording created', {
      recording: id,
      url: withoutQuery(spec.url),
      mediaUrl: job.mediaUrl,
      origin: { source, hops },
      ...(startAt === null ? {} : { startAt }),
    });
  }
  const view = await viewOf(record, origin, config.tokenSecrets, now);
  return c.json(view, created.outcome === 'created' ? 202 : 200, { Location: view.links.self, 'Cache-Control': 'no-store' });
};

/** @throws {TabreelError} unsupported_media_type, invalid_json or invalid_request with every field that is wrong */
async function readRequest(c: Context, config: AppConfig, now: number): Promise<RecordingRequest> {
  const request = await readBody(c, recordingRequest);
  const { maxDuration, startAt, headers, cookies, webhook } = request;
  const issues: FieldIssue[] = [];
  if (maxDuration !== undefined && maxDuration > config.maxDuration) {
    issues.push({ path: 'maxDuration', message: `at most ${config.maxDuration} (MAX_DURATION)` });
  }
  if (startAt !== undefined && Date.parse(startAt) > now + MAX_AHEAD_MS) {
    issues.push({ path: 'startAt', message: 'at most 30 days ahead' });
  }
  for (const [path, value] of Object.entries({ headers, cookies, webhook })) {
    if (config.secretsKeys === null && value !== undefined && Object.keys(value).length > 0) {
      issues.push({ path, message: 'can not be kept sealed here: the operator has to set SECRETS_KEY' });
    }
  }
  if (issues.length > 0) throw invalid(issues);
  return request;
}

function readIdempotencyKey(c: Context): string | null {
  const key = c.req.header('idempotency-key');
  if (key === undefined) return null;
  if (key.length < 1 || key.length > 255) {
    throw invalid([{ path: 'Idempotency-Key', message: 'must have 1 to 255 characters' }]);
  }
  return key;
}

const specOf = (request: RecordingRequest, config: AppConfig): RecordingJob['spec'] => ({
  url: request.url,
  width: request.width,
  height: request.height,
  frameRate: request.frameRate,
  maxDuration: request.maxDuration ?? config.maxDuration,
  audio: request.audio,
  videoBitrate: request.videoBitrate ?? defaultVideoBitrate(request),
  audioBitrate: request.audioBitrate,
  start: request.start,
  webrtc: request.webrtc ?? config.webrtc,
});

async function sealSecrets({ headers = {}, cookies = [] }: RecordingRequest, config: AppConfig, id: string): Promise<string | null> {
  if (config.secretsKeys === null || (Object.keys(headers).length === 0 && cookies.length === 0)) return null;
  return seal(config.secretsKeys, id, { headers, cookies });
}

async function sealWebhook({ webhook }: RecordingRequest, config: AppConfig, id: string, prefix: string): Promise<RecordWebhook | null> {
  if (config.secretsKeys === null || webhook === undefined) return null;
  return { sealed: await sealTarget(config.secretsKeys, id, webhook), prefix };
}

/** JSON with its keys in order, so that equal requests have equal text. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_key, item: unknown) =>
    item !== null && typeof item === 'object' && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
      : item,
  );

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
