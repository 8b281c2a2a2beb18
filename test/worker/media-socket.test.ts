import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { freePort } from '../../bin/local-redis.ts';
import { createLog } from '../../shared/log.ts';
import { closeCodes } from '../../shared/media-protocol.ts';
import { createMediaSocketSink, type MediaSocketLimits, type MediaSocketOptions } from '../../worker/sink/media-socket.ts';
import { init, segment, startIngest as openIngest, type Ingest } from './fixtures/stub-ingest.ts';

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function startIngest(options: Parameters<typeof openIngest>[0] = {}): Promise<Ingest> {
  const ingest = await openIngest(options);
  closers.push(ingest.close);
  return ingest;
}

const quick: Partial<MediaSocketLimits> = { firstRetry: 10, lastRetry: 50 };

function dial(url: string, limits: Partial<MediaSocketLimits> = {}, options: Partial<MediaSocketOptions> = {}) {
  const lines: string[] = [];
  const log = createLog('debug', (line) => lines.push(line));
  const sink = createMediaSocketSink({ url, credential: 'secret-credential', attempt: 3, ca: null, log, ...options, limits: { ...quick, ...limits } });
  closers.push(async () => sink[Symbol.asyncDispose]());
  return Object.assign(sink, { lines });
}

describe('media that reaches the ingest', () => {
  it('arrives whole and in order, with the credential and the attempt in the handshake', async () => {
    const ingest = await startIngest();
    const sink = dial(ingest.url);
    sink.push(init);
    for (let i = 0; i < 20; i += 1) sink.push(segment(i, 300_000));
    await sink.finish(40_000_000);
    expect(ingest.headers.map((header) => header.seq)).toEqual(Array.from({ length: 22 }, (_, i) => i + 1));
    expect(ingest.headers.at(-1)).toEqual({ type: 'end', seq: 22, duration: 40_000_000 });
    expect(ingest.bytes.slice(1, 21).every((bytes, i) => bytes.equals(Buffer.alloc(300_000, i)))).toBe(true);
    expect(ingest.handshakes[0]?.headers).toMatchObject({ authorization: 'Bearer secret-credential', 'tabreel-attempt': '3', 'tabreel-dial': '1', 'tabreel-acked': '0' });
    expect(ingest.handshakes[0]?.headers['sec-websocket-extensions']).toBeUndefined();
    expect(sink.progress()).toEqual({ waitingParts: 0, waitingBytes: 0, storedSegments: 20, storedBytes: 6_000_004, storedUntil: 40_000_000 });
    expect(sink.counts()).toMatchObject({ dials: 1, connections: 1, sentParts: 22, resentParts: 0 });
    expect(sink.lines.join('\n')).not.toContain('secret-credential');
  });

  it('is neither lost nor doubled when the connection is cut, acknowledged or not', async () => {
    const ingest = await startIngest();
    let cuts = 0;
    ingest.onPart = (header, socket, acknowledge) => {
      const cut = header.seq % 4 === 0 && cuts < header.seq / 4;
      // half of the cuts come before the part is stored, half after it is stored and before the worker hears of it
      if (!cut || cuts % 2 === 1) acknowledge();
      if (!cut) return;
      cuts += 1;
      socket.terminate();
    };
    const sink = dial(ingest.url);
    for (let i = 0; i < 30; i += 1) sink.push(segment(i));
    await sink.finish(60_000_000);
    expect(cuts).toBeGreaterThan(5);
    expect(ingest.headers.map((header) => header.seq)).toEqual(Array.from({ length: 31 }, (_, i) => i + 1));
    expect(sink.progress()).toMatchObject({ storedSegments: 30, waitingParts: 0 });
    expect(sink.counts().dials).toBe(cuts + 1);
    expect(sink.counts().resentParts).toBeGreaterThan(0);
  });

  it('waits for an edge that is restarted, and for storage that is full', async () => {
    const first = await startIngest();
    first.onSocket = (socket) => {
      if (first.sockets.length === 1) socket.close(closeCodes.storageFull.code, 'full');
    };
    const sink = dial(first.url);
    sink.push(segment(0));
    await first.stored(1);
    await first.close();
    sink.push(segment(1));
    const second = await startIngest({ port: first.port });
    second.headers.push(...first.headers);
    await sink.finish(4_000_000);
    expect(second.headers.map((header) => header.seq)).toEqual([1, 2, 3]);
  });

  it('goes over a new connection where the peer is dead', async () => {
    const ingest = await startIngest();
    ingest.onSocket = (socket) => {
      // a machine that vanished: the connection stands, and nothing answers
      if (ingest.sockets.length === 1) {
        socket.pause();
        ingest.welcomes = false;
      } else ingest.welcomes = true;
    };
    const sink = dial(ingest.url, { ping: 20 });
    sink.push(segment(0));
    await sink.finish(2_000_000);
    expect(sink.lines.join('\n')).toContain('5 pings were not answered');
    expect(ingest.sockets.length).toBe(2);
  });

  it('goes over a new connection where the ingest answers pings and stores nothing', async () => {
    const ingest = await startIngest();
    ingest.onPart = (_header, socket, acknowledge) => {
      if (socket !== ingest.sockets[0]) acknowledge();
    };
    const sink = dial(ingest.url, { ping: 20, stalled: 60 });
    sink.push(segment(0));
    await sink.finish(2_000_000);
    expect(sink.lines.join('\n')).toContain('acknowledges nothing');
  });
});

