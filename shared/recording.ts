/** The user's object: what he asks for, what he is told, and the states between. */
import { z } from 'zod';

export const recordingStates = [
  'queued',
  'starting',
  'recording',
  'paused',
  'finishing',
  'completed',
  'failed',
  'canceled',
] as const;
export type RecordingState = (typeof recordingStates)[number];

/**
 * Every legal change of state. `starting` may follow `recording` and `paused`: another attempt
 * continues a recording whose worker died.
 */
export const transitions: Readonly<Record<RecordingState, readonly RecordingState[]>> = {
  queued: ['starting', 'failed', 'canceled'],
  starting: ['starting', 'recording', 'paused', 'finishing', 'failed', 'canceled'],
  recording: ['starting', 'paused', 'finishing', 'failed', 'canceled'],
  paused: ['starting', 'recording', 'finishing', 'failed', 'canceled'],
  finishing: ['completed', 'failed', 'canceled'],
  completed: [],
  failed: [],
  canceled: [],
};

export const isEnd = (state: RecordingState): boolean => transitions[state].length === 0;

/** What the caller wants of a recording; persisted before it is signalled, so that it holds whenever it is read. */
export const desiredStates = ['recording', 'paused', 'stopped', 'canceled', 'deleted'] as const;
export type DesiredState = (typeof desiredStates)[number];

export const captureEngines = ['tab', 'self', 'screencast'] as const;
export type CaptureEngineName = (typeof captureEngines)[number];

const even = (min: number, max: number) =>
  z.int().min(min).max(max).multipleOf(2, { error: 'must be even: H.264 stores colour for blocks of 2 x 2 pixels' });

const webUrlOf = (maxLength: number, instead: string) =>
  z
    .string()
    .max(maxLength)
    .superRefine((value, context) => {
      const fail = (message: string) => context.addIssue({ code: 'custom', message });
      if (!URL.canParse(value)) return fail('must be an absolute http or https URL');
      const url = new URL(value);
      if (url.protocol !== 'http:' && url.protocol !== 'https:') return fail('must be an http or https URL');
      if (url.username !== '' || url.password !== '') return fail(`must not carry a user name or password: ${instead}`);
    });
const webUrl = webUrlOf(8192, 'use `headers`');

const headerName = z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/, { error: 'not a header name (RFC 9110, token)' });
/** Hop-by-hop and framing fields: set by whoever sends the request, never by a caller of ours. */
const reservedHeaders = new Set([
  'host', 'connection', 'content-length', 'transfer-encoding', 'upgrade', 'te', 'trailer', 'keep-alive',
  'proxy-connection', 'proxy-authorization', 'expect', 'cookie',
]);

const headers = z
  .record(headerName, z.string().max(8192).regex(/^[\t\x20-\x7e\x80-\xff]*$/, { error: 'has characters a header value may not have' }))
  .superRefine((value, context) => {
    const names = Object.keys(value);
    if (names.length > 50) context.addIssue({ code: 'custom', message: 'at most 50 headers' });
    for (const name of names) {
      if (reservedHeaders.has(name.toLowerCase())) {
        const hint = name.toLowerCase() === 'cookie' ? 'use `cookies`' : 'it belongs to the connection';
        context.addIssue({ code: 'custom', path: [name], message: `may not be set: ${hint}` });
      }
    }
  });

const cookie = z.strictObject({
  name: z.string().min(1).max(256).regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, { error: 'not a cookie name (RFC 6265, token)' }),
  value: z.string().max(4096).regex(/^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*$/, { error: 'not a cookie value (RFC 6265, cookie-octet)' }),
  path: z.string().startsWith('/').max(1024).optional(),
});

const startTimeout = z.number().min(1).max(600).default(30).describe('seconds to wait before the recording fails');
const start = z.discriminatedUnion('when', [
  z.strictObject({ when: z.literal('load').describe('the page has loaded'), timeout: startTimeout }),
  z.strictObject({
    when: z.literal('signal').describe('the page logs START_RECORDING; END_RECORDING ends the recording'),
    timeout: startTimeout,
  }),
  z.strictObject({
    when: z.literal('selector').describe('an element that matches is in the page'),
    selector: z.string().min(1).max(1000),
    timeout: startTimeout,
  }),
]);

const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** Where a recording's changes of state are told, and what the messages are signed with. Kept sealed. */
export const webhook = z.strictObject({
  url: webUrlOf(2048, 'what is sent is signed with `secret`').describe('http or https; takes one POST for each change of state'),
  secret: z
    .string()
    .min(16)
    .max(256)
    .superRefine((value, context) => {
      const fail = (message: string) => context.addIssue({ code: 'custom', message });
      if (/[\p{C}\p{Zl}\p{Zp}]/u.test(value)) return fail('must have printable characters only');
      const encoded = /^whsec_(.*)$/.exec(value)?.[1];
      // 24 characters of base64 are 16 bytes at least
      if (encoded !== undefined && (!base64.test(encoded) || encoded.length < 24)) {
        return fail('after whsec_ there must be base64, padded, of at least 16 bytes');
      }
    })
    .describe('what is sent is signed with this: printable characters, or `whsec_` and base64 (Standard Webhooks)'),
});
export type Webhook = z.infer<typeof webhook>;

