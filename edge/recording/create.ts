/** `POST /v1/recordings`: request to recording to job. */
import type { Context } from 'hono';
import { isLoopbackHost } from '../../shared/address.ts';
import { TabreelError, type FieldIssue } from '../../shared/errors.ts';
import { IS_SEALED, newJob, type RecordingJob } from '../../shared/job.ts';
import { withoutQuery } from '../../shared/log.ts';
import { classOf, parseAddress, type AddressClass } from '../../shared/outbound/address-class.ts';
import { mediaUrlOf } from '../../shared/origin.ts';
import { queueRecording } from '../../shared/queue.ts';
import {
  defaultVideoBitrate,
  newRecordingId,
  recordingRequest,
  type JobSecrets,
  type PushSecrets,
  type PushSpec,
  type Recording,
  type RecordingRequest,
} from '../../shared/recording.ts';
import type { RecordWebhook } from '../../shared/recording-store.ts';
import { seal, signToken } from '../../shared/token.ts';
import type { AppConfig, AppDeps, AppEnv } from '../app.ts';
import { invalid, readBody } from './body.ts';
import { hasRoom, storageFull } from '../storage/storage.ts';
import { unsupported } from '../unsupported.ts';
import { sealTarget } from '../webhooks/target.ts';
import { linkSecrets, viewOf } from './view.ts';

const MAX_AHEAD_MS = 30 * 24 * 3600 * 1000;
/**
 * How long the worker's credential outlives the latest regular end: a job may wait for a free slot. It opens the way in of
 * one recording only and is refused once that is over, so being generous costs little, while a dial refused for a
 * credential that expired in the queue costs the recording.
 */
const CREDENTIAL_SLACK_MS = 24 * 3600 * 1000;
/** Nobody knows when one of the caller's recordings ends. */
const CONCURRENT_RETRY_SECONDS = 10;

export const createRecording = (deps: AppDeps) => async (c: Context<AppEnv>): Promise<Response> => {
  const { created, view } = await createFromRequest(deps, c, await readBody(c, recordingRequest), readIdempotencyKey(c, c.get('caller').owner));
  return c.json(view, created ? 202 : 200, { Location: view.links.self, 'Cache-Control': 'no-store' });
};

/**
 * Creates a recording and queues it.
 *
 * @param c whose origin it is made for
 * @param request as parsed by the schema
 * @param idempotencyKey null for none
 * @param more what no request of our own can ask for. `recordType` is of all its pushes
 * @returns the recording as the API answers it, and whether it is new
 * @throws {TabreelError} invalid_request with every field that can't be met here; OriginError; Redis's own errors
 */
