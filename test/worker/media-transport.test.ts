/** Media between a real sink and real edges, over a network that fails: nothing is lost, nothing comes twice. */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { diskStorage } from '../../edge/storage/disk.ts';
import { storageFull, type Storage } from '../../edge/storage/storage.ts';
import type { TabreelError } from '../../shared/errors.ts';
import { createLog } from '../../shared/log.ts';
import { decodePart } from '../../shared/media-protocol.ts';
import type { Recording } from '../../shared/recording.ts';
import { createMediaSocketSink, type MediaSocketLimits } from '../../worker/sink/media-socket.ts';
import { eventually, testEdge, type TestEdge } from '../edge/harness.ts';
import { startFaultyProxy, type FaultyProxy } from '../helpers/faulty-proxy.ts';
import { hasRedisServer, realRedis, startRedis, type TestRedis } from '../helpers/redis.ts';

const MiB = 1024 * 1024;
let redis: TestRedis;
let spools: string;
const closers: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  redis = await startRedis();
  spools = mkdtempSync(join(tmpdir(), 'tabreel-spools-'));
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});
afterAll(async () => {
  await redis[Symbol.asyncDispose]();
  rmSync(spools, { recursive: true });
});
const closing = <T extends AsyncDisposable>(what: T): T => {
  closers.push(async () => what[Symbol.asyncDispose]());
  return what;
};

const quick: Partial<MediaSocketLimits> = { firstRetry: 10, lastRetry: 100, handshake: 700, ping: 200, stalled: 3000, spoolReserve: 0, waitingBytes: 2 * MiB };

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

type Setting = {
  edge: TestEdge;
  recording: Recording;
  attempt: number;
  proxy: FaultyProxy;
  /** Which edge the next connection leads to. */
  target: TestEdge;
};

async function start(options: { redis?: TestRedis; storage?: Storage } = {}): Promise<Setting> {
  const edge = closing(await testEdge(options.redis ?? redis, {}, options.storage === undefined ? {} : { storage: options.storage }));
  const recording = await edge.create();
  const attempt = await edge.control.run(recording.id);
  const portOf = ({ url }: TestEdge) => Number(new URL(url).port);
  const setting = { edge, recording, attempt, target: edge };
  const proxy = closing(await startFaultyProxy(() => portOf(setting.target)));
  return Object.assign(setting, { proxy });
}

/** A worker's sink on its way through the proxy, and what was pushed into it. */
async function dial({ edge, recording, attempt, proxy }: Setting, limits: Partial<MediaSocketLimits> = {}, spoolBytes = 500 * MiB) {
  const lines: string[] = [];
  const sink = createMediaSocketSink({
    url: `ws://127.0.0.1:${proxy.port}/v1/recordings/${recording.id}/media`,
    credential: await edge.control.credential(recording.id),
    attempt,
    ca: null,
    spool: spoolBytes === 0 ? null : { directory: spools, bytes: spoolBytes },
    log: createLog('debug', (line) => lines.push(line)),
    limits: { ...quick, ...limits },
  });
  closers.push(async () => sink[Symbol.asyncDispose]());
  const pushed: string[] = [];
  let most = { memory: 0, spooled: 0 };
  const look = () => {
    const { waitingBytes, spooledBytes } = sink.counts();
    most = { memory: Math.max(most.memory, waitingBytes - spooledBytes), spooled: Math.max(most.spooled, spooledBytes) };
  };
  const push = (bytes: number) => {
    const payload = randomBytes(bytes);
    const index = pushed.length;
    sink.push(index === 0 ? { header: { type: 'init' }, payload } : { header: { type: 'segment', start: (index - 1) * 40_000, duration: 40_000, frames: 1 }, payload });
    pushed.push(digest(payload));
    look();
  };
  return { sink, push, pushed, lines, most: () => (look(), most), said: (event: string) => lines.some((line) => line.includes(`"${event}"`)) };
}
type Worker = Awaited<ReturnType<typeof dial>>;

const storedParts = async (edge: TestEdge, id: string) => (await diskStorage(edge.directory).list(`${id}/parts/`)).map(({ key }) => key);