describe('media that is refused', () => {
  it.each([
    [closeCodes.fenced.code, 'a newer attempt owns the recording'],
    [closeCodes.over.code, 'the recording is over or deleted'],
    [closeCodes.malformed.code, 'closed the media socket with 4400'],
    [1009, 'closed the media socket with 1009'],
  ])('ends the sink at once on close code %i', async (code, message) => {
    const ingest = await startIngest();
    ingest.onPart = (_header, socket) => socket.close(code, 'told so');
    const sink = dial(ingest.url);
    sink.push(segment(0));
    await expect(sink.failed).rejects.toMatchObject({ code: 'media_refused', message: expect.stringContaining(message) });
    await expect(sink.failed).rejects.toThrow('told so');
    await expect(sink.finish(1)).rejects.toMatchObject({ code: 'media_refused' });
    expect(() => sink.push(segment(1))).toThrow(expect.objectContaining({ code: 'media_refused' }));
    expect(ingest.sockets.length).toBe(1);
  });

  it.each([401, 403, 404, 410])('ends the sink at once on status %i, with the reason that the edge gave', async (status) => {
    const ingest = await startIngest();
    ingest.onUpgrade = (_request, socket) => {
      const body = JSON.stringify({ title: 'No', detail: 'the credential is not for this recording' });
      socket.end(`HTTP/1.1 ${status} No\r\nContent-Type: application/problem+json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
      return true;
    };
    const sink = dial(ingest.url);
    await expect(sink.failed).rejects.toMatchObject({
      code: 'media_refused',
      message: expect.stringMatching(`^127.0.0.1:${ingest.port} answered HTTP status ${status} \\(the credential is not for this recording\\)\\. [A-Z].*[^.]$`),
    });
    expect(ingest.handshakes.length).toBe(1);
  });
});

describe('media that can not get through', () => {
  it('waits for as long as it is recorded; after that gives up when nothing was stored for a time, and says why and what is missing', async () => {
    const ingest = await startIngest();
    const sink = dial(ingest.url, { unreachable: 100, deliver: 300 });
    sink.push(segment(0));
    await ingest.stored(1);
    await ingest.close();
    sink.push(segment(1));
    await sleep(500);
    sink.push(segment(2));
    await expect(sink.finish(6_000_000)).rejects.toMatchObject({
      code: 'media_unreachable',
      message: expect.stringMatching(/^4\.0 s of media are missing: nothing could be stored for 0\.3 s: .*nothing listens there \(ECONNREFUSED\)/),
    });
    expect(sink.counts().dials).toBeGreaterThan(3);
    expect(sink.progress()).toMatchObject({ storedSegments: 1, waitingParts: 3 });
  });

  it('waits likewise where an earlier attempt has stored media at this very URL', async () => {
    const port = await freePort();
    const sink = dial(`ws://127.0.0.1:${port}/v1/recordings/rec_1/media`, { unreachable: 100 }, { found: true });
    sink.push(segment(0));
    await sleep(300);
    const ingest = await startIngest({ port });
    await sink.finish(2_000_000);
    expect(ingest.headers.length).toBe(2);
  });

  it('gives up on an ingest that is open and stores nothing', async () => {
    const ingest = await startIngest();
    ingest.onPart = (_header, socket) => socket.close(closeCodes.internal.code, 'storage is down');
    const sink = dial(ingest.url, { deliver: 300, stalled: 100 });
    sink.push(segment(0));
    await expect(sink.finish(2_000_000)).rejects.toMatchObject({ code: 'media_unreachable', message: expect.stringContaining('1011 (storage is down)') });
  });

  it('gives up on a storage that stays full, and names it', async () => {
    const ingest = await startIngest();
    ingest.onPart = (_header, socket) => socket.close(closeCodes.storageFull.code, 'the storage is full');
    const sink = dial(ingest.url, { deliver: 300, stalled: 100 });
    sink.push(segment(0));
    await expect(sink.finish(2_000_000)).rejects.toMatchObject({ code: 'storage_full', message: expect.stringContaining('4507 (the storage is full)') });
  });

  it('is not given up because nothing was pushed for long before the connection was lost', async () => {
    const ingest = await startIngest();
    const sink = dial(ingest.url, { unreachable: 250, deliver: 250, ping: 20 });
    sink.push(segment(0));
    await ingest.stored(1);
    await new Promise((resolve) => setTimeout(resolve, 300)); // a pause: longer than may pass without progress
    ingest.sockets[0]?.terminate();
    sink.push(segment(1));
    await sink.finish(4_000_000);
    expect(ingest.headers.length).toBe(3);
  });

  it('takes no more than it can keep, and loses nothing of what it took', async () => {
    const ingest = await startIngest();
    ingest.welcomes = false;
    const sink = dial(ingest.url, { waitingBytes: 5000 });
    for (let i = 0; i < 4; i += 1) sink.push(segment(i));
    expect(() => sink.push(segment(4))).toThrow(expect.objectContaining({ code: 'media_backlog' }));
    expect(sink.progress()).toMatchObject({ waitingParts: 4 });
    while (ingest.sockets.length === 0) await new Promise((resolve) => setImmediate(resolve));
    ingest.sockets[0]?.send(JSON.stringify({ type: 'welcome', acked: 0 }));
    await sink.finish(8_000_000);
    expect(ingest.headers.length).toBe(5);
  });

  it('leaves nothing behind when it is disposed', async () => {
    const ingest = await startIngest();
    ingest.onPart = () => {};
    const sink = dial(ingest.url);
    sink.push(segment(0));
    const finish = sink.finish(1);
    await sink[Symbol.asyncDispose]();
    await expect(finish).rejects.toThrow('disposed');
    await expect(sink.finish(1)).rejects.toThrow('disposed');
  });
});

describe('pressure', () => {
  it('rises where the open way falls behind, not with what an outage left, and is gone with what waits', async () => {
    const ingest = await startIngest();
    const held: (() => void)[] = [];
    ingest.onPart = (_header, _socket, acknowledge) => held.push(acknowledge);
    const sink = dial(ingest.url);
    for (let i = 0; i < 10; i += 1) sink.push(segment(i));
    while (held.length < 10) await sleep(5);
    // ten segments of two seconds, all pushed before the socket was welcome
    expect(sink.pressure()).toBeLessThan(0.01);
    for (let i = 10; i < 15; i += 1) sink.push(segment(i));
    expect(sink.pressure()).toBeCloseTo(1 / 3, 2);
    for (let i = 15; i < 30; i += 1) sink.push(segment(i));
    expect(sink.pressure()).toBe(1);
    while (held.length < 30) await sleep(5);
    ingest.onPart = (_header, _socket, acknowledge) => acknowledge();
    for (const acknowledge of held.splice(0)) acknowledge();
    await sink.finish(60_000_000);
    expect(sink.pressure()).toBe(0);
  });
});
