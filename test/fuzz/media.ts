/**
 * Malformed messages to the media sockets of some recordings, by callers who have their credentials, and by some who have not, while
 * another recording is delivered beside them.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { ATTEMPT_HEADER, encodePart, MEDIA_SUBPROTOCOL, ingestMessage, type PartHeader } from '../../shared/media-protocol.ts';
import { failFastRedis } from '../../shared/queue.ts';
import { createRecordingStore } from '../../shared/recording-store.ts';
import type { Recording } from '../../shared/recording.ts';
import { unseal } from '../../shared/token.ts';
import type { TestKey } from '../helpers/keys.ts';
import type { Deployment } from '../helpers/deployment.ts';
import { seeded } from '../soak/outcome.ts';
import { anyText, pick, type Random } from './json.ts';

export type MediaFuzz = { deployment: Deployment; caller: TestKey; secretsKey: string; seed: number; count: number; lanes?: number; told?: (done: number) => void };

export type MediaFuzzResult = {
  /** How sockets ended: by close code, HTTP status, or cut. */
  ends: Map<string, number>;
  /** Of the recording beside them. */
  good: { parts: number; whole: boolean; slowestAckMs: number };
};

/** Bytes of a WebSocket frame as a client sends it (RFC 6455, 5.2), and as none may. */
type Frame = { opcode?: number; fin?: boolean; reserved?: number; masked?: boolean; payload: Uint8Array; length?: number };
const frame = ({ opcode = 2, fin = true, reserved = 0, masked = true, payload, length = payload.length }: Frame): Buffer => {
  const head = [(fin ? 0x80 : 0) | (reserved << 4) | opcode];
  const mask = masked ? 0x80 : 0;
  if (length < 126) head.push(mask | length);
  else if (length < 65_536) head.push(mask | 126, length >> 8, length & 255);
  else head.push(mask | 127, 0, 0, 0, 0, (length >>> 24) & 255, (length >> 16) & 255, (length >> 8) & 255, length & 255);
  // a mask of zeros changes nothing
  return Buffer.concat([Buffer.from(head), ...(masked ? [Buffer.alloc(4)] : []), payload]);
};
const part = (header: unknown, payload: Uint8Array = Buffer.from('x'), length?: number): Buffer => {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const size = Buffer.alloc(4);
  size.writeUInt32BE(length ?? json.length);
  return Buffer.concat([size, json, payload]);
};
const segment = (seq: unknown) => ({ type: 'segment', seq, start: 0, duration: 1, frames: 1 });
const binary = (payload: Uint8Array) => frame({ payload });

const malformed: readonly ((random: Random) => Buffer)[] = [
  (random) => frame({ opcode: 1, payload: Buffer.from(anyText(random)) }),
  () => frame({ opcode: 1, payload: Buffer.from([0xff, 0xfe]) }),
  (random) => binary(randomBytes(Math.floor(random() * 4))),
  (random) => binary(randomBytes(Math.floor(random() * 200))),
  () => binary(part(segment(1), undefined, 4_294_967_295)),
  () => binary(part(segment(1), undefined, 5000)),
  () => binary(part('{"type":')),
  () => binary(Buffer.concat([Buffer.from([0, 0, 0, 2, 0xff, 0xff]), randomBytes(10)])),
  (random) => binary(part(pick(random, [null, 1, 'x', [], {}, [[]], { type: 'x', seq: 1 }, { type: '__proto__', seq: 1 }]))),
  (random) => binary(part(segment(pick(random, [0, -1, 1.5, 2 ** 53, 1e308, '1', null, [1], 2, 7, 1000])))),
  (random) => binary(part({ ...segment(1), [anyText(random)]: 1 })),
  (random) => binary(part({ ...segment(1), start: pick(random, [-1, 1e300, 0.5, '0', null]) })),
  (random) => binary(part({ ...segment(1), duration: pick(random, [0, -1, 1e300, null]) })),
  (random) => binary(part({ ...segment(1), frames: pick(random, [0, -1, 1e300, '9'.repeat(400)]) })),
  (random) => binary(part({ type: pick(random, ['init', 'thumbnail']), seq: 1, name: '../../x' })),
  () => binary(part({ type: 'init', seq: 1 }, new Uint8Array())),
  () => binary(part({ type: 'end', seq: 1, duration: -1 })),
  (random) => binary(part(segment(1), Buffer.alloc(Math.floor(random() * 100_000)), 4096)),
  () => frame({ payload: randomBytes(10), masked: false }),
  (random) => frame({ payload: randomBytes(10), reserved: 1 + Math.floor(random() * 7) }),
  (random) => frame({ payload: randomBytes(10), opcode: pick(random, [3, 4, 7, 11, 15]) }),
  () => frame({ payload: randomBytes(200), opcode: 9 }),
  () => frame({ payload: Buffer.from([0x03]), opcode: 8 }),
  () => frame({ payload: Buffer.from([0x03, 0xee]), opcode: 8 }),
  () => frame({ payload: Buffer.from('x'), opcode: 0 }),
  () => Buffer.concat([frame({ payload: Buffer.from('x'), fin: false }), frame({ payload: Buffer.from('x') })]),
  () => frame({ payload: Buffer.alloc(10), length: 40 * 2 ** 20 }),
  () => frame({ payload: Buffer.alloc(10), length: 2 ** 31 }),
  (random) => randomBytes(1 + Math.floor(random() * 100)),
];
/** What is no fault by itself: a socket lives through them, and further ones follow. */
const borne: readonly ((random: Random) => Buffer)[] = [
  () => frame({ payload: Buffer.from('ping'), opcode: 9 }),
  () => frame({ payload: new Uint8Array(), opcode: 10 }),
];

