import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { diskStorage } from '../../edge/storage/disk.ts';
import { storageFull, type Storage } from '../../edge/storage/storage.ts';
import { ACKED_HEADER, ATTEMPT_HEADER, ATTEMPT_TOKEN_HEADER, DIAL_HEADER, MEDIA_SUBPROTOCOL } from '../../shared/media-protocol.ts';
import type { Recording } from '../../shared/recording.ts';
import { hasRedisServer, startRedis, type TestRedis } from '../helpers/redis.ts';
import type { CmafPart } from './cmaf.ts';
import { dial, testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
let created: Recording;
let attempt: number;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis);
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});
beforeEach(async () => {
  created = await edge.create();
  attempt = await edge.control.run(created.id);
});

const init: CmafPart = { header: { type: 'init', seq: 1 }, payload: new Uint8Array([1]) };
const segment = (seq: number, bytes = 1000): CmafPart => ({
  header: { type: 'segment', seq, start: (seq - 2) * 1_000_000, duration: 1_000_000, frames: 30 },
  payload: new Uint8Array(bytes).fill(seq),
});
const stored = async (id: string) => (await diskStorage(edge.directory).list(`${id}/parts/`)).map(({ key }) => key.split('/').at(-1) ?? '');

describe('parts', () => {
  test('are acknowledged once stored, each once, in order', async () => {
    const worker = await dial(edge, created, attempt);
    worker.send(init, segment(2), segment(3), segment(4));
    await worker.acked(4);
    expect(worker.messages).toEqual([{ type: 'welcome', acked: 0, token: expect.stringMatching(/^ey/) }, ...[1, 2, 3, 4].map((seq) => ({ type: 'ack', seq }))]);
    expect(await stored(created.id)).toHaveLength(4);
    worker.close();
  });

  test('that come twice are acknowledged again and stored once', async () => {
    const worker = await dial(edge, created, attempt);
    worker.send(init, segment(2));
    await worker.acked(2);
    worker.send({ ...segment(2), payload: new Uint8Array([9, 9]) }, segment(3));
    await worker.acked(3);
    expect(worker.messages.filter((message) => message.type === 'ack' && message.seq === 2)).toHaveLength(2);
    const bytes = await diskStorage(edge.directory).get(`${created.id}/parts/${(await stored(created.id))[1]}`);
    expect(bytes?.length).toBe(1000);
    worker.close();
  });

  test.each<[string, (worker: Awaited<ReturnType<typeof dial>>) => void]>([
    ['leave a gap', (worker) => worker.send(init, segment(3))],
    ['are text', (worker) => worker.sendRaw('hello')],
    ['are no parts', (worker) => worker.sendRaw(new Uint8Array([1, 2, 3, 4, 5]))],
    ['are empty', (worker) => worker.send({ ...init, payload: new Uint8Array() })],
  ])('that %s close the socket as malformed', async (_name, misbehave) => {
    const worker = await dial(edge, created, attempt);
    await worker.welcome;
    misbehave(worker);
    expect((await worker.closed).code).toBe(4400);
  });

  test('go on where they broke off, on this edge and on one that knows nothing yet', async () => {
    const first = await dial(edge, created, attempt);
    first.send(init, segment(2), segment(3));
    await first.acked(3);
    first.ws.terminate();
    const second = await dial(edge, created, attempt);
    expect(await second.welcome).toBe(3);
    second.send(segment(4));
    await second.acked(4);
    second.close();
    await second.closed;

    await using restarted = await testEdge(redis, { queuePrefix: edge.config.queuePrefix, storageUrl: edge.config.storageUrl });
    const mediaUrl = created.mediaUrl.replace(edge.url.replace('http', 'ws'), restarted.url.replace('http', 'ws'));
    const third = await dial(restarted, { id: created.id, mediaUrl }, attempt);
    expect(await third.welcome).toBe(4);
    third.send(segment(5));
    await third.acked(5);
    expect((await restarted.api(`/v1/recordings/${created.id}/live.m3u8`)).body.match(/EXTINF/g)).toHaveLength(4);
    // the first edge has a listing of its own, which is good for a second
    await sleep(1100);
    expect((await edge.api(`/v1/recordings/${created.id}/live.m3u8`)).body.match(/EXTINF/g)).toHaveLength(4);
    third.close();
  });
});

