/**
 * The REST API of Ant Media's Media Push plugin, request and answer as the plugin has them, so that its callers need another
 * address alone: each start is a recording that is only pushed. What goes wrong is answered with status 200 and
 * `success: false`, as there; only what the plugin's handlers never see, or break on, has another status.
 */
import type { Context } from 'hono';
import { z } from 'zod';
import { TabreelError, type ErrorCode } from '../../shared/errors.ts';
import { newRecordingId, recordingRequest, serverRecordTypes } from '../../shared/recording.ts';
import type { RecordingRecord } from '../../shared/recording-store.ts';
import type { AppDeps, AppEnv } from '../app.ts';
import { invalid, issuesOf, readBody } from '../recording/body.ts';
import { sendCommand } from '../recording/commands.ts';
import { cancel, stop } from '../recording/control.ts';
import { createFromRequest, newStreamId } from '../recording/create.ts';
import { unsupported } from '../unsupported.ts';
import { readSwitches } from './switches.ts';

/** Milliseconds for a stream to be live after `start`, and to be gone after `stop`: the plugin's own. */
const WAIT_MS = 30_000;
/** Between two looks where nothing is heard of a recording's events. */
const LOOK_MS = 1000;
/** Seconds for a command: the plugin's own. */
const COMMAND_SECONDS = 30;
/** Seconds beyond its longest recording for which a stream's recording is known: it may wait for a free worker. */
const KNOWN_SLACK_SECONDS = 24 * 3600;
/** A start is known before its recording is; one that died in between gives its stream free after so many milliseconds. */
const CREATING_MS = 30_000;

const text = z.string().nullish();
// Jackson takes numbers in quotes, and null for 0
const pixels = z
  .union([z.int(), z.string().regex(/^ *\d{0,6} *$/, { error: 'must be a whole number' }).transform(Number)])
  .nullish()
  .transform((value) => value ?? 0);

/** The body of `start`, and of `send-command`. */
export const endpoint = z.strictObject({
  url: text.describe('page to push, http or https'),
  width: pixels.describe('1280 x 720 where not both are above 0; odd sizes are made even'),
  height: pixels,
  jsCommand: text.describe("send-command: the body of a function, whose return value is the answer's `message`"),
  token: text.describe("of the Ant Media Server's stream; kept sealed"),
  recordType: text.describe('mp4 or webm: the Ant Media Server is asked to record the stream'),
  extraChromeSwitches: text.describe('separated by commas; which are passed on is in docs/ant-media.md'),
});

/** What every call is answered with. */
export const result = z.object({
  success: z.boolean(),
  message: z.string().nullable().describe('why not; what a command came to'),
  dataId: z.string().nullable().describe("the stream's id"),
  errorId: z.literal(0),
});
type Result = Omit<z.infer<typeof result>, 'errorId'>;

const failure = (message: string): Result => ({ success: false, message, dataId: null });
const isBlank = (value: string | null | undefined): value is '' | null | undefined => value === null || value === undefined || value.trim() === '';
const unknown = (streamId: string) => failure(`Driver does not exist for stream id: ${streamId}`);

/** Outages are told as everywhere else, so that a load balancer sees them too. */
const outages: ReadonlySet<ErrorCode> = new Set(['redis_unavailable', 'internal', 'unsupported_here']);

const answering = (deps: AppDeps, handle: (c: Context<AppEnv>, app: string) => Promise<Result>) => async (c: Context<AppEnv>): Promise<Response> => {
  const { success, message, dataId } = await handle(c, c.req.param('app') ?? '').catch((error: unknown) => {
    if (!(error instanceof TabreelError) || outages.has(error.code)) throw error;
    deps.log.info('media push refused', { path: c.req.path, code: error.code, detail: error.message });
    return failure(error.message);
  });
  return c.json({ success, message, dataId, errorId: 0 }, 200, { 'Cache-Control': 'no-store' });
};

export const startMediaPush = (deps: AppDeps) => async (c: Context<AppEnv>): Promise<Response> => {
  const body = await readBody(c, endpoint);
  return answering(deps, (_, app) => start(deps, c, app, body))(c);
};