export async function createFromRequest(
  deps: AppDeps,
  c: Context<AppEnv>,
  request: RecordingRequest,
  idempotencyKey: string | null = null,
  more: { id?: string; recordType?: PushSpec['recordType']; switches?: string[] } = {},
): Promise<{ created: boolean; view: Recording }> {
  const { config, log, store, recordQueue, media } = deps;
  const { record: isRecorded } = request;
  if (isRecorded && media === null && config.mediaUrl === null) throw unsupported('create');
  const now = deps.now();
  const { owner, sees, limits } = c.get('caller');
  const longest = Math.min(config.maxDuration, limits.maxDuration ?? Infinity);
  checkRequest(request, config, longest, now);
  const origin = c.get('origin')();
  const namesNone = request.push?.some((each) => each.url === undefined) ?? false;
  const { specs: push, secrets: pushSecrets } = pushesOf(request, namesNone ? await c.get('neighbourBase')() : '', now);
  const base = isRecorded ? (await c.get('mediaBase')()).url : null;
  // one that exists already takes no room
  const isFull = isRecorded && media !== null && config.mediaUrl === null && !(await hasRoom(media.storage));
  const keyHash = idempotencyKey === null ? null : await sha256(idempotencyKey);
  if (isFull && (keyHash === null || !(await store.isKnown(keyHash)))) throw storageFull();

  const { id = newRecordingId(now), recordType, switches } = more;
  const startAt = request.startAt === undefined ? null : new Date(request.startAt).toISOString();
  const start = Math.max(now, startAt === null ? now : Date.parse(startAt));
  const spec = { ...specOf(request, config, longest), push: recordType === undefined ? push : push.map((each) => ({ ...each, recordType })), ...(switches === undefined ? {} : { switches }) };
  const { scheme, host, port, source, prefix, hops } = origin;
  const credential = await signToken(config.tokenSecrets, id, 'media', start + spec.maxDuration * 1000 + CREDENTIAL_SLACK_MS);
  const job = newJob({
    recordingId: id,
    // one that is only pushed has its media go there
    mediaUrl: base === null ? (push[0] as PushSpec).url : mediaUrlOf(base, id),
    // in the clear only where nothing can be sealed
    credential: config.secretsKeys === null ? credential : IS_SEALED,
    origin: { source, hops },
    spec,
    sealed: config.secretsKeys === null ? null : await seal(config.secretsKeys, id, secretsOf(request, pushSecrets, credential)),
  });
  const created = await store.create({
    job,
    origin: { scheme, host, port, source },
    metadata: request.metadata ?? {},
    priority: request.priority,
    startAt,
    now,
    webhook: await sealWebhook(request, config, id, prefix),
    owner,
    limits,
    // a body has secrets: its hash is worth nothing without the caller's own key, which is kept nowhere
    idempotency: keyHash === null ? null : { key: keyHash, bodyHash: await sha256(`${idempotencyKey}\n${canonical(request)}`) },
  });
  if (created.outcome === 'conflict') {
    throw new TabreelError('idempotency_conflict', 'this Idempotency-Key came with another body within the last day');
  }
  if (created.outcome === 'too_many_recordings') {
    const { concurrent = 0 } = limits;
    throw new TabreelError('too_many_recordings', `the API key has ${concurrent} recordings queued or under way, as many as it may`, { retryAfter: CONCURRENT_RETRY_SECONDS });
  }
  if (created.outcome === 'too_many_requests') {
    const retryAfter = Math.max(1, Math.ceil(created.wait / 1000));
    throw new TabreelError('too_many_requests', `the API key made ${limits.perMinute ?? 0} recordings in the last minute, as many as it may; the next in ${retryAfter} s`, { retryAfter });
  }
  const record = await store.get(created.id, sees);
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
      ...(push.length === 0 ? {} : { push: push.map(({ url, streamId }) => ({ url, streamId })) }),
    });
  }
  return { created: created.outcome === 'created', view: await viewOf(record, origin, linkSecrets(deps, c), now) };
}

/** @throws {TabreelError} invalid_request with every field that can't be met here */
function checkRequest(request: RecordingRequest, config: AppConfig, longest: number, now: number): void {
  const { maxDuration, startAt, headers, cookies, webhook, push = [] } = request;
  const issues: FieldIssue[] = [];
  if (maxDuration !== undefined && maxDuration > longest) {
    issues.push({ path: 'maxDuration', message: `at most ${longest} (${longest < config.maxDuration ? "the API key's" : 'MAX_DURATION'})` });
  }
  if (startAt !== undefined && Date.parse(startAt) > now + MAX_AHEAD_MS) {
    issues.push({ path: 'startAt', message: 'at most 30 days ahead' });
  }
  const inConfidence: [path: string, value: object | string | undefined][] = Object.entries({ headers, cookies, webhook });
  push.forEach(({ url, token, subscriberCode, iceServers }, i) => {
    const query = url === undefined ? '' : new URL(url).search;
    for (const [name, value] of Object.entries({ token, subscriberCode, iceServers, ...(query === '' ? {} : { url: query }) })) {
      inConfidence.push([`push.${i}.${name}`, value]);
    }
    if (url === undefined) return;
    const { protocol, hostname } = new URL(url);
    if (protocol === 'ws:' && !isLoopbackHost(hostname) && !config.allowInsecureWs) {
      issues.push({ path: `push.${i}.url`, message: 'must be wss: the stream would go over the network in the clear (ALLOW_INSECURE_WS)' });
    }
  });
  for (const [path, value] of inConfidence) {
    if (config.secretsKeys === null && value !== undefined && Object.keys(value).length > 0) {
      const what = path.endsWith('.url') ? 'its query can' : 'can';
      issues.push({ path, message: `${what} not be kept sealed here: the operator has to set SECRETS_KEY` });
    }
  }
  if (issues.length > 0) throw invalid(issues);
}