describe('sockets', () => {
  test('are counted, those that came again among them, and by how they were closed', async () => {
    const count = async (name: string) => Number(new RegExp(`^tabreel_media_sockets_${name.replaceAll(/[{}]/g, '\\$&')} (\\d+)$`, 'm').exec((await edge.api('/metrics')).body)?.[1] ?? 0);
    const names = ['opened_total{socket="first"}', 'opened_total{socket="again"}', 'closed_total{code="1000"}', 'closed_total{code="1006"}'] as const;
    const counts = () => Promise.all(names.map(count));
    const before = await counts();
    const first = await dial(edge, created, attempt);
    first.send(init);
    await first.acked(1);
    first.ws.terminate();
    const second = await dial(edge, created, attempt);
    await second.welcome;
    second.ws.close(1000);
    await second.closed;
    await expect.poll(async () => (await counts()).map((value, i) => value - (before[i] ?? 0))).toEqual([1, 1, 1, 1]);
  });

  test('are told what is missing where a proxy made an ordinary request of the upgrade', async () => {
    const { status, body, headers } = await edge.api(new URL(created.mediaUrl).pathname);
    expect({ status, upgrade: headers.get('upgrade') }).toEqual({ status: 426, upgrade: 'websocket' });
    expect(body).toMatchObject({ code: 'upgrade_required', detail: expect.stringContaining('Connection: Upgrade') });
  });

  test('a second one of the same attempt takes over', async () => {
    const first = await dial(edge, created, attempt);
    first.send(init, segment(2));
    await first.acked(2);
    const second = await dial(edge, created, attempt);
    expect((await first.closed).code).toBe(1001);
    expect(await second.welcome).toBe(2);
    second.send(segment(3));
    await second.acked(3);
    second.close();
  });

  test('that arrive late, when a newer one of the same worker is open, are told to go, and disturb nothing', async () => {
    const newer = await dial(edge, created, attempt, { [DIAL_HEADER]: '4' });
    newer.send(init, segment(2));
    await newer.acked(2);
    const late = await dial(edge, created, attempt, { [DIAL_HEADER]: '3' });
    expect(await late.closed).toEqual({ code: 1001, reason: 'a newer socket is open' });
    newer.send(segment(3));
    await newer.acked(3);
    const next = await dial(edge, created, attempt, { [DIAL_HEADER]: '5' });
    expect((await newer.closed).code).toBe(1001);
    expect(await next.welcome).toBe(3);
    next.close();
  });

  test('go on from what was acknowledged where a listing does not show it, and the recording is told', async () => {
    const worker = await dial(edge, created, attempt, { [ACKED_HEADER]: '5' });
    expect(await worker.welcome).toBe(5);
    worker.send(segment(6), segment(7));
    await worker.acked(7);
    expect(await stored(created.id)).toHaveLength(2);
    await expect.poll(async () => (await edge.get(created.id)).warnings?.join()).toContain('need the same storage');
    worker.close();
  });

  test('a newer attempt fences the older one, at once and when it dials again', async () => {
    const old = await dial(edge, created, attempt);
    old.send(init);
    await old.acked(1);
    await edge.control.redis.zadd(`${edge.config.queuePrefix}:beats`, 0, created.id);
    const next = await edge.control.run(created.id);
    expect(next).toBe(attempt + 1);
    expect((await old.closed).code).toBe(4409);
    const again = await dial(edge, created, attempt);
    expect((await again.closed).code).toBe(4409);
    const newer = await dial(edge, created, next);
    expect(await newer.welcome).toBe(0);
    newer.close();
  });

  test('end with the recording: deleted, or over', async () => {
    const worker = await dial(edge, created, attempt);
    await worker.welcome;
    await edge.api(`/v1/recordings/${created.id}`, { method: 'DELETE' });
    expect((await worker.closed).code).toBe(4410);

    const other = await edge.create();
    const otherAttempt = await edge.control.run(other.id);
    const second = await dial(edge, other, otherAttempt);
    await second.welcome;
    await edge.control.store.change(other.id, { from: ['recording'], to: 'failed' });
    expect((await second.closed).code).toBe(4410);
  });

  test('are refused on the upgrade, with the reason', async () => {
    const credential = await edge.control.credential(created.id);
    const other = await edge.create();
    const status = (url: string, headers: Record<string, string>, protocol: string | undefined = MEDIA_SUBPROTOCOL) =>
      new Promise<number | undefined>((resolve) => {
        const ws = new WebSocket(url, protocol, { headers });
        ws.on('unexpected-response', (_request, response) => {
          expect(response.headers['content-type']).toBe('application/problem+json');
          resolve(response.statusCode);
          response.destroy();
        });
        ws.on('open', () => resolve(101));
        ws.on('error', () => undefined);
      });
    const good = { authorization: `Bearer ${credential}`, [ATTEMPT_HEADER]: String(attempt) };
    expect(await status(created.mediaUrl, {})).toBe(401);
    expect(await status(created.mediaUrl, { ...good, authorization: 'Bearer x' })).toBe(401);
    expect(await status(other.mediaUrl, good)).toBe(401);
    const view = new URL(created.links.live).searchParams.get('token');
    expect(await status(created.mediaUrl, { ...good, authorization: `Bearer ${view}` })).toBe(401);
    expect(await status(created.mediaUrl, { ...good, [ATTEMPT_HEADER]: '0' })).toBe(400);
    expect(await status(created.mediaUrl, { ...good, [ATTEMPT_HEADER]: '9' })).toBe(400);
    expect(await status(created.mediaUrl, good, 'other')).toBe(400);
    expect(await status(created.mediaUrl.replace('/media', '/other'), good)).toBe(404);
    await edge.control.store.change(created.id, { from: ['recording'], to: 'failed' });
    expect(await status(created.mediaUrl, good)).toBe(410);
  });

  test('are closed when the edge leaves, with what was sent stored or not acknowledged', async () => {
    const leaving = await testEdge(redis);
    const own = await leaving.create();
    const worker = await dial(leaving, own, await leaving.control.run(own.id));
    worker.send(init, segment(2));
    await worker.acked(2);
    const begin = Date.now();
    await leaving[Symbol.asyncDispose]();
    expect((await worker.closed).code).toBe(1001);
    expect(Date.now() - begin).toBeLessThan(10_000);
  });
});