export const MAX_DURATION_DEFAULT = 14_400;

const iceServer = z.strictObject({
  urls: z
    .union([z.string(), z.array(z.string()).min(1).max(4)])
    .refine((value) => [value].flat().every((url) => url.length <= 512 && /^(?:stuns?|turns?):[^\s/@]+$/i.test(url)), {
      error: 'must be stun:, turn: or turns: URLs, without credentials',
    }),
  username: z.string().max(512).optional(),
  credential: z.string().max(512).optional(),
});

const pushUrl = z
  .string()
  .max(2048)
  .superRefine((value, context) => {
    const fail = (message: string) => context.addIssue({ code: 'custom', message });
    if (!URL.canParse(value)) return fail('must be an absolute wss URL');
    const url = new URL(value);
    if (url.protocol !== 'wss:' && url.protocol !== 'ws:') return fail('must be a wss URL');
    if (url.username !== '' || url.password !== '') return fail('must not carry a user name or password: use `token`');
    if (url.hash !== '') return fail('must not have a fragment');
  });

/** As Ant Media Servers take it. */
const streamId = z.string().regex(/^[A-Za-z0-9._-]{1,128}$/, { error: 'must have 1 to 128 of A-Z a-z 0-9 . _ -' });
const secretText = z.string().min(1).max(4096).regex(/^[^\p{Cc}\p{Cs}]*$/u, { error: 'must have printable characters only' });

/** Where a recording is pushed to while it is made. */
export const pushRequest = z.strictObject({
  type: z.literal('antmedia').describe('an Ant Media Server, over WebRTC'),
  url: pushUrl
    .optional()
    .describe("its signalling socket, wss://host/app/websocket; by default of the host that this request came to; a query is kept sealed"),
  app: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/, { error: 'must have 1 to 64 of A-Z a-z 0-9 _ -' })
    .optional()
    .describe('of the default URL: wss://<host>/<app>/websocket; LiveApp where it is missing'),
  streamId: streamId.optional().describe('made up where it is missing'),
  token: secretText.optional().describe('kept sealed'),
  subscriberId: z.string().min(1).max(256).regex(/^[^\p{Cc}\p{Cs}]*$/u, { error: 'must have printable characters only' }).optional(),
  subscriberCode: secretText.optional().describe('kept sealed'),
  iceServers: z.array(iceServer).max(8).optional().describe("instead of the server's own; kept sealed"),
  bitrate: z
    .int()
    .min(150_000)
    .max(50_000_000)
    .optional()
    .describe('bits per second of the picture at most; there is one encoder, so the recording has no more either'),
});
export type PushRequest = z.infer<typeof pushRequest>;
export const PUSHES_AT_MOST = 4;

/** The body of `POST /v1/recordings`. Unknown fields are refused: a misspelt one would silently change a recording. */
export const recordingRequest = z.strictObject({
  url: webUrl.describe('page to record, http or https'),
  width: even(16, 3840).default(1280),
  height: even(16, 2160).default(720),
  frameRate: z.number().min(1).max(60).default(30).describe('frames per second at most; a still page costs fewer'),
  maxDuration: z.number().min(1).optional().describe('wall-clock seconds; default and cap: MAX_DURATION'),
  audio: z.boolean().default(true),
  videoBitrate: z.int().min(50_000).max(50_000_000).optional().describe('bits per second; default from size and rate'),
  audioBitrate: z.int().min(16_000).max(320_000).default(128_000).describe('bits per second'),
  start: start.default({ when: 'load', timeout: 30 }),
  startAt: z.iso.datetime({ offset: true }).optional().describe('time to begin; queued until then'),
  priority: z.int().min(0).max(1000).default(0).describe('0 none; 1 first .. 1000 last'),
  headers: headers.optional().describe("sent to the page's origin only; kept sealed"),
  cookies: z.array(cookie).max(100).optional().describe("sent to the page's origin only; kept sealed"),
  webrtc: z.enum(['proxied', 'direct']).optional().describe("the page's own WebRTC: TURN over TCP or TLS through the filter, or UDP"),
  record: z.boolean().default(true).describe('whether a file is made; false for a recording that is only pushed'),
  push: z.array(pushRequest).max(PUSHES_AT_MOST).optional().describe('where it is pushed to while it is made'),
  webhook: webhook.optional().describe('told of each change of state by a signed POST; kept sealed'),
  metadata: z
    .record(z.string().min(1).max(64), z.string().max(1024))
    .refine((value) => Object.keys(value).length <= 20, { error: 'at most 20 pairs' })
    .optional(),
}).superRefine(({ record, push = [] }, context) => {
  if (!record && push.length === 0) context.addIssue({ code: 'custom', path: ['record'], message: 'false needs `push`: there would be nothing' });
  push.forEach(({ url, app }, i) => {
    if (url !== undefined && app !== undefined) context.addIssue({ code: 'custom', path: ['push', i, 'app'], message: 'is for the default `url`, which is given' });
  });
});
export type RecordingRequest = z.infer<typeof recordingRequest>;