async function start(deps: AppDeps, c: Context<AppEnv>, app: string, body: z.infer<typeof endpoint>): Promise<Result> {
  const { store, streams, config } = deps;
  const { sees } = c.get('caller');
  const { url, width, height, token } = body;
  if (url === null || url === undefined || !/^https?:\/\//i.test(url) || !URL.canParse(url)) return failure(`Incoming url: ${url ?? null} is not a valid url`);
  const recordType = isBlank(body.recordType) ? undefined : serverRecordTypes.find((type) => type === body.recordType);
  if (!isBlank(body.recordType) && recordType === undefined) return failure(`recordType: must be one of ${serverRecordTypes.join(', ')}`);
  const { switches, refused } = readSwitches(body.extraChromeSwitches ?? '');
  const given = c.req.query('streamId');
  const streamId = isBlank(given) ? newStreamId(deps.now()) : given;
  const request = recordingRequest.safeParse({
    url,
    ...(width > 0 && height > 0 ? { width: even(width), height: even(height) } : {}),
    record: false,
    push: [{ type: 'antmedia', app, streamId, ...(isBlank(token) ? {} : { token }) }],
  });
  if (!request.success) return failure(ofTheirs(invalid(request.error.issues.flatMap(issuesOf))).message);

  const before = await streams.get(app, streamId, sees);
  const id = newRecordingId(deps.now());
  const exists = failure(`Session with the same streamId: ${streamId} already exists. Please stop it first`);
  if (before !== null && (await isTaken(deps, before))) return exists;
  if (!(await streams.take(app, streamId, sees, before, id, config.maxDuration + KNOWN_SLACK_SECONDS))) return exists;
  try {
    await createFromRequest(deps, c, request.data, null, { id, recordType, switches });
  } catch (error) {
    // one that was written is known by its stream, and may be stopped, though it could not be queued yet
    const record = await store.get(id).catch(() => undefined);
    if (record === null) await streams.drop(app, streamId, sees, id).catch(() => undefined);
    throw error instanceof TabreelError ? ofTheirs(error) : error;
  }
  const outcome = await lookUntil(deps, id, startedOr);
  if (outcome === null) {
    const record = await store.get(id);
    if (record !== null) await cancel(deps, record);
    return failure(`The stream was not live within ${WAIT_MS / 1000} s: the recording ${id} was ${record?.state ?? 'deleted'}, and is canceled`);
  }
  if (outcome !== 'live') {
    // its recording may take a moment to end: whoever starts the stream again must not be told that it runs
    await streams.drop(app, streamId, sees, id);
    return failure(outcome.error);
  }
  return { success: true, message: refused.length === 0 ? null : `Chrome switches that are not passed on: ${refused.join(', ')}`, dataId: streamId };
}

export const stopMediaPush = (deps: AppDeps) =>
  answering(deps, async (c, app) => {
    const streamId = c.req.param('streamId') ?? '';
    const record = await running(deps, c, app, streamId);
    if (record === null) return unknown(streamId);
    await stop(deps, record);
    if ((await lookUntil(deps, record.id, (each) => (each === null || isOver(each) ? true : null))) === null) {
      return failure(`The stream has not ended within ${WAIT_MS / 1000} s; it will: the recording ${record.id} is told to stop`);
    }
    return { success: true, message: null, dataId: null };
  });

export const sendMediaPushCommand = (deps: AppDeps) => async (c: Context<AppEnv>): Promise<Response> => {
  if (deps.media === null) throw unsupported('commands');
  const { jsCommand } = await readBody(c, endpoint);
  return answering(deps, async (_c, app) => {
    const streamId = c.req.query('streamId') ?? '';
    if (streamId === '') return failure('streamId query parameter is mandatory.');
    if (jsCommand === null || jsCommand === undefined || jsCommand === '') return failure('jsCommand is mandatory.');
    const record = await running(deps, c, app, streamId);
    if (record === null) return unknown(streamId);
    try {
      const value = await sendCommand(deps, record, { script: jsCommand, isBody: true, timeout: COMMAND_SECONDS });
      return { success: true, message: asText(value), dataId: streamId };
    } catch (error) {
      if (!(error instanceof TabreelError) || outages.has(error.code)) throw error;
      return failure(`Command cannot be executed: ${error.message}`);
    }
  })(c);
};

/** Java's text of nothing, a text, a number or a truth; JSON of all else. */
const asText = (value: unknown): string => (value === null ? '' : typeof value === 'string' ? value : JSON.stringify(value));

/** H.264 has no odd sizes. */
const even = (value: number): number => 2 * Math.floor(value / 2);

/** Fields by the plugin's names. */
const ofTheirs = (error: TabreelError): TabreelError =>
  error.code === 'invalid_request' ? invalid(error.issues.map(({ path, message }) => ({ path: path.replace(/^push\.0\./, ''), message }))) : error;

const isOver = ({ state }: RecordingRecord): boolean => !['queued', 'starting', 'recording', 'paused'].includes(state);
const isToRun = (record: RecordingRecord): boolean => !isOver(record) && (record.desired === 'recording' || record.desired === 'paused');

async function running({ store, streams }: AppDeps, c: Context<AppEnv>, app: string, streamId: string): Promise<RecordingRecord | null> {
  const { sees } = c.get('caller');
  const id = await streams.get(app, streamId, sees);
  const record = id === null ? null : await store.get(id, sees);
  return record !== null && isToRun(record) ? record : null;
}

async function isTaken({ store, now }: AppDeps, id: string): Promise<boolean> {
  const record = await store.get(id);
  return record === null ? createdAt(id) > now() - CREATING_MS : isToRun(record);
}

/** Milliseconds since the epoch, which a recording's id begins with. */
function createdAt(id: string): number {
  const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';
  let time = 0;
  for (const letter of id.slice(4, 14)) time = time * 32 + alphabet.indexOf(letter);
  return time;
}

function startedOr(record: RecordingRecord | null): 'live' | { error: string } | null {
  if (record === null) return { error: 'the recording was deleted' };
  const push = record.pushes[0];
  if (isOver(record) || push?.state === 'failed') {
    return { error: record.error?.message ?? push?.error?.message ?? `the recording is ${record.state}: it was stopped before the stream was live` };
  }
  return record.state !== 'starting' && push?.state === 'live' ? 'live' : null;
}

/** Looks at a recording whenever something happens to it. @returns the first answer; null where there is none within WAIT_MS */
async function lookUntil<T>({ store, media }: AppDeps, id: string, look: (record: RecordingRecord | null) => T | null): Promise<T | null> {
  const deadline = Date.now() + WAIT_MS;
  let heard = Promise.withResolvers<void>();
  const unwatch = media?.watch.recording(id, () => heard.resolve());
  try {
    for (;;) {
      heard = Promise.withResolvers();
      // with Redis away: the next look
      const found = await store.get(id).then(look, () => null);
      const left = deadline - Date.now();
      if (found !== null || left <= 0) return found;
      let timer: ReturnType<typeof setTimeout> | undefined;
      const pause = new Promise<void>((resolve) => (timer = setTimeout(resolve, media === null ? Math.min(LOOK_MS, left) : left)));
      await Promise.race([heard.promise, pause]);
      clearTimeout(timer);
    }
  } finally {
    unwatch?.();
  }
}