/** Each part that was pushed is there once, with its bytes, and the end behind them. */
async function expectWhole({ edge, recording, attempt }: Setting, { pushed }: Worker, storage = diskStorage(edge.directory)) {
  const keys = (await storage.list(`${recording.id}/parts/`)).map(({ key }) => key);
  const prefix = `a${String(attempt).padStart(4, '0')}-s`;
  const numbers = keys.map((key) => Number(key.split('/').at(-1)?.slice(prefix.length, prefix.length + 7)));
  expect(numbers).toEqual(Array.from({ length: pushed.length + 1 }, (_, i) => i + 1));
  expect(keys.at(-1)).toMatch(/-end$/);
  const digests = await Promise.all(keys.slice(0, -1).map(async (key) => digest((await storage.get(key)) ?? new Uint8Array())));
  expect(digests).toEqual(pushed);
}

const storedCount = async (edge: TestEdge): Promise<number> =>
  [...((await edge.api('/metrics')).body as string).matchAll(/^tabreel_stored_parts_total\S* (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0);

const openSockets = async (edge: TestEdge): Promise<number> => Number(/^tabreel_media_sockets (\d+)$/m.exec((await edge.api('/metrics')).body as string)?.[1]);

const leftInSpools = async () => (await readdir(spools, { recursive: true })).filter((name) => name.endsWith('.part'));

describe('a path that fails', () => {
  it('thirty times and more at random moments, in every way: all parts are stored once, with their bytes', async () => {
    const setting = await start();
    const { proxy } = setting;
    const worker = await dial(setting);
    const random = (most: number) => Math.floor(Math.random() * most);
    let cuts = 0;
    const over = new AbortController();
    const pushing = (async () => {
      while (!over.signal.aborted) {
        worker.push(1000 + random(120_000));
        await sleep(10 + random(20));
      }
    })();
    const faults: (() => unknown)[] = [
      () => proxy.cut(),
      () => proxy.halfOpen(),
      // what was sent before arrives while the next socket is welcome
      () => {
        proxy.delay(150 + random(300));
        return sleep(60).then(() => proxy.halfOpen());
      },
      // a dial that comes in after those that follow it
      () => {
        proxy.delayNext(1000);
        proxy.cut();
      },
      () => {
        proxy.stall(100 + random(200));
        return sleep(50).then(() => proxy.cut());
      },
    ];
    try {
      // a fault may meet a dial that waits or is refused already: as many more as it takes to cut half of them while media flow
      while (cuts < 30 || worker.sink.counts().reconnects <= 15) {
        await sleep(random(250));
        await faults[cuts % faults.length]?.();
        cuts += 1;
        if (cuts === 15) {
          proxy.refuse(true);
          proxy.cut();
          await eventually(async () => worker.sink.counts().spooledBytes, (bytes) => bytes > 0);
          proxy.refuse(false);
        }
      }
    } finally {
      over.abort();
      await pushing;
    }
    await worker.sink.finish(worker.pushed.length * 40_000);
    await expectWhole(setting, worker);
    expect(await storedCount(setting.edge)).toBe(worker.pushed.length + 1);
    const { memory, spooled } = worker.most();
    const { reconnects, resentParts } = worker.sink.counts();
    console.log(`${cuts} cuts: ${worker.pushed.length} parts, ${reconnects} reconnects, ${resentParts} sent again, ${(memory / MiB).toFixed(1)} MiB in memory and ${(spooled / MiB).toFixed(1)} on disk at most`);
    expect(memory).toBeLessThanOrEqual(2 * MiB);
    expect(worker.sink.counts()).toMatchObject({ waitingBytes: 0, spooledBytes: 0, pressure: 0 });
    await worker.sink[Symbol.asyncDispose]();
    expect(await readdir(spools)).toEqual([]);
  }, 90_000);

  it('that stalls is noticed and goes on; one that is dead is dialled anew', async () => {
    const setting = await start();
    const worker = await dial(setting, { stalled: 10_000 });
    worker.push(1000);
    await eventually(async () => worker.sink.progress().waitingParts, (parts) => parts === 0);
    // pings are unanswered for three of the four intervals that would end it
    setting.proxy.stall(800);
    for (let i = 0; i < 20; i += 1) {
      worker.push(50_000);
      await sleep(40);
    }
    await eventually(async () => worker.sink.progress().waitingParts, (parts) => parts === 0);
    expect(worker.sink.counts()).toMatchObject({ dials: 1, resentParts: 0 });
    expect(worker.said('media socket is silent')).toBe(true);
    expect(worker.said('media socket goes on')).toBe(true);
    setting.proxy.silence();
    worker.push(1000);
    await worker.sink.finish(worker.pushed.length * 40_000);
    expect(worker.sink.counts()).toMatchObject({ dials: 2 });
    expect(worker.lines.join('\n')).toContain('5 pings were not answered');
    await expectWhole(setting, worker);
  });
});

describe('an ingest that is away for long', () => {
  it('is waited for on disk; where that is full too the capture ends, and all that was taken is delivered', async () => {
    const setting = await start();
    const worker = await dial(setting, { unreachable: 100 }, 4 * MiB);
    worker.push(1000);
    await eventually(async () => worker.sink.progress().waitingParts, (parts) => parts === 0);
    expect(worker.sink.pressure()).toBe(0);
    setting.proxy.refuse(true);
    setting.proxy.cut();
    const refused = await pushUntilRefused(worker);
    expect(refused).toMatchObject({ code: 'media_backlog', message: expect.stringContaining('no more can be kept') });
    expect(worker.sink.pressure()).toBeGreaterThan(0.95);
    const { memory, spooled } = worker.most();
    expect(memory).toBeGreaterThan(1.9 * MiB);
    expect(memory).toBeLessThanOrEqual(2 * MiB);
    expect(spooled).toBeGreaterThan(3.9 * MiB);
    expect(spooled).toBeLessThanOrEqual(4 * MiB);
    const finish = worker.sink.finish(1);
    setting.proxy.refuse(false);
    await finish;
    // a part was refused: what would follow it is refused as well
    await expectWhole(setting, worker);
    expect(await leftInSpools()).toEqual([]);
  });

  it('has to do with the memory where the disk has no room to spare', async () => {
    const setting = await start();
    const worker = await dial(setting, { spoolReserve: Number.MAX_SAFE_INTEGER });
    setting.proxy.refuse(true);
    expect(await pushUntilRefused(worker)).toMatchObject({ code: 'media_backlog' });
    expect(worker.most()).toMatchObject({ spooled: 0 });
    expect(worker.lines.join('\n')).toContain('media can not go to disk');
    setting.proxy.refuse(false);
    await worker.sink.finish(1);
    await expectWhole(setting, worker);
  });

  it('is given up long after the capture, and what it missed lies where the log says', async () => {
    const setting = await start();
    const worker = await dial(setting, { deliver: 400 });
    worker.push(1000);
    await eventually(async () => worker.sink.progress().waitingParts, (parts) => parts === 0);
    setting.proxy.refuse(true);
    setting.proxy.cut();
    for (let i = 0; i < 50; i += 1) worker.push(30_000);
    await expect(worker.sink.finish(2_000_000)).rejects.toMatchObject({ code: 'media_unreachable', message: expect.stringMatching(/^2\.0 s of media are missing/) });
    await worker.sink[Symbol.asyncDispose]();
    const line = worker.lines.find((each) => each.includes('"media is left on disk"')) ?? '{}';
    const { directory, parts, seconds } = JSON.parse(line) as { directory: string; parts: number; seconds: number };
    expect({ parts, seconds }).toEqual({ parts: 51, seconds: 2 });
    const names = (await readdir(directory)).sort();
    const kept = await Promise.all(names.map(async (name) => decodePart(await readFile(join(directory, name)))));
    expect(kept.map(({ header }) => header.seq)).toEqual(Array.from({ length: 51 }, (_, i) => i + 2));
    expect(kept.slice(0, -1).map(({ payload }) => digest(payload))).toEqual(worker.pushed.slice(1));
    rmSync(directory, { recursive: true });
  });

  it('for want of room ends the capture with that, once no more can be kept', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'tabreel-full-'));
    closers.push(async () => rmSync(directory, { recursive: true }));
    const disk = diskStorage(directory);
    let full = false;
    const storage: Storage = { ...disk, put: (key, bytes) => (full ? Promise.reject(storageFull()) : disk.put(key, bytes)) };
    const setting = await start({ storage });
    const worker = await dial(setting, {}, 2 * MiB);
    for (let i = 0; i < 10; i += 1) worker.push(1000);
    await eventually(async () => worker.sink.progress().waitingParts, (parts) => parts === 0);
    full = true;
    expect(await pushUntilRefused(worker)).toMatchObject({ code: 'storage_full', message: expect.stringContaining('4507') });
    expect(worker.sink.progress().storedSegments).toBe(9);
    const finish = worker.sink.finish(1);
    full = false;
    await finish;
    await expectWhole(setting, worker, disk);
  });

  async function pushUntilRefused(worker: Worker): Promise<TabreelError> {
    for (let i = 0; i < 2000; i += 1) {
      try {
        worker.push(40_000);
      } catch (error) {
        expect(() => worker.push(10)).toThrow(error as Error);
        return error as TabreelError;
      }
      // a disk that is slow is waited for: what is full is what is meant
      const inMemory = () => worker.sink.counts().waitingBytes - worker.sink.counts().spooledBytes;
      for (const until = Date.now() + 1000; inMemory() > 1.95 * MiB && Date.now() < until; ) await sleep(4);
      await sleep(1);
    }
    throw new Error('nothing was refused');
  }
});

