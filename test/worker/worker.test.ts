import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ConfigError } from '../../shared/config.ts';
import { createLog } from '../../shared/log.ts';
import { networkIdentity } from '../../shared/network-identity.ts';
import { createPresence } from '../../shared/presence.ts';
import { createRecordQueue, patientRedis, recordJobOptions } from '../../shared/queue.ts';
import { createRecordingStore, type RecordingRecord } from '../../shared/recording-store.ts';
import { readWorkerConfig } from '../../worker/config.ts';
import { startWorker } from '../../worker/worker.ts';
import { inherited } from '../helpers/environment.ts';
import { hasRedisServer, startRedis, type TestRedis } from '../helpers/redis.ts';
import { someJob } from '../shared/some-job.ts';

const script = new URL('./fixtures/stub-recorder.ts', import.meta.url);
let redis: TestRedis;
let directory: string;
let chromium: string;

beforeAll(async () => {
  redis = await startRedis();
  directory = await mkdtemp(join(tmpdir(), 'tabreel-worker-'));
  chromium = join(directory, 'chromium');
  await writeFile(chromium, '#!/bin/sh\necho "Chromium 156.0.8078.79"\n', { mode: 0o755 });
});
afterAll(async () => {
  await redis[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
});

const silent = createLog('error', () => {});
/** The browser of these tests is none, and what else runs on the machine is not to tell. */
const environment = (more: Record<string, string> = {}) => ({
  SELF_TEST: 'false', ADMISSION: 'slots', ...redis.environment, CHROMIUM_PATH: chromium, ...inherited, ...more,
});

/** What an edge on this machine is told. */
async function isWorkerHere(prefix: string): Promise<boolean> {
  const client = patientRedis(redis, () => undefined);
  try {
    return await createPresence(client, prefix).isAnyOn(networkIdentity());
  } finally {
    client.disconnect();
  }
}

const machine = { cores: 4, memory: 2 ** 34, shm: 2 ** 31 };

describe('the settings of a worker', () => {
  it('have defaults for all but Redis, and a slot for each two cores', async () => {
    expect(await readWorkerConfig({ REDIS_URL: 'redis://r', PATH: '/a:/b', HOME: '/h', AWS_SECRET_ACCESS_KEY: 'x' }, { ...machine, cores: 5 })).toEqual({
      redisUrl: 'redis://r',
      queuePrefix: 'tabreel',
      logLevel: 'info',
      slots: 2,
      slotsBound: 'cores',
      chromiumPath: null,
      path: ['/a', '/b'],
      sandbox: true,
      devShm: true,
      engine: 'auto',
      mediaCa: null,
      allowInsecureWs: false,
      outboundAllow: [],
      ownPorts: [{ host: 'r', port: 6379 }],
      spool: { directory: tmpdir(), bytes: 2 * 1024 ** 3 },
      secretsKeys: null,
      browserMemoryLimit: 4 * 1024 ** 3,
      maxSize: null,
      drainTimeout: 14_400,
      leaveAfter: null,
      antMediaUrl: null,
      healthPort: null,
      admission: 'measured',
      selfTest: true,
      recorderEnvironment: { PATH: '/a:/b', HOME: '/h' },
    });
    expect((await readWorkerConfig({ REDIS_URL: 'redis://r' }, { ...machine, cores: 1 })).slots).toBe(1);
    const limited = { REDIS_URL: 'redis://r', BROWSER_MEMORY_LIMIT: '0', MAX_SIZE: '20g' };
    expect(await readWorkerConfig(limited, { ...machine, cores: 1 })).toMatchObject({ browserMemoryLimit: null, maxSize: 20 * 1024 ** 3 });
    const small = { ...machine, shm: 2 ** 26 };
    await expect(readWorkerConfig({ REDIS_URL: 'redis://r' }, small)).rejects.toThrow('/dev/shm has 64 MiB, and a recording needs 256 MiB');
    expect(await readWorkerConfig({ REDIS_URL: 'redis://r', SHM: 'disk', SLOTS: '9' }, small)).toMatchObject({ devShm: false, slots: 9, slotsBound: 'SLOTS' });
    const beside = { REDIS_URL: 'redis://r', ANTMEDIA_URL: 'http://antmedia:5080/' };
    expect((await readWorkerConfig(beside, { ...machine, cores: 1 })).antMediaUrl).toBe('http://antmedia:5080');
  });

  it.each([
    [{}, /^REDIS_URL is not set/],
    [{ SLOTS: '0' }, /^SLOTS="0": must be at least 1/],
    [{ CAPTURE_ENGINE: 'x11' }, /^CAPTURE_ENGINE="x11": must be one of auto, tab, self, screencast/],
    [{ SECRETS_KEY: 'short' }, /^SECRETS_KEY=\(hidden\): must be one or more secrets/],
    [{ MEDIA_CA: '/no/such/file' }, /^MEDIA_CA="\/no\/such\/file": must be a file with certificates in PEM \(ENOENT/],
    [{ MEDIA_CA: '/dev/null' }, /^MEDIA_CA="\/dev\/null": must be a file with certificates in PEM \(it has no BEGIN CERTIFICATE/],
    [{ ANTMEDIA_URL: 'wss://antmedia' }, /^ANTMEDIA_URL="wss:..antmedia": must be an http/],
    [{ SHM: 'tmp' }, /^SHM="tmp": must be one of require, disk/],
    [{ SLOTS: '9' }, /^SHM="require": \/dev\/shm has 2048 MiB, and 9 recordings at once \(SLOTS\) need 2304 MiB.*sizeLimit: 2304Mi.*--shm-size=2304m.*kernel\.shmmax.*SLOTS=8\..*SHM=disk/s],
    [{ ALLOW_INSECURE_WS: 'maybe' }, /^ALLOW_INSECURE_WS="maybe": must be true or false/],
  ])('that are wrong are named: %j', async (wrong, message) => {
    const read = readWorkerConfig('REDIS_URL' in wrong || Object.keys(wrong).length > 0 ? { REDIS_URL: 'redis://r', ...wrong } : {}, machine);
    await expect(read).rejects.toThrow(ConfigError);
    await expect(read).rejects.toThrow(message);
  });

  it.each([
    ['-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n', 'it has a key and no certificate'],
    ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', 'certificate 1 in it is not valid: '],
  ])('say what is wrong in the file that MEDIA_CA names', async (text, message) => {
    const path = join(directory, 'authority.pem');
    await writeFile(path, text);
    await expect(readWorkerConfig({ REDIS_URL: 'redis://r', MEDIA_CA: path }, machine)).rejects.toThrow(`MEDIA_CA=${JSON.stringify(path)}: must be a file with certificates in PEM (${message}`);
  });
});

describe('a worker within another process', () => {
  it('calibrates, then runs, tells its health, and leaves nothing behind', async () => {
    const config = await readWorkerConfig(environment({ SLOTS: '2', HEALTH_PORT: '0', QUEUE_PREFIX: 'tabreel-w1' }), machine);
    const lines: string[] = [];
    const worker = await startWorker(config, createLog('info', (line) => lines.push(line)), { script });
    expect(lines.find((line) => line.includes('sound is calibrated'))).toContain('"soundDelay":{"self":12.5}');
    expect(worker.browser).toMatchObject({ kind: 'chrome', executable: chromium });
    const get = (path: string) => fetch(`http://127.0.0.1:${worker.healthPort}${path}`);
    expect((await get('/healthz')).status).toBe(200);
    expect(await (await get('/readyz')).json()).toEqual({ status: 'ready', checks: { redis: { ok: true }, browser: { ok: true }, processes: { ok: true } } });
    expect(await (await get('/metrics')).text()).toMatch(/^tabreel_worker_slots 2\n[^]*^tabreel_worker_media_sockets 0\n/m);
    expect((await get('/else')).status).toBe(404);
    expect(await isWorkerHere('tabreel-w1')).toBe(true);
    await worker.drain();
    expect(await isWorkerHere('tabreel-w1')).toBe(false);
    expect((await get('/readyz')).status).toBe(503);
    expect((await get('/healthz')).status).toBe(200);
    await worker[Symbol.asyncDispose]();
    await expect(get('/healthz')).rejects.toThrow('fetch failed');
  });

  it('does not start without a browser, and says what is missing', async () => {
    const config = await readWorkerConfig(environment({ CHROMIUM_PATH: '/no/chromium' }), machine);
    await expect(startWorker(config, silent, { script })).rejects.toMatchObject({ code: 'browser_not_found', message: expect.stringContaining('/no/chromium') });
  });

  it('goes without calibration where that fails', async () => {
    const config = await readWorkerConfig(environment({ QUEUE_PREFIX: 'tabreel-w3' }), machine);
    const lines: string[] = [];
    const measureSoundDelay = () => Promise.reject(new Error('no sound'));
    await using worker = await startWorker(config, createLog('warn', (line) => lines.push(line)), { script, measureSoundDelay });
    expect(worker.counts()).toEqual({ active: 0, begun: 0, room: config.slots, draining: false });
    expect(lines.join()).toMatch(/sound is not calibrated.*no sound/);
  });

  it('closes in time while Redis is away', async () => {
    const config = await readWorkerConfig(environment({ REDIS_URL: 'redis://127.0.0.1:9', REDIS_CA: '', HEALTH_PORT: '0' }), machine);
    const worker = await startWorker(config, silent, { script });
    expect((await fetch(`http://127.0.0.1:${worker.healthPort}/readyz`)).status).toBe(503);
    await worker[Symbol.asyncDispose]();
  }, 20_000);
});

describe.skipIf(!hasRedisServer)('of three workers with a recording each', () => {
  it('one is killed, one frozen, one told to leave: another goes on with all of them, and the frozen one changes nothing', async () => {
    const prefix = 'tabreel-w4';
    const client = patientRedis(redis, () => undefined);
    const store = createRecordingStore(client, prefix);
    const queue = createRecordQueue(client, prefix, () => undefined);
    const workers: ChildProcess[] = [];
    const startOne = async (slots: number): Promise<ChildProcess> => {
      const worker = spawn(process.execPath, [new URL('./fixtures/stub-worker.ts', import.meta.url).pathname], {
        env: environment({ QUEUE_PREFIX: prefix, SLOTS: String(slots) }),
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      workers.push(worker);
      for await (const line of createInterface({ input: worker.stdout as NodeJS.ReadableStream })) if (line.includes('"worker runs"')) break;
      worker.stdout?.resume();
      return worker;
    };
    const until = async (id: string, what: (record: RecordingRecord) => boolean): Promise<RecordingRecord> => {
      for (const end = Date.now() + 15_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50))) {
        const record = await store.get(id);
        if (record !== null && what(record)) return record;
      }
      throw new Error(`it did not come about: ${JSON.stringify(await store.get(id))}`);
    };
    /** Of the recording's newest process. */
    const pidOf = async (id: string): Promise<number> => {
      const lines = (await store.events(id, '0')).filter(({ type }) => type === 'log').map(({ data }) => (JSON.parse(data) as { message: string }).message);
      return Number(lines.findLast((line) => line.startsWith('process '))?.slice(8));
    };
    try {
      const origin = { scheme: 'https', host: 'rec.example.com', port: null, source: 'socket' } as const;
      const held: { worker: ChildProcess; id: string; pid: number }[] = [];
      for (let i = 0; i < 3; i += 1) {
        const worker = await startOne(1);
        const job = someJob();
        await store.create({ job, origin, metadata: {}, priority: 0, startAt: null, now: Date.now(), idempotency: null });
        await queue.add('record', job, recordJobOptions(job.recordingId, 0, 0));
        // the others are busy
        await until(job.recordingId, (record) => record.state === 'recording' && (record.stats?.bytes ?? 0) > 0);
        held.push({ worker, id: job.recordingId, pid: await pidOf(job.recordingId) });
      }
      const [killed, frozen, leaving] = held as [(typeof held)[0], (typeof held)[0], (typeof held)[0]];
      await startOne(3);
      const began = Date.now();
      killed.worker.kill('SIGKILL');
      frozen.worker.kill('SIGSTOP');
      leaving.worker.kill('SIGINT');
      const [code] = (await once(leaving.worker, 'exit')) as [number];
      expect(code).toBe(0);
      const after: number[] = [];
      for (const { id } of [leaving, killed, frozen]) {
        const record = await until(id, ({ attempt, state }) => attempt === 2 && state === 'recording');
        after.push((Date.now() - began) / 1000);
        expect(record.error).toBeUndefined();
      }
      console.log(`on with another after ${after.map((seconds) => seconds.toFixed(1)).join(', ')} s (left, killed, frozen)`);
      expect(Math.max(...after)).toBeLessThan(20);
      frozen.worker.kill('SIGCONT');
      for (const end = Date.now() + 8000; Date.now() < end && isAlive(frozen.pid); ) await new Promise((resolve) => setTimeout(resolve, 50));
      expect(isAlive(frozen.pid)).toBe(false);
      for (const { id } of held) expect(await store.get(id)).toMatchObject({ state: 'recording', attempt: 2 });
      expect((await store.get(frozen.id))?.warnings).toEqual(['this is a stub']);
      const stopped = await Promise.all(held.map(({ id }) => store.change(id, { from: ['recording'], desired: 'stopped' })));
      expect(stopped.map(({ outcome }) => outcome)).toEqual(['changed', 'changed', 'changed']);
      for (const { id } of held) expect((await until(id, ({ state }) => state === 'finishing')).error).toBeUndefined();
    } finally {
      for (const worker of workers) worker.kill('SIGKILL');
      client.disconnect();
    }
  }, 60_000);
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe.skipIf(!hasRedisServer)('node worker/main.ts', () => {
  const run = (more: Record<string, string> = {}): ChildProcess =>
    spawn(process.execPath, [new URL('../../worker/main.ts', import.meta.url).pathname], { env: environment(more), stdio: ['ignore', 'pipe', 'pipe'] });

  it('runs until SIGTERM and exits 0', async () => {
    const child = run({ QUEUE_PREFIX: 'tabreel-w2', SLOTS: '1' });
    const events: string[] = [];
    for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
      const { event } = JSON.parse(line) as { event: string };
      events.push(event);
      if (event === 'worker runs') child.kill('SIGTERM');
    }
    const [code] = child.exitCode === null ? ((await once(child, 'exit')) as [number]) : [child.exitCode];
    expect(code).toBe(0);
    expect(events.at(-1)).toBe('worker left');
  }, 15_000);

  it('takes nothing while its self-test fails, says why, and leaves when it is told to', async () => {
    const child = run({ QUEUE_PREFIX: 'tabreel-w5', SLOTS: '1', SELF_TEST: 'true', HEALTH_PORT: '0' });
    let port = 0;
    for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
      const told = JSON.parse(line) as { event: string; port?: number };
      port = told.port ?? port;
      expect(told.event).not.toBe('worker runs');
      if (told.event !== 'self-test failed: no recordings are taken') continue;
      expect(told).toMatchObject({ level: 'error', code: 'browser_launch_failed', remedy: expect.stringContaining('sandbox') as string, again: expect.any(Number) as number });
      break;
    }
    child.stdout?.resume();
    const [ready, alive] = await Promise.all(['readyz', 'healthz'].map((path) => fetch(`http://127.0.0.1:${port}/${path}`)));
    expect(ready?.status).toBe(503);
    expect(await ready?.json()).toMatchObject({ status: 'not ready', checks: { redis: { ok: true }, browser: { ok: false, code: 'browser_launch_failed' } } });
    expect(alive?.status).toBe(200);
    child.kill('SIGTERM');
    const [code] = (await once(child, 'exit')) as [number];
    expect(code).toBe(0);
  }, 30_000);

  it('tells a wrong setting in one line and exits 1', async () => {
    const child = run({ SLOTS: 'many' });
    let said = '';
    child.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number];
    expect(code).toBe(1);
    expect(said).toBe('SLOTS="many": must be a whole number from 1 to 256\n');
  });
});
