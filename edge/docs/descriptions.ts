/** What openapi.json says of each route. */
import type { describeRoute } from 'hono-openapi';
import { resolver } from 'hono-openapi';
import { z } from 'zod';
import { manifest } from '../finish/manifest.ts';
import type { Scope } from '../access/keys.ts';
import { originStep, problem } from '../problem.ts';
import { API_KEY, LINK } from './security.ts';
import { commandRequest } from '../../shared/commands.ts';
import { externalOrigin, markerRequest, recording, recordingRequest, recordingStates } from '../../shared/recording.ts';

type Description = Parameters<typeof describeRoute>[0];
type Responses = NonNullable<Description['responses']>;

const problemContent = { 'application/problem+json': { schema: resolver(problem) } };
const texts: Readonly<Record<number, string>> = {
  304: 'Not modified',
  400: 'The request is not valid',
  401: 'An API key, or the token of a link, is missing or not valid',
  403: 'The API key has not the scope',
  404: 'There is no such recording, or the file is not there yet',
  409: 'The Idempotency-Key was used with another body, or the recording is not in a state that allows this',
  410: 'The live stream is over: fetch the file',
  413: 'The body is too large',
  415: 'The body is not application/json',
  416: 'The range lies outside the file',
  421: 'The operator has something to mend, so that the external origin can be told or media may go there',
  422: 'The script threw, ran too long, or its result is not JSON or too large: `code` says which',
  429: 'The API key made too many recordings in a minute, or has too many under way, or too many scripts wait for the page: `code` says which',
  501: 'This deployment takes no media, and MEDIA_URL is not set',
  503: 'Redis is out of reach; try again',
  504: 'The worker did not answer: the script may have been run',
  507: 'The storage is full',
};
export const problems = (...statuses: number[]): Responses =>
  Object.fromEntries(statuses.map((status) => [status, { description: texts[status] ?? '', content: problemContent }]));

/** With an API key that has the scope; `link`: or by the token of a signed link. */
export const secured = (scope: Scope, link = false): Pick<Description, 'security'> => ({ security: [{ [API_KEY]: [scope] }, ...(link ? [{ [LINK]: [] }] : [])] });
/** For everybody. */
const open: Pick<Description, 'security'> = { security: [] };

/** What only the deployment that takes the media has. */
const held = (...statuses: number[]): Responses => ({
  307: { description: 'Another deployment has it: MEDIA_URL', headers: { Location: { description: 'The same path there', schema: { type: 'string' } } } },
  ...problems(...statuses, 501, 503),
});

export const json = (description: string, schema: z.ZodType, headers?: Record<string, { description: string; schema: { type: 'string' } }>) => ({
  description,
  content: { 'application/json': { schema: resolver(schema) } },
  ...(headers === undefined ? {} : { headers }),
});
const binary = (description: string, type: string) => ({
  description,
  content: { [type]: { schema: { type: 'string' as const, format: 'binary' } } },
});
const text = (description: string, type: string) => ({ description, content: { [type]: { schema: { type: 'string' as const } } } });

const id = {
  in: 'path' as const,
  name: 'id',
  required: true,
  description: "The recording's id",
  schema: { type: 'string' as const, example: 'rec_01jd0000000000000000000000' },
};
const token = {
  in: 'query' as const,
  name: 'token',
  description: "Read-only credential of the recording, as it stands in the recording's links",
  schema: { type: 'string' as const },
};
const header = (name: string, description: string) => ({ in: 'header' as const, name, description, schema: { type: 'string' as const } });
const range = header('Range', 'One range of bytes');
const tags = ['recordings'];
const fileTags = ['files'];

export const createDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'Record a web page',
  operationId: 'createRecording',
  parameters: [header('Idempotency-Key', 'The same key and body answer the same recording for a day')],
  requestBody: { required: true, content: { 'application/json': { schema: resolver(recordingRequest, { io: 'input' }) } } },
  responses: {
    200: json('The recording that this Idempotency-Key made before', recording),
    202: json('The recording, queued', recording, { Location: { description: 'Its URL', schema: { type: 'string' } } }),
    // 404: what its Idempotency-Key made was deleted since
    ...problems(400, 401, 403, 404, 409, 413, 415, 421, 429, 501, 503, 507),
  },
};

