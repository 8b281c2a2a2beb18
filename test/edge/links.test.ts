import { afterAll, beforeAll, expect, test } from 'vitest';
import { ATTEMPT_HEADER, MEDIA_SUBPROTOCOL } from '../../shared/media-protocol.ts';
import type { Recording } from '../../shared/recording.ts';
import { signAttemptToken, signToken } from '../../shared/token.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { WebSocket } from 'ws';
import { makeCmaf } from './cmaf.ts';
import { dial, eventually, testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
let finaliser: AsyncDisposable;
let done: Recording;
let other: Recording;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis);
  finaliser = await edge.finaliser();
  const { parts } = await makeCmaf({ seconds: 2 });
  const thumbnail = { header: { type: 'thumbnail' as const, seq: parts.length }, payload: new Uint8Array([0xff, 0xd8, 0xff, 0xd9]) };
  const last = parts.at(-1)!;
  const created = await edge.create();
  other = await edge.create();
  const worker = await dial(edge, created, await edge.control.run(created.id));
  worker.send(...parts.slice(0, -1), thumbnail, { ...last, header: { ...last.header, seq: parts.length + 1 } });
  await worker.acked(parts.length + 1);
  await edge.control.finish(created.id);
  done = await eventually(() => edge.get(created.id), ({ state }) => state === 'completed');
});
afterAll(async () => {
  await finaliser?.[Symbol.asyncDispose]();
  await edge?.[Symbol.asyncDispose]();
  await redis?.[Symbol.asyncDispose]();
});

const paths = ['recording.mp4', 'thumbnail.jpg', 'manifest.json', 'live.m3u8', 'events'];
const status = async (id: string, path: string, token: string) => {
  const response = await fetch(`${edge.url}/v1/recordings/${id}/${path}?token=${encodeURIComponent(token)}`);
  await response.body?.cancel();
  return response.status;
};
const secrets = () => edge.config.tokenSecrets ?? [];
const soon = () => Date.now() + 60_000;

test('a link opens what it leads to, for a day', async () => {
  for (const link of [done.links.file, done.links.thumbnail, done.links.live, done.links.events]) {
    const response = await fetch(link);
    await response.body?.cancel();
    expect(response.status).toBe(200);
  }
  const claims = JSON.parse(Buffer.from(new URL(done.links.file).searchParams.get('token')?.split('.')[1] ?? '', 'base64url').toString());
  expect(claims).toMatchObject({ sub: done.id, use: 'view' });
  expect(Math.abs(claims.exp * 1000 - (Date.now() + 24 * 3_600_000))).toBeLessThan(60_000);
});

test.each(paths)('a token for %s expires, is for one recording and one use, and is ours', async (path) => {
  const open = (token: string, id = done.id) => status(id, path, token);
  expect(await open(await signToken(secrets(), done.id, 'view', soon()))).toBe(200);
  expect(await open(await signToken(secrets(), done.id, 'view', Date.now() - 1000))).toBe(401);
  expect(await open(await signToken(secrets(), other.id, 'view', soon()))).toBe(401);
  expect(await open(new URL(done.links.file).searchParams.get('token') ?? '', other.id)).toBe(401);
  // what a worker holds sends media and opens nothing
  expect(await open(await edge.control.credential(done.id))).toBe(401);
  expect(await open(await signAttemptToken(secrets(), done.id, 1, soon()))).toBe(401);
  expect(await open(await signToken(['somebody-elses-secret'], done.id, 'view', soon()))).toBe(401);
  expect(await open(`${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(JSON.stringify({ sub: done.id, use: 'view' })).toString('base64url')}.`)).toBe(401);
});

test('a token for viewers takes no media', async () => {
  const attempt = await edge.control.run(other.id);
  const token = new URL(other.links.live).searchParams.get('token') ?? '';
  const ws = new WebSocket(other.mediaUrl, MEDIA_SUBPROTOCOL, { headers: { authorization: `Bearer ${token}`, [ATTEMPT_HEADER]: String(attempt) } });
  const refused = await new Promise((resolve) => {
    ws.on('unexpected-response', (_request, response) => resolve(response.statusCode));
    ws.on('open', () => resolve('open'));
  });
  expect(refused).toBe(401);
});

test('only reading is answered where the files are', async () => {
  for (const method of ['PUT', 'POST', 'DELETE', 'PATCH']) {
    expect((await fetch(done.links.file, { method })).status).toBe(405);
  }
  expect((await fetch(done.links.file, { method: 'HEAD' })).status).toBe(200);
});