describe('edges that share one storage', () => {
  it('take a socket over from each other, also while the other still holds it and writes', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'tabreel-shared-'));
    closers.push(async () => rmSync(directory, { recursive: true }));
    const disk = diskStorage(directory);
    const gate = Promise.withResolvers<void>();
    let slow = false;
    // what the first edge is in the midst of when its worker is gone
    const storage: Storage = {
      ...disk,
      async put(key, bytes) {
        if (slow) await gate.promise;
        await disk.put(key, bytes);
      },
    };
    const setting = await start({ storage });
    const second = closing(await testEdge(redis, { queuePrefix: setting.edge.config.queuePrefix, tokenSecrets: setting.edge.config.tokenSecrets }, { storage: disk }));
    const worker = await dial(setting);
    for (let i = 0; i < 10; i += 1) worker.push(20_000);
    await eventually(async () => worker.sink.progress().waitingParts, (parts) => parts === 0);
    slow = true;
    for (let i = 0; i < 5; i += 1) worker.push(20_000);
    await sleep(100);
    setting.target = second;
    const begin = performance.now();
    setting.proxy.halfOpen();
    worker.push(20_000);
    await eventually(async () => worker.sink.progress().waitingParts, (parts) => parts === 0);
    expect(worker.lines.join('\n')).toMatch(/"media socket is welcome".*"acked":10\b/);
    // the first edge's own pings would have told it after 25 s
    await eventually(() => openSockets(setting.edge), (sockets) => sockets === 0);
    expect(performance.now() - begin).toBeLessThan(15_000);
    expect(await openSockets(second)).toBe(1);
    gate.resolve();
    for (let i = 0; i < 10; i += 1) worker.push(20_000);
    await worker.sink.finish(1);
    await expectWhole(setting, worker, disk);
    // both know all of it, and neither anything twice
    for (const edge of [setting.edge, second]) {
      await eventually(async () => String((await edge.api(`/v1/recordings/${setting.recording.id}/live.m3u8`)).body).match(/EXTINF/g)?.length, (segments) => segments === worker.pushed.length - 1);
    }
  });
});

