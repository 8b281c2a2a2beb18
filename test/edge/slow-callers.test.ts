/** Callers who keep the edge busy with requests that never come to an end, or with bodies that unpack to any length. */
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  // as long as theirs, by the clock of somebody in a hurry
  edge = await testEdge(redis, {}, { requestLimits: { headersTimeout: 1500, requestTimeout: 3000, connectionsCheckingInterval: 300 } });
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

/** Sends some bytes, then one each 100 ms. @returns what it was answered, once it is cut off */
const trickle = async (begin: string): Promise<string> => {
  const { hostname, port } = new URL(edge.url);
  const socket: Socket = connect(Number(port), hostname);
  let got = '';
  socket.on('data', (data) => (got += data.toString()));
  const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()));
  socket.on('error', () => undefined);
  socket.write(begin);
  const timer = setInterval(() => socket.write('a'), 100);
  await Promise.race([closed, sleep(15_000)]);
  clearInterval(timer);
  const was = socket.destroyed;
  socket.destroy();
  return was ? got.split('\r\n', 1)[0] ?? '' : 'still open';
};

test('headers and bodies that trickle are cut off, and hold up nobody', async () => {
  const headers = Array.from({ length: 150 }, () => trickle('POST /v1/recordings HTTP/1.1\r\nhost: localhost\r\nx-slow: '));
  const bodies = Array.from({ length: 150 }, () => trickle('POST /v1/recordings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{"url":"'));
  const chunked = Array.from({ length: 20 }, () => trickle('POST /v1/recordings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n'));
  const both = trickle('POST /v1/recordings HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n');
  await sleep(500);
  const took: number[] = [];
  for (let i = 0; i < 10; i += 1) {
    const began = performance.now();
    expect((await edge.api('/healthz')).status).toBe(200);
    took.push(performance.now() - began);
    await sleep(100);
  }
  expect(Math.max(...took)).toBeLessThan(2000);
  expect([...new Set(await Promise.all(headers))]).toEqual(['HTTP/1.1 408 Request Timeout']);
  // one that came whole as far as its head is cut without a word, or with one
  for (const answer of new Set(await Promise.all([...bodies, ...chunked]))) expect(answer).toMatch(/^(HTTP\/1\.1 4\d\d .*)?$/);
  expect(await both).toMatch(/^HTTP\/1\.1 400 /);
});

test('a body comes as it is: one that is packed is refused unread', async () => {
  const bomb = gzipSync(Buffer.alloc(50_000_000, ' '));
  for (const coding of ['gzip', 'deflate', 'br', 'gzip, gzip', 'x']) {
    const response = await fetch(`${edge.url}/v1/recordings`, { method: 'POST', headers: { 'content-type': 'application/json', 'content-encoding': coding }, body: bomb });
    expect(await response.json()).toMatchObject({ status: 415, code: 'unsupported_media_type', detail: expect.stringContaining('Content-Encoding') });
  }
});