/** Bits per second for a picture: 0.11 bits a pixel, which is 3 Mb/s at 1280x720, 30 fps (measured: SSIM .96). */
export const defaultVideoBitrate = (spec: { width: number; height: number; frameRate: number }): number =>
  Math.min(50_000_000, Math.max(200_000, Math.round((spec.width * spec.height * spec.frameRate * 0.11) / 1000) * 1000));

/** What an Ant Media Server can record a stream as. */
export const serverRecordTypes = ['mp4', 'webm'] as const;

/** A push without its secrets. */
export const pushSpec = z.object({
  type: z.literal('antmedia'),
  /** Absolute; without its query, which may be a credential. */
  url: z.url({ protocol: /^wss?$/ }).max(2048),
  streamId,
  subscriberId: z.string().optional(),
  /** The server is asked to record the stream so. */
  recordType: z.enum(serverRecordTypes).optional(),
});
export type PushSpec = z.infer<typeof pushSpec>;

/** What only the push's server may see; travels sealed. */
export const pushSecrets = z.object({
  /** Of its URL, with the question mark; empty for none. */
  query: z.string().default(''),
  token: z.string().optional(),
  subscriberCode: z.string().optional(),
  iceServers: z.array(iceServer).optional(),
});
export type PushSecrets = z.infer<typeof pushSecrets>;

/** What one recording is to be, all defaults filled in; what a worker works from. No secrets in here. */
export const recordingSpec = z.object({
  url: webUrl,
  width: z.int(),
  height: z.int(),
  frameRate: z.number(),
  /** Wall-clock seconds from the first frame. */
  maxDuration: z.number(),
  audio: z.boolean(),
  /** Bits per second. */
  videoBitrate: z.int(),
  audioBitrate: z.int(),
  start,
  webrtc: z.enum(['proxied', 'direct']),
  /** Whether media are stored and a file is made. */
  record: z.boolean().default(true),
  push: z.array(pushSpec).default([]),
  /** Chrome's, of those that edge/antmedia/switches.ts lets through. */
  switches: z.array(z.string()).optional(),
});
export type RecordingSpec = z.infer<typeof recordingSpec>;

/** What the caller gave in confidence, for the page's origin and for each push; travels sealed. */
export const pageSecrets = z.object({
  headers: z.record(z.string(), z.string()).default({}),
  cookies: z.array(cookie).default([]),
  /** In the order of the spec's; missing where none has any. */
  push: z.array(pushSecrets).optional(),
});
export type PageSecrets = z.infer<typeof pageSecrets>;

/** All that a job carries sealed: that, and the credential for its media URL. */
export const jobSecrets = pageSecrets.extend({ credential: z.string().min(1).max(4096).optional() });
export type JobSecrets = z.infer<typeof jobSecrets>;

export const recordingError = z.object({
  code: z.string(),
  message: z.string(),
  blame: z.enum(['caller', 'target', 'service']),
  retryable: z.boolean(),
});
export type RecordingError = z.infer<typeof recordingError>;

export const pushStates = ['waiting', 'connecting', 'publishing', 'live', 'reconnecting', 'ended', 'failed'] as const;
export type PushState = (typeof pushStates)[number];

/** Of the running attempt, or the last one. */
export const pushStats = z.object({
  bitrate: z.int().describe('bits that left in the last second, all streams and retransmissions together'),
  targetBitrate: z.int().describe('what the way is thought to bear, bits per second'),
  framesSent: z.int(),
  framesDropped: z.int().describe('left out because the way is too slow, up to the next key frame'),
  packetsSent: z.int(),
  packetsResent: z.int(),
  packetsLost: z.int().describe('as the receiver reports it'),
  roundTrip: z.number().nullable().describe('seconds'),
  keyFrameRequests: z.int().describe('made by the receiver'),
  reconnects: z.int().describe('sessions after the first one in which media arrived'),
});
export type PushStats = z.infer<typeof pushStats>;

/** A push as the API answers it. */
export const push = z.object({
  type: z.literal('antmedia'),
  url: z.string().describe('without its query'),
  streamId: z.string(),
  state: z
    .enum(pushStates)
    .describe('waiting until the first picture of an attempt; publishing when the media connection is there, live when the receiver has acknowledged media'),
  error: recordingError.optional().describe('why it is `reconnecting` or `failed`, or was `reconnecting` when it ended'),
  stats: pushStats.nullable(),
});

