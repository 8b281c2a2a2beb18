/**
 * The media socket: how a worker's media gets into the ingest. Documented in docs/media-protocol.md.
 *
 * The worker dials the job's media URL (WebSocket, subprotocol `tabreel.media.v1`), its credential in the handshake's
 * Authorization header and the attempt's number in `Tabreel-Attempt`. It sends binary messages, each a part: a header and
 * bytes. The ingest answers text messages. A part is acknowledged once it is stored, by its sequence number; what is not
 * acknowledged is sent again after a reconnect, to whichever edge answers.
 */
import { z } from 'zod';

export const MEDIA_SUBPROTOCOL = 'tabreel.media.v1';
export const ATTEMPT_HEADER = 'tabreel-attempt';
/** Counts the dials of an attempt from 1, so that a connection that arrives late is known for an old one. */
export const DIAL_HEADER = 'tabreel-dial';
/** The last part that was acknowledged to the worker, which doesn't keep what is before. */
export const ACKED_HEADER = 'tabreel-acked';
/** The attempt token that came last: it admits the attempt where an edge can't read the record. */
export const ATTEMPT_TOKEN_HEADER = 'tabreel-attempt-token';

/** Milliseconds between the pings that both sides send. */
export const PING_MS = 5000;
/** A peer that leaves this many of them unanswered, while nothing else comes from it either, is dead: after 25 to 30 seconds. */
export const MISSED_PINGS = 5;

/** Bytes of one message at most: two seconds at 50 Mb/s fit twice. */
export const MAX_PART_BYTES = 32 * 1024 * 1024;

/** Why a media socket was closed (RFC 6455 leaves 4000 to 4999 to applications). */
export const closeCodes = {
  /** All is stored and the worker said so. */
  done: { code: 1000, retry: false },
  /** The edge is leaving, or a newer socket took over, here or at another edge: dial again. */
  goingAway: { code: 1001, retry: true },
  /** Something broke in the ingest: dial again. */
  internal: { code: 1011, retry: true },
  /** A message that is not of this protocol. */
  malformed: { code: 4400, retry: false },
  /** A newer attempt owns the recording: end yourself. */
  fenced: { code: 4409, retry: false },
  /** The recording is over or deleted. */
  over: { code: 4410, retry: false },
  /** The storage is full. */
  storageFull: { code: 4507, retry: true },
} as const;

const common = {
  /** 1 for the first part of an attempt, one more for each that follows. */
  seq: z.int().min(1),
};

export const partHeader = z.discriminatedUnion('type', [
  /** CMAF header (ftyp, moov) of the segments that follow, up to the next one. */
  z.strictObject({ type: z.literal('init'), ...common }),
  /** CMAF segment (moof, mdat), picture and sound in one, that begins with a key frame. */
  z.strictObject({
    type: z.literal('segment'),
    ...common,
    /**
     * Microseconds on the recording's timeline, which begins with its first frame, goes on between attempts and stands
     * still in pauses. The media's own times are the same.
     */
    start: z.int().min(0),
    duration: z.int().min(1),
    /** Pictures in it. */
    frames: z.int().min(1),
  }),
  /** JPEG of an early frame. */
  z.strictObject({ type: z.literal('thumbnail'), ...common }),
  /** Nothing follows of this attempt, which ends at `duration` of the recording's timeline. Acknowledged like the rest. */
  z.strictObject({ type: z.literal('end'), ...common, duration: z.int().min(0) }),
]);
export type PartHeader = z.infer<typeof partHeader>;
export type Part = { header: PartHeader; payload: Uint8Array };

/** A part as one binary message: length of the header (32 bits, big endian), header (JSON, UTF-8), payload. */
export function encodePart({ header, payload }: Part): Uint8Array[] {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, json.length);
  return [length, json, payload];
}

/** @throws {TypeError} where the message is not a part; its text may go back to the sender. */
export function decodePart(message: Uint8Array): Part {
  if (message.length < 4) throw new TypeError('a part has at least 4 bytes');
  const length = new DataView(message.buffer, message.byteOffset).getUint32(0);
  if (length > 4096 || 4 + length > message.length) throw new TypeError(`the header's length of ${length} does not fit the message`);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(message.subarray(4, 4 + length)));
  } catch {
    throw new TypeError('the header is not JSON');
  }
  const header = partHeader.safeParse(json);
  if (!header.success) {
    const issue = header.error.issues[0];
    throw new TypeError(`the header is not valid at ${issue?.path.join('.') || 'its root'}: ${issue?.message ?? ''}`);
  }
  return { header: header.data, payload: message.subarray(4 + length) };
}

/** What the ingest says, one JSON text message each. */
export const ingestMessage = z.discriminatedUnion('type', [
  /** First message on every socket: the last part of this attempt that is stored, 0 for none; and an attempt token. */
  z.object({ type: z.literal('welcome'), acked: z.int().min(0), token: z.string().max(4096).optional() }),
  /** A newer attempt token. */
  z.object({ type: z.literal('token'), token: z.string().max(4096) }),
  /** This part and all before it are stored. */
  z.object({ type: z.literal('ack'), seq: z.int().min(1) }),
]);
export type IngestMessage = z.infer<typeof ingestMessage>;