/** @throws {Error} where the edge ends, hangs, or harms what is delivered beside */
export async function fuzzMedia({ deployment, caller, secretsKey, seed, count, lanes = 8, told = () => undefined }: MediaFuzz): Promise<MediaFuzzResult> {
  const random = seeded(seed);
  await using stack = new AsyncDisposableStack();
  const redis = failFastRedis({ redisUrl: deployment.redisUrl }, () => undefined);
  stack.defer(() => redis.disconnect());
  const store = createRecordingStore(redis, 'tabreel');
  const started = async () => {
    const { status, text } = await deployment.call('/v1/recordings', caller, { method: 'POST', body: { url: 'https://example.com/' } });
    if (status !== 202) throw new Error(`${status} ${text}`);
    const { id } = JSON.parse(text) as Recording;
    const { attempt = 0 } = (await store.claim(id)) ?? {};
    await store.change(id, { from: ['starting'], to: 'recording', attempt, engine: 'tab', startedAt: Date.now() });
    const { sealed } = (await store.get(id))?.job ?? {};
    const { credential } = (await unseal([secretsKey], id, sealed ?? '')) as { credential: string };
    return { id, attempt, credential };
  };
  const good = await started();
  const hostile = await Promise.all(Array.from({ length: 10 }, started));
  const { port } = new URL(deployment.url);
  const ends = new Map<string, number>();
  const count1 = (what: string) => ends.set(what, (ends.get(what) ?? 0) + 1);

  let over = false;
  const delivered = deliver(deployment, good, () => over);
  // who waits for it hears of it at the end
  delivered.catch(() => undefined);
  let sent = 0;
  const lane = async () => {
    while (sent < count) {
      const { id, attempt, credential } = pick(random, hostile);
      const wrong = random() < 0.1;
      const headers = [
        `GET ${wrong && random() < 0.3 ? `/v1/recordings/${encodeURIComponent(anyText(random).toWellFormed()).slice(0, 3000)}/media` : `/v1/recordings/${id}/media`} HTTP/1.1`,
        `host: 127.0.0.1:${port}`,
        'connection: Upgrade',
        'upgrade: websocket',
        'sec-websocket-version: 13',
        `sec-websocket-key: ${wrong && random() < 0.2 ? 'x' : randomBytes(16).toString('base64')}`,
        `sec-websocket-protocol: ${wrong && random() < 0.2 ? 'chat' : MEDIA_SUBPROTOCOL}`,
        `authorization: Bearer ${wrong ? pick(random, [good.credential.slice(0, -2), 'x.y.z', good.credential, credential]) : credential}`,
        `${ATTEMPT_HEADER}: ${wrong ? pick(random, ['0', '-1', 'x', '99', '1e9', String(attempt)]) : attempt}`,
      ].join('\r\n');
      const frames: Buffer[] = [];
      while (frames.length < 12 && random() < 0.7) frames.push(pick(random, borne)(random));
      const faults = 1 + Math.floor(random() * 3);
      for (let i = 0; i < faults; i += 1) frames.push(pick(random, malformed)(random));
      sent += faults;
      const cut = random() < 0.05;
      count1(await attack(Number(port), `${headers}\r\n\r\n`, frames, cut));
      if (Math.floor(sent / 10_000) !== Math.floor((sent - faults) / 10_000)) told(sent);
    }
  };
  try {
    await Promise.all(Array.from({ length: lanes }, lane));
    if (deployment.edge.child.exitCode !== null) throw new Error(`the edge ended: ${deployment.edge.output().slice(-3000)}`);
  } finally {
    over = true;
  }
  return { ends, good: await delivered };
}