/**
 * @param base as neighbourBase, of those that name no URL
 * @throws {TabreelError} invalid_request where two of them are one, or an address is none that a media server has. Beyond that it is for the
 * worker to say which may be dialled, who resolves them.
 */
function pushesOf({ push = [] }: RecordingRequest, base: string, now: number): { specs: PushSpec[]; secrets: PushSecrets[] } {
  const secrets: PushSecrets[] = [];
  const specs = push.map(({ type, url, app = 'LiveApp', streamId = newStreamId(now), subscriberId, token, subscriberCode, iceServers }): PushSpec => {
    const whole = new URL(url ?? `${base}/${app}/websocket`);
    secrets.push({ query: whole.search, token, subscriberCode, iceServers });
    whole.search = '';
    return { type, url: whole.href, streamId, ...(subscriberId === undefined ? {} : { subscriberId }) };
  });
  const issues = specs.flatMap(({ url, streamId }, i) => {
    const isSame = specs.slice(0, i).some((other) => other.url === url && other.streamId === streamId);
    const dialled: [path: string, host: string][] = [
      ['url', new URL(url).hostname],
      ...(secrets[i]?.iceServers ?? []).flatMap(({ urls }, j) => [urls].flat().map((each): [string, string] => [`iceServers.${j}.urls`, hostOfIceServer(each)])),
    ];
    return [
      ...(isSame ? [{ path: `push.${i}.streamId`, message: 'is pushed to the same `url` already' }] : []),
      ...dialled.filter(([, host]) => isNoTarget(host)).map(([path, host]) => ({ path: `push.${i}.${path}`, message: `${host} is an address that may not be dialled` })),
    ];
  });
  if (issues.length > 0) throw invalid(issues);
  return { specs, secrets };
}

const hostOfIceServer = (url: string): string => /^\w+:(\[[^\]]*\]|[^:?]*)/.exec(url)?.[1] ?? '';
const noTargets: ReadonlySet<AddressClass> = new Set(['metadata', 'link_local', 'multicast', 'unspecified']);
const isNoTarget = (host: string): boolean => parseAddress(host) !== null && noTargets.has(classOf(host));

/** As Ant Media's Media Push plugin makes it: 12 letters and digits, and the time in milliseconds. */
export function newStreamId(now: number): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
  let id = '';
  // 248 is the largest multiple of 62 in a byte: no character is likelier than another
  while (id.length < 12) for (const byte of crypto.getRandomValues(new Uint8Array(16))) if (byte < 248 && id.length < 12) id += alphabet[byte % 62];
  return `${id}${now}`;
}

/** What one caller chose is nothing to another. */
function readIdempotencyKey(c: Context, owner: string | null): string | null {
  const key = c.req.header('idempotency-key');
  if (key === undefined) return null;
  if (key.length < 1 || key.length > 255) {
    throw invalid([{ path: 'Idempotency-Key', message: 'must have 1 to 255 characters' }]);
  }
  return owner === null ? key : `${owner} ${key}`;
}

const specOf = (request: RecordingRequest, config: AppConfig, longest: number): Omit<RecordingJob['spec'], 'push'> => ({
  url: request.url,
  width: request.width,
  height: request.height,
  frameRate: request.frameRate,
  maxDuration: request.maxDuration ?? longest,
  audio: request.audio,
  videoBitrate: Math.min(request.videoBitrate ?? defaultVideoBitrate(request), ...(request.push ?? []).map(({ bitrate = Infinity }) => bitrate)),
  audioBitrate: request.audioBitrate,
  start: request.start,
  webrtc: request.webrtc ?? config.webrtc,
  record: request.record,
});

function secretsOf({ headers = {}, cookies = [] }: RecordingRequest, push: readonly PushSecrets[], credential: string): JobSecrets {
  const hasPush = push.some(({ query, ...others }) => query !== '' || Object.values(others).some((value) => value !== undefined));
  return { credential, headers, cookies, ...(hasPush ? { push: [...push] } : {}) };
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