export const listDescription: Description = {
  tags,
  ...secured('read'),
  summary: 'List recordings, newest first',
  operationId: 'listRecordings',
  parameters: [
    { in: 'query', name: 'state', description: 'Only those in this state', schema: { type: 'string', enum: [...recordingStates] } },
    { in: 'query', name: 'limit', schema: { type: 'integer', minimum: 1, maximum: 100, default: 20 } },
    { in: 'query', name: 'cursor', description: '`cursor` of the page before', schema: { type: 'string' } },
  ],
  responses: {
    200: json('A page; the next one begins at `cursor`, which is null on the last', z.object({ recordings: z.array(recording), cursor: z.string().nullable() })),
    ...problems(400, 401, 403, 421, 503),
  },
};

export const getDescription: Description = {
  tags,
  ...secured('read'),
  summary: 'A recording',
  operationId: 'getRecording',
  parameters: [id],
  responses: { 200: json('The recording', recording), ...problems(400, 401, 403, 404, 421, 503) },
};

export const stopDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'End a recording; a queued one is canceled',
  description: 'Idempotent. What was recorded is finished into its file, which takes a moment.',
  operationId: 'stopRecording',
  parameters: [id],
  responses: { 200: json('The recording', recording), ...problems(400, 401, 403, 404, 421, 503) },
};

export const pauseDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'Cut out what follows, until it is resumed',
  description: 'Idempotent. A recording that is not under way yet opens its page and waits.',
  operationId: 'pauseRecording',
  parameters: [id],
  responses: { 200: json('The recording', recording), ...problems(400, 401, 403, 404, 409, 421, 503) },
};

export const resumeDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'Go on after a pause',
  description: 'Idempotent.',
  operationId: 'resumeRecording',
  parameters: [id],
  responses: { 200: json('The recording', recording), ...problems(400, 401, 403, 404, 409, 421, 503) },
};

export const cancelDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'End a recording without a file',
  description: 'Idempotent. What was recorded is discarded. One that is completed or failed is not canceled any more: 409.',
  operationId: 'cancelRecording',
  parameters: [id],
  responses: { 200: json('The recording', recording), ...problems(400, 401, 403, 404, 409, 421, 503) },
};

export const markersDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'Name the present moment: a chapter of the file begins there',
  operationId: 'markRecording',
  parameters: [id],
  requestBody: { required: true, content: { 'application/json': { schema: resolver(markerRequest, { io: 'input' }) } } },
  responses: { 200: json('The recording', recording), ...problems(400, 401, 403, 404, 409, 413, 415, 421, 503) },
};

export const commandsDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'Run a script in the page',
  description:
    'While the page is open, on whichever worker it is. In the top frame, among the scripts of the page itself. Never run twice; one at a time, others wait. ' +
    'A 503 `command_not_taken` was not run; a 504 `command_lost` may have been.',
  operationId: 'runCommand',
  parameters: [id],
  requestBody: { required: true, content: { 'application/json': { schema: resolver(commandRequest, { io: 'input' }) } } },
  responses: {
    200: json('What the script came to', z.object({ result: z.unknown().describe('JSON; null for undefined') })),
    ...problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 501, 503, 504),
  },
};

export const deleteDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'End a recording and remove its files',
  operationId: 'deleteRecording',
  parameters: [id],
  responses: { 204: { description: 'Gone, from now on for every route' }, ...problems(401, 403, 404, 503) },
};

export const eventsDescription: Description = {
  tags,
  ...secured('read', true),
  summary: 'Server-sent events: state, stats, log, push',
  description: 'Resumable by Last-Event-ID. Ends after the event of the end state; 204 where nothing is left to say.',
  operationId: 'recordingEvents',
  parameters: [id, token, header('Last-Event-ID', 'The last event that was seen')],
  responses: { 200: text('The events', 'text/event-stream'), 204: { description: 'The recording is over and all was seen' }, ...held(401, 403, 404) },
};