describe.skipIf(!hasRedisServer)('an edge without Redis', () => {
  it('goes on, admits a worker that it knows by its token, and fences it when Redis is back', async () => {
    await using own = await realRedis();
    await own.start();
    const setting = await start({ redis: own });
    const { edge, recording, attempt } = setting;
    const second = closing(
      await testEdge(own, { queuePrefix: edge.config.queuePrefix, storageUrl: edge.config.storageUrl, tokenSecrets: edge.config.tokenSecrets }),
    );
    const worker = await dial(setting, { handshake: 4000 });
    worker.push(1000);
    await eventually(async () => worker.sink.progress().waitingParts, (parts) => parts === 0);
    await own.kill();
    worker.push(1000);
    await eventually(async () => worker.sink.progress().waitingParts, (parts) => parts === 0);
    setting.target = second;
    setting.proxy.cut();
    worker.push(1000);
    await eventually(async () => worker.sink.progress().waitingParts, (parts) => parts === 0);
    expect(worker.sink.counts()).toMatchObject({ reconnects: 1 });
    expect(second.logs.join('\n')).toContain('media socket is admitted by its token');
    expect(await storedParts(edge, recording.id)).toHaveLength(3);

    await own.start();
    await eventually(() => edge.control.store.get(recording.id).catch(() => null), (record) => record !== null);
    await edge.control.redis.zadd(`${edge.config.queuePrefix}:beats`, 0, recording.id);
    expect(await edge.control.run(recording.id)).toBe(attempt + 1);
    await expect(worker.sink.failed).rejects.toMatchObject({ code: 'media_refused', message: expect.stringContaining('a newer attempt owns the recording') });
  }, 20_000);
});