describe('an attempt token', () => {
  test.runIf(hasRedisServer)('comes with the welcome, and admits only its own attempt, only beside the credential and only without Redis', async () => {
    const own = await startRedis();
    await using alone = await testEdge(own);
    const one = await alone.create();
    const number = await alone.control.run(one.id);
    const worker = await dial(alone, one, number);
    await worker.welcome;
    const [first] = worker.messages;
    const token = first?.type === 'welcome' ? (first.token ?? '') : '';
    const credential = await alone.control.credential(one.id);
    worker.ws.terminate();
    await own[Symbol.asyncDispose]();
    const status = (headers: Record<string, string>) =>
      new Promise<number | undefined>((resolve) => {
        const ws = new WebSocket(one.mediaUrl, MEDIA_SUBPROTOCOL, { headers: { authorization: `Bearer ${credential}`, [ATTEMPT_HEADER]: String(number), ...headers } });
        ws.on('unexpected-response', (_request, response) => {
          resolve(response.statusCode);
          response.destroy();
        });
        ws.on('open', () => {
          resolve(101);
          ws.terminate();
        });
        ws.on('error', () => undefined);
      });
    expect(await status({})).toBe(503);
    expect(await status({ [ATTEMPT_TOKEN_HEADER]: credential })).toBe(503);
    expect(await status({ [ATTEMPT_TOKEN_HEADER]: token, [ATTEMPT_HEADER]: String(number + 1) })).toBe(503);
    expect(await status({ [ATTEMPT_TOKEN_HEADER]: token, authorization: `Bearer ${token}` })).toBe(401);
    expect(await status({ [ATTEMPT_TOKEN_HEADER]: token })).toBe(101);
  }, 15_000);
});

describe('storage', () => {
  let directory: string;
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'tabreel-slow-'));
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  test('that is full closes the socket, and what is stored counts', async () => {
    const disk = diskStorage(directory);
    let full = false;
    const storage: Storage = { ...disk, put: (key, bytes) => (full ? Promise.reject(storageFull()) : disk.put(key, bytes)) };
    await using own = await testEdge(redis, {}, { storage });
    const one = await own.create();
    const number = await own.control.run(one.id);
    const worker = await dial(own, one, number);
    worker.send(init);
    await worker.acked(1);
    full = true;
    worker.send(segment(2));
    expect((await worker.closed).code).toBe(4507);
    full = false;
    const again = await dial(own, one, number);
    expect(await again.welcome).toBe(1);
    again.send(segment(2));
    await again.acked(2);
    again.close();
  });

  test('that takes long for a part is not given it twice by the next socket, which is welcome all the same', async () => {
    const disk = diskStorage(directory);
    const gate = Promise.withResolvers<void>();
    const puts: string[] = [];
    const storage: Storage = {
      ...disk,
      async put(key, bytes) {
        puts.push(key);
        if (puts.length === 2) await gate.promise;
        await disk.put(key, bytes);
      },
    };
    await using own = await testEdge(redis, {}, { storage });
    const one = await own.create();
    const number = await own.control.run(one.id);
    const first = await dial(own, one, number);
    first.send(init, segment(2));
    await first.acked(1);
    first.ws.terminate();
    const second = await dial(own, one, number);
    // it waits for the part for some seconds, not for ever
    expect(await second.welcome).toBe(1);
    second.send(segment(2), segment(3));
    await sleep(100);
    expect(puts).toHaveLength(2);
    gate.resolve();
    await second.acked(3);
    expect(puts).toHaveLength(3);
    expect(new Set(puts).size).toBe(3);
    second.close();
  }, 10_000);

  test('that is slow is waited for: the worker is not read from, and nothing is lost', async () => {
    const disk = diskStorage(directory);
    let writing = 0;
    const gate = Promise.withResolvers<void>();
    const storage: Storage = {
      ...disk,
      async put(key, bytes) {
        writing += 1;
        await gate.promise;
        await disk.put(key, bytes);
        writing -= 1;
      },
    };
    await using own = await testEdge(redis, {}, { storage });
    const one = await own.create();
    const worker = await dial(own, one, await own.control.run(one.id));
    await worker.welcome;
    const megabyte = 1024 * 1024;
    worker.send(init);
    for (let seq = 2; seq <= 41; seq += 1) worker.send(segment(seq, megabyte));
    await sleep(600);
    expect(writing).toBe(1);
    // 16 MiB are taken, the rest stays with the sender and in the sockets between
    expect(worker.ws.bufferedAmount).toBeGreaterThan(8 * megabyte);
    gate.resolve();
    await worker.acked(41);
    worker.close();
  });
});