export const playlistDescription: Description = {
  tags: fileTags,
  ...secured('read', true),
  summary: 'Live HLS playlist, playable while recording',
  operationId: 'livePlaylist',
  parameters: [id, token],
  responses: { 200: text('The playlist', 'application/vnd.apple.mpegurl'), ...held(401, 403, 404, 410) },
};

export const segmentDescription: Description = {
  tags: fileTags,
  ...secured('read', true),
  summary: 'A segment of the live stream',
  operationId: 'liveSegment',
  parameters: [id, { in: 'path', name: 'name', required: true, schema: { type: 'string' } }, token],
  responses: {
    200: binary('The segment (CMAF)', 'video/iso.segment'),
    206: binary('The range of it', 'video/iso.segment'),
    ...held(401, 403, 404, 410, 416),
  },
};

export const fileDescription: Description = {
  tags: fileTags,
  ...secured('read', true),
  summary: 'The recording as one MP4 file',
  operationId: 'recordingFile',
  parameters: [id, token, range],
  responses: {
    200: binary('The file', 'video/mp4'),
    206: binary('The range of it', 'video/mp4'),
    304: { description: 'Not modified' },
    ...held(401, 403, 404, 416),
  },
};

export const thumbnailDescription: Description = {
  tags: fileTags,
  ...secured('read', true),
  summary: 'A picture of the recording, also while recording',
  operationId: 'recordingThumbnail',
  parameters: [id, token],
  responses: { 200: binary('The picture', 'image/jpeg'), ...held(401, 403, 404) },
};

export const manifestDescription: Description = {
  tags: fileTags,
  ...secured('read', true),
  summary: 'Sizes and checksums of the files',
  operationId: 'recordingManifest',
  parameters: [id, token],
  responses: { 200: json('The manifest', manifest), ...held(401, 403, 404) },
};

const check = z.object({ ok: z.boolean(), code: z.string().optional().describe('of what fails'), detail: z.string().optional() });
const readiness = z.object({ status: z.enum(['ready', 'not ready']), checks: z.record(z.string(), check) });

export const healthDescription: Description = {
  tags: ['operation'],
  ...open,
  summary: 'Whether the process lives',
  operationId: 'health',
  responses: { 200: json('It does', z.object({ status: z.literal('ok') })) },
};

export const readyDescription: Description = {
  tags: ['operation'],
  ...open,
  summary: 'Whether Redis answers and the storage takes files',
  operationId: 'ready',
  responses: { 200: json('Both', readiness), 503: json('Not both', readiness) },
};

export const metricsDescription: Description = {
  tags: ['operation'],
  ...secured('admin'),
  summary: 'Metrics for Prometheus',
  operationId: 'metrics',
  responses: { 200: text('Exposition format 0.0.4', 'text/plain'), ...problems(401, 403) },
};

const seenOrigin = externalOrigin.extend({
  prefix: z.string().describe('path before ours, "" or "/prefix"'),
  websocket: z.string().describe('base of media URLs, without a slash at its end'),
  hops: z.int().describe('trusted proxies on the way'),
  peer: z.string().nullable().describe('address at the other end of the socket; null where the runtime does not tell'),
  trusted: z.boolean().describe("whether the peer's forwarding headers are believed"),
  steps: z.array(originStep).describe('what was looked at, in this order, and why it was used or not'),
});

export const originDescription: Description = {
  tags: ['operation'],
  ...open,
  summary: 'The origin that this very request came to, and where media of a recording created by the same way would go',
  description: 'Refused as creating a recording would be: 400 for what the client did, 421 for what the operator has to mend.',
  operationId: 'origin',
  responses: { 200: json('The origin, and how it was found', seenOrigin), ...problems(400, 421, 503) },
};