export const recordingStats = z.object({
  /** Pictures in the media that was made, repeats of a still page included. */
  frames: z.int(),
  /** Frames that the page drew and the recording lacks because a queue was full. */
  dropped: z.int(),
  /** Bytes stored. */
  bytes: z.int(),
  /** New pictures a second, over the last seconds. */
  fps: z.number(),
  /** Bits per second, over the last seconds. */
  bitrate: z.number(),
  /** Seconds that sound has drifted against the picture and was corrected. */
  avDrift: z.number(),
  /** Seconds between now and the end of what is stored. */
  lagSeconds: z.number(),
  /** Of each push, in their order; missing where there is none, or none has begun. */
  push: z.array(pushStats).optional(),
});
export type RecordingStats = z.infer<typeof recordingStats>;
export const noStats: RecordingStats = { frames: 0, dropped: 0, bytes: 0, fps: 0, bitrate: 0, avDrift: 0, lagSeconds: 0 };

export const recordingFile = z.object({
  name: z.string(),
  type: z.string(),
  bytes: z.int(),
  sha256: z.string(),
});
export type RecordingFile = z.infer<typeof recordingFile>;

/** A moment that a caller named; a chapter of the file. */
export const marker = z.object({ label: z.string(), at: z.number().describe("seconds on the recording's timeline") });
export type Marker = z.infer<typeof marker>;
export const MARKERS_AT_MOST = 500;

/** The body of `POST /v1/recordings/:id/markers`. */
export const markerRequest = z.strictObject({
  label: z
    .string()
    .min(1)
    .max(200)
    .regex(/^[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]*$/u, { error: 'must have printable characters only' })
    .describe('a chapter of the file begins here'),
});

/** A stretch of wall time that was cut out. */
export const pause = z.object({
  at: z.number().describe("seconds on the recording's timeline"),
  duration: z.number().describe('seconds that were cut out there'),
});
export type Pause = z.infer<typeof pause>;

/** What was found when the finished file was read back. */
export const verification = z.object({
  ok: z.boolean(),
  checks: z.array(z.object({ name: z.string(), ok: z.boolean(), detail: z.string() })),
});
export type Verification = z.infer<typeof verification>;

export const externalOrigin = z.object({
  scheme: z.enum(['http', 'https']),
  /** Host name or address, an IPv6 one in brackets, without a port. */
  host: z.string(),
  /** Null where it is the scheme's own. */
  port: z.int().nullable(),
  /** Where the answer came from: a setting, a header or the socket. */
  source: z.string(),
});

/** A recording as the API answers it. */
export const recording = z.object({
  id: z.string(),
  state: z.enum(recordingStates),
  desired: z.enum(desiredStates).describe('what was asked for last; the state follows'),
  url: z.string(),
  engine: z.enum(captureEngines).nullable(),
  mediaUrl: z.string(),
  origin: externalOrigin,
  createdAt: z.iso.datetime(),
  startAt: z.iso.datetime({ offset: true }).nullable(),
  startedAt: z.iso.datetime().nullable(),
  endedAt: z.iso.datetime().nullable(),
  /** Seconds recorded so far; exact once completed. */
  duration: z.number(),
  width: z.int(),
  height: z.int(),
  frameRate: z.number(),
  attempts: z.int(),
  stats: recordingStats.omit({ push: true }),
  error: recordingError.optional(),
  warnings: z.array(z.string()),
  push: z.array(push).describe('where it is pushed to'),
  markers: z.array(marker),
  pauses: z.array(pause),
  verification: verification.nullable().describe('of the file, once it is finished'),
  files: z.array(recordingFile),
  metadata: z.record(z.string(), z.string()),
  links: z.object({
    self: z.string(),
    stop: z.string(),
    pause: z.string(),
    resume: z.string(),
    cancel: z.string(),
    markers: z.string(),
    events: z.string(),
    live: z.string(),
    file: z.string(),
    thumbnail: z.string(),
  }),
});
export type Recording = z.infer<typeof recording>;

/** Ids sort by time of creation and can't be guessed: 48 bits of milliseconds, 80 random bits, both base 32 (ULID). */
export function newRecordingId(now: number = Date.now()): string {
  const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';
  let time = '';
  for (let rest = now, i = 0; i < 10; i += 1, rest = Math.floor(rest / 32)) time = alphabet[rest % 32] + time;
  let random = '';
  for (const byte of crypto.getRandomValues(new Uint8Array(16))) random += alphabet[byte % 32];
  return `rec_${time}${random}`;
}
export const recordingId = z.string().regex(/^rec_[0-9a-hjkmnp-tv-z]{26}$/);
