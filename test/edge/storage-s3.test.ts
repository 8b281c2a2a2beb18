import { existsSync, readdirSync, statSync, utimesSync } from 'node:fs';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { S3Patience } from '../../edge/storage/s3-client.ts';
import type { S3Settings } from '../../edge/storage/s3-settings.ts';
import { s3Storage } from '../../edge/storage/s3.ts';
import { describeStorage, type StorageUnderTest } from '../conformance/storage.ts';
import { startFaultyProxy } from '../helpers/faulty-proxy.ts';
import { startRedis } from '../helpers/redis.ts';
import { s3Server, type S3Server } from '../helpers/s3-server.ts';
import { lacks } from '../helpers/service.ts';
import { makeCmaf } from './cmaf.ts';
import { dial, eventually, testEdge } from './harness.ts';

const MIB = 2 ** 20;
/** The least that S3 allows. */
const partBytes = 5 * MIB;

async function openS3(settings: Partial<S3Settings> = {}): Promise<StorageUnderTest> {
  const server = await s3Server();
  await server.start();
  const uploads = join(server.directory, '.sgwtmp', 'multipart');
  const unfinished = () =>
    existsSync(uploads)
      ? readdirSync(uploads, { recursive: true, encoding: 'utf8' })
          .map((path) => join(uploads, path))
          .filter((path) => statSync(path).isFile())
      : [];
  const open = () => s3Storage({ ...server.settings, ...settings }, { partBytes });
  return {
    storage: open(),
    beside: open(),
    root: join(server.directory, server.settings.prefix),
    unfinished,
    age() {
      const then = Date.now() / 1000 - 2 * 86_400;
      for (const path of readdirSync(uploads, { recursive: true, encoding: 'utf8' })) utimesSync(join(uploads, path), then, then);
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** What an HTTP proxy before the storage does to a request. */
type Fault = 'lose the answer' | { status: number; code: string } | null;

/** Before the server, for faults that a TCP proxy can't choose. Signatures hold, as the Host header stays. */
async function httpProxy(target: S3Server, faultOf: (request: IncomingMessage) => Fault) {
  const requests: string[] = [];
  const server = createServer((incoming: IncomingMessage, outgoing: ServerResponse) => {
    requests.push(`${incoming.method} ${incoming.url}`);
    const fault = faultOf(incoming);
    if (fault !== null && typeof fault === 'object') {
      incoming.resume().on('end', () =>
        outgoing.writeHead(fault.status, { 'content-type': 'application/xml' }).end(`<Error><Code>${fault.code}</Code><Message>no</Message></Error>`),
      );
      return;
    }
    const onward = request({ host: '127.0.0.1', port: target.port, method: incoming.method, path: incoming.url, headers: incoming.headers }, (answer) => {
      if (fault === 'lose the answer') {
        answer.resume().on('end', () => outgoing.destroy());
        return;
      }
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
    onward.on('error', () => outgoing.destroy());
    incoming.pipe(onward);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    requests,
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const noServer = await lacks('versitygw');

describe.skipIf(noServer)('an S3 server', () => {
  describeStorage('storage in S3', () => openS3());

  describe('in trouble', { timeout: 20_000 }, () => {
    let server: S3Server;
    const open = (settings: Partial<S3Settings> = {}, patience: Partial<S3Patience> = {}) => s3Storage({ ...server.settings, ...settings }, { partBytes, patience });
    beforeAll(async () => {
      server = await s3Server();
      await server.start();
    });
    afterAll(() => server?.[Symbol.asyncDispose]());

    test('that refuses checksums which S3 does not demand is written to without', async () => {
      await using proxy = await httpProxy(server, ({ method, headers }) =>
        method === 'PUT' && Object.keys(headers).some((name) => name.startsWith('x-amz-checksum') || name.startsWith('x-amz-sdk-checksum'))
          ? { status: 400, code: 'NotImplemented' }
          : null,
      );
      await expect(open({ endpoint: proxy.endpoint }).put('rec_1/a', Buffer.from('a'))).rejects.toMatchObject({ code: 'storage_unavailable' });
      const lenient = open({ endpoint: proxy.endpoint, checksums: 'when_required' });
      await lenient.put('rec_1/a', Buffer.from('a'));
      const upload = await lenient.create('rec_1/b');
      await upload.write(0, Buffer.alloc(12 * MIB));
      await upload.commit();
      expect(await lenient.list('rec_1/')).toEqual([{ key: 'rec_1/a', bytes: 1 }, { key: 'rec_1/b', bytes: 12 * MIB }]);
      await lenient.remove('rec_1/');
      expect(await lenient.list('rec_1/')).toEqual([]);
    });

    test('that can no more than read, write, list and remove is enough', async () => {
      await using proxy = await httpProxy(server, ({ method, url = '' }) => (/[?&](uploads|delete)\b/.test(url) && !(method === 'POST' && url.includes('uploads')) ? { status: 501, code: 'NotImplemented' } : null));
      const storage = open({ endpoint: proxy.endpoint });
      const upload = await storage.create('rec_1/b');
      await upload.write(0, Buffer.alloc(6 * MIB));
      await upload.commit();
      for (let i = 0; i < 20; i += 1) await storage.put(`rec_1/parts/${i}`, Buffer.from('a'));
      await storage.remove('rec_1/');
      expect(await storage.list('rec_1/')).toEqual([]);
      await expect(storage.sweep()).rejects.toMatchObject({ code: 'storage_unavailable' });
    });

    test('bytes that change on the way are not stored', async () => {
      let flip = true;
      // the body's own signature would not notice, where TLS is trusted to: it is the checksum that does
      const damaged = createServer((incoming, outgoing) => {
        const chunks: Buffer[] = [];
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => {
          const body = Buffer.concat(chunks);
          if (flip && body.length > 0) body[0] = (body[0] ?? 0) ^ 1;
          const onward = request({ host: '127.0.0.1', port: server.port, method: incoming.method, path: incoming.url, headers: incoming.headers }, (answer) => {
            outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
            answer.pipe(outgoing);
          });
          onward.end(body);
        });
      });
      await new Promise<void>((resolve) => damaged.listen(0, '127.0.0.1', resolve));
      const storage = open({ endpoint: `http://127.0.0.1:${(damaged.address() as AddressInfo).port}` });
      await expect(storage.put('rec_1/damaged', Buffer.from('0123456789'))).rejects.toMatchObject({ code: 'storage_unavailable' });
      expect(await open().stat('rec_1/damaged')).toBeNull();
      flip = false;
      await storage.put('rec_1/damaged', Buffer.from('0123456789'));
      damaged.closeAllConnections();
      damaged.close();
    });

    test('that stumbles is asked again, but not for ever', async () => {
      let stumbles = 3;
      await using proxy = await httpProxy(server, () => ((stumbles -= 1) >= 0 ? { status: 503, code: 'SlowDown' } : null));
      await open({ endpoint: proxy.endpoint }).put('rec_1/slow', Buffer.from('slow'));
      expect(proxy.requests).toHaveLength(4);
      stumbles = 1000;
      const hasty = open({ endpoint: proxy.endpoint }, { retries: 500 });
      const began = performance.now();
      await expect(hasty.put('rec_1/slow', Buffer.from('slow'))).rejects.toMatchObject({ code: 'storage_unavailable', message: expect.stringContaining('SlowDown') });
      expect(performance.now() - began).toBeGreaterThan(400);
      expect(performance.now() - began).toBeLessThan(20_000);
    });

    test.each([[507, 'XMinioStorageFull'], [403, 'QuotaExceeded'], [507, 'InsufficientStorage']])('that is full (%i %s) is said to be, at once', async (status, code) => {
      await using proxy = await httpProxy(server, () => ({ status, code }));
      const storage = open({ endpoint: proxy.endpoint });
      const upload = storage.create.bind(storage, 'rec_1/full');
      await expect(storage.put('rec_1/full', Buffer.from('x'))).rejects.toMatchObject({ code: 'storage_full' });
      await expect(upload()).rejects.toMatchObject({ code: 'storage_full' });
      expect(proxy.requests).toHaveLength(2);
    });

    test.each(['PUT', 'POST'])('whose answer to a %s is lost has stored it all the same, once', async (method) => {
      let losses = 0;
      await using proxy = await httpProxy(server, (incoming) => {
        // each kind of request once: part, completion, whole object
        const last = method === 'PUT' ? incoming.method === 'PUT' : incoming.method === 'POST' && incoming.url?.includes('uploadId=') === true;
        if (!last || losses > 0) return null;
        losses += 1;
        return 'lose the answer';
      });
      const storage = open({ endpoint: proxy.endpoint });
      await storage.put('rec_2/object', Buffer.from('object'));
      const upload = await storage.create('rec_2/upload');
      await upload.write(0, Buffer.alloc(12 * MIB, 7));
      await upload.commit();
      expect(losses).toBe(1);
      expect(await open().list('rec_2/')).toEqual([{ key: 'rec_2/object', bytes: 6 }, { key: 'rec_2/upload', bytes: 12 * MIB }]);
    });

    test('that is killed in the midst of an upload, and comes back, has it whole', async () => {
      const storage = open();
      const upload = await storage.create('rec_3/recording.mp4');
      await upload.write(0, Buffer.alloc(12 * MIB, 1));
      await server.kill();
      const back = sleep(300).then(() => server.start());
      const meanwhile = storage.put('rec_3/parts/a', Buffer.from('part'));
      await upload.write(12 * MIB, Buffer.alloc(12 * MIB, 2));
      await upload.commit();
      await Promise.all([back, meanwhile]);
      expect(await storage.list('rec_3/')).toEqual([{ key: 'rec_3/parts/a', bytes: 4 }, { key: 'rec_3/recording.mp4', bytes: 24 * MIB }]);
      const found = (await storage.get('rec_3/recording.mp4')) ?? new Uint8Array();
      expect([found[0], found[12 * MIB - 1], found[12 * MIB], found[24 * MIB - 1]]).toEqual([1, 1, 2, 2]);
    });

    test('whose connections are cut again and again loses nothing', async () => {
      await using proxy = await startFaultyProxy(server.port);
      const storage = open({ endpoint: `http://127.0.0.1:${proxy.port}` });
      const content = Buffer.alloc(24 * MIB, Buffer.from('0123456789abcdef'));
      const cutting = new AbortController();
      const cuts = (async () => {
        let count = 0;
        while (!cutting.signal.aborted) {
          await sleep(150);
          count += proxy.cut();
        }
        return count;
      })();
      const upload = await storage.create('rec_4/recording.mp4');
      for (let at = 0; at < content.length; at += MIB) await upload.write(at, content.subarray(at, at + MIB));
      await upload.commit();
      for (let i = 0; i < 15; i += 1) await storage.put(`rec_4/parts/p${i}`, content.subarray(0, 200_000));
      const read = Buffer.from(await new Response(await storage.stream('rec_4/recording.mp4')).arrayBuffer());
      expect(await storage.list('rec_4/parts/')).toHaveLength(15);
      cutting.abort();
      expect(await cuts).toBeGreaterThan(3);
      expect(read.equals(content)).toBe(true);
    });

    test('that stops answering is given up in time, and readable again once it thaws', async () => {
      const storage = open({}, { idle: 500, request: 500, retries: 300 });
      await storage.put('rec_5/a', Buffer.from('a'));
      server.freeze();
      const began = performance.now();
      await expect(storage.put('rec_5/a', Buffer.from('b'))).rejects.toMatchObject({ code: 'storage_unavailable', kind: { retryable: true } });
      expect(performance.now() - began).toBeLessThan(20_000);
      server.thaw();
      expect(Buffer.from((await storage.get('rec_5/a')) ?? []).toString()).toMatch(/^[ab]$/);
    });

    test('keeps no connection for a stream that was left in the middle', async () => {
      await using proxy = await startFaultyProxy(server.port);
      const storage = open({ endpoint: `http://127.0.0.1:${proxy.port}` });
      await open().put('rec_6/big', Buffer.alloc(20 * MIB));
      for (let i = 0; i < 10; i += 1) {
        const reader = ((await storage.stream('rec_6/big')) as ReadableStream<Uint8Array>).getReader();
        await reader.read();
        await reader.cancel();
      }
      await eventually(async () => proxy.open(), (connections) => connections <= 1);
      // one that was read to its end leaves its own for the next
      await storage.get('rec_6/big');
      const before = proxy.accepted();
      for (let i = 0; i < 5; i += 1) await storage.get('rec_6/big', { start: i, end: i + 1000 });
      expect(proxy.accepted()).toBe(before);
    });

    test('holds little of what is read slowly, or written', async () => {
      const storage = open();
      const before = process.memoryUsage().arrayBuffers;
      let most = 0;
      const look = () => (most = Math.max(most, process.memoryUsage().arrayBuffers - before));
      const upload = await storage.create('rec_7/big');
      const piece = new Uint8Array(4 * MIB);
      for (let at = 0; at < 200 * MIB; at += piece.length) {
        await upload.write(at, piece);
        look();
      }
      await upload.commit();
      const reader = ((await storage.stream('rec_7/big')) as ReadableStream<Uint8Array>).getReader();
      for (let i = 0; i < 20; i += 1) {
        await reader.read();
        await sleep(5);
        look();
      }
      await reader.cancel();
      await storage.remove('rec_7/');
      // buffers that are let go are counted until they are collected
      expect(most / MIB).toBeLessThan(120);
    });

    test.each<[string, Partial<S3Settings>, RegExp]>([
      ['wrong secret', { credentials: { accessKeyId: 'tabreel', secretAccessKey: 'not-the-secret' } }, /refuses the credentials \(SignatureDoesNotMatch\)/],
      ['unknown key', { credentials: { accessKeyId: 'nobody', secretAccessKey: 'not-the-secret' } }, /refuses the credentials/],
      ['missing bucket', { bucket: 'elsewhere' }, /bucket of STORAGE_URL does not exist \(NoSuchBucket\)/],
      ['nobody who listens', { endpoint: 'http://127.0.0.1:1' }, /does not answer \(/],
    ])('%s: readyz says so', async (_what, settings, message) => {
      await using redis = await startRedis();
      const storage = open(settings, { retries: 300 });
      await using edge = await testEdge(redis, {}, { storage });
      const { status, body } = await edge.api('/readyz');
      expect({ status, body }).toMatchObject({ status: 503, body: { checks: { redis: { ok: true }, storage: { ok: false, code: 'storage_unavailable', detail: expect.stringMatching(message) } } } });
      expect(JSON.stringify(body) + edge.logs.join()).not.toContain('not-the-secret');
    });

    test('that is away when a recording is to be finished is waited for', async () => {
      await using redis = await startRedis();
      const storage = open({}, { retries: 300 });
      await using edge = await testEdge(redis, {}, { storage });
      const { parts } = await makeCmaf({ seconds: 2 });
      const created = await edge.create();
      const worker = await dial(edge, created, await edge.control.run(created.id));
      worker.send(...parts);
      await worker.acked(parts.length);
      worker.close();
      await server.kill();
      expect(await edge.api(created.links.live)).toMatchObject({ status: 200 });
      const [, segment = ''] = String((await edge.api(created.links.live)).body).split('\n').filter((line) => line.startsWith('live/'));
      expect(await edge.api(new URL(segment, created.links.live).href)).toMatchObject({ status: 503, body: { code: 'storage_unavailable', retryable: true } });
      await using _finaliser = await edge.finaliser();
      await edge.control.finish(created.id);
      await eventually(async () => edge.logs.filter((line) => line.includes('the storage is waited for')).length, (waits) => waits >= 1);
      expect((await edge.get(created.id)).state).toBe('finishing');
      await server.start();
      const done = await eventually(() => edge.get(created.id), ({ state }) => state === 'completed');
      expect(done).toMatchObject({ warnings: [], files: [{ name: 'recording.mp4' }, { name: 'manifest.json' }] });
    });

    test('that is well is ready, and has no bound', async () => {
      await using redis = await startRedis();
      const storage = open();
      await using edge = await testEdge(redis, {}, { storage });
      expect(await edge.api('/readyz')).toMatchObject({ status: 200, body: { checks: { storage: { ok: true } } } });
      expect(await storage.freeBytes()).toBeNull();
      expect((await edge.post({ url: 'https://example.com/' })).status).toBe(202);
    });
  });
});