/** @returns how the socket ended */
function attack(port: number, handshake: string, frames: readonly Buffer[], cut: boolean): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const socket: Socket = connect(port, '127.0.0.1');
  const timer = setTimeout(() => {
    resolve('open, as it waits for the rest of a frame');
    socket.destroy();
  }, 250);
  let got = Buffer.alloc(0);
  let upgraded = false;
  socket.on('connect', () => socket.write(handshake));
  socket.on('data', (data) => {
    got = Buffer.concat([got, data]);
    const text = got.toString('latin1');
    const status = /^HTTP\/1\.1 (\d+)/.exec(text)?.[1];
    if (!upgraded && status === '101' && text.includes('\r\n\r\n')) {
      upgraded = true;
      got = got.subarray(text.indexOf('\r\n\r\n') + 4);
      for (const each of frames) socket.write(cut ? each.subarray(0, Math.ceil(each.length / 2)) : each);
      if (cut) socket.destroy();
    } else if (!upgraded && status !== undefined) resolve(`HTTP ${status}`);
    // the server's frames are short: a close is 0x88, its length, its code
    const at = upgraded ? got.indexOf(0x88) : -1;
    if (at !== -1 && got.length >= at + 4) {
      resolve(`close ${got.readUInt16BE(at + 2)}`);
      socket.end();
    }
  });
  socket.on('error', () => resolve('reset'));
  socket.on('close', () => resolve(cut ? 'cut by us' : 'cut'));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.destroy();
  });
}

/** Sends a part every 30 ms until it is over, and looks at what is stored. */
async function deliver(deployment: Deployment, { id, attempt, credential }: { id: string; attempt: number; credential: string }, isOver: () => boolean): Promise<MediaFuzzResult['good']> {
  const ws = new WebSocket(`${deployment.url.replace('http', 'ws')}/v1/recordings/${id}/media`, MEDIA_SUBPROTOCOL, { headers: { authorization: `Bearer ${credential}`, [ATTEMPT_HEADER]: String(attempt) }, perMessageDeflate: false });
  const sentAt = new Map<number, number>();
  const hashes: string[] = [];
  let acked = 0;
  let slowestAckMs = 0;
  let ended = '';
  ws.on('message', (data) => {
    const message = ingestMessage.parse(JSON.parse((data as Buffer).toString()));
    if (message.type !== 'ack') return;
    acked = message.seq;
    slowestAckMs = Math.max(slowestAckMs, performance.now() - (sentAt.get(message.seq) ?? Infinity));
  });
  ws.on('close', (code, reason) => (ended = `${code} ${reason.toString()}`));
  await new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject));
  for (let seq = 1; !isOver() || seq < 20; seq += 1) {
    if (ended !== '') throw new Error(`the media socket beside was closed: ${ended}`);
    const payload = randomBytes(5000);
    const header: PartHeader = seq === 1 ? { type: 'init', seq } : { type: 'segment', seq, start: (seq - 2) * 30_000, duration: 30_000, frames: 1 };
    hashes.push(createHash('sha256').update(payload).digest('hex'));
    sentAt.set(seq, performance.now());
    ws.send(Buffer.concat(encodePart({ header, payload })));
    await sleep(30);
  }
  for (const until = Date.now() + 10_000; acked < hashes.length && Date.now() < until; ) await sleep(20);
  ws.close();
  const directory = join(deployment.directory, 'storage', id, 'parts');
  const stored = new Set(readdirSync(directory).map((name) => createHash('sha256').update(readFileSync(join(directory, name))).digest('hex')));
  return { parts: hashes.length, whole: acked === hashes.length && hashes.every((hash) => stored.has(hash)), slowestAckMs: Math.round(slowestAckMs) };
}
