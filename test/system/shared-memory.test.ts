/** Workers as processes of their own, each with a /dev/shm of its own size: too small a one is refused with what mends it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readEdgeConfig } from '../../edge/config.ts';
import { startFinaliser } from '../../edge/finishing.ts';
import { startEdge } from '../../edge/server.ts';
import { createLog } from '../../shared/log.ts';
import type { Recording } from '../../shared/recording.ts';
import { readEvents } from '../../bin/events.ts';
import { eventually } from '../edge/harness.ts';
import { readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { inherited } from '../helpers/environment.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { lacks } from '../helpers/service.ts';
import { runProcess } from '../proxies/proxy.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'tabreel-shm-'));
const silent = createLog('error', () => undefined);

describe.skipIf(await lacks('root', 'ffmpeg', 'headless shell'))('a worker', () => {
  const stack = new AsyncDisposableStack();
  let redis: TestRedis;
  let pages: Pages;
  beforeAll(async () => {
    redis = stack.use(await startRedis());
    pages = await startPages();
    stack.defer(() => pages.close());
    stack.defer(() => rmSync(directory, { recursive: true }));
  });
  afterAll(() => stack[Symbol.asyncDispose]());

  const environmentOf = (name: string, more: Record<string, string>) => ({
    ...inherited,
    ...redis.environment,
    QUEUE_PREFIX: name,
    TOKEN_SECRET: 'shared-memory-token-secret',
    STORAGE_URL: pathToFileURL(join(directory, name)).href,
    SPOOL_DIR: directory,
    PORT: '0',
    HEALTH_PORT: '0',
    SLOTS: '1',
    CAPTURE_ENGINE: 'self',
    CHROMIUM_SANDBOX: 'off',
    OUTBOUND_ALLOW: '127.0.0.1',
    ...more,
  });
  /** A mount namespace of its own, with such a /dev/shm in it. */
  const startWorker = (size: string, environment: Record<string, string>) =>
    runProcess(['unshare', '--mount', 'sh', '-c', `mount -t tmpfs -o size=${size} tmpfs /dev/shm && exec "$0" worker/main.ts`, process.execPath], { cwd: root, environment });

  it.concurrent('with 64 MiB refuses to start, and says what mends it', async () => {
    await using worker = startWorker('64m', environmentOf('small', {}));
    await eventually(async () => worker.child.exitCode, (code) => code !== null, 20_000);
    expect(worker.child.exitCode).toBe(1);
    const said = worker.output();
    expect(said).toContain('/dev/shm has 64 MiB, and a recording needs 256 MiB');
    for (const remedy of ['emptyDir: {medium: Memory, sizeLimit: 256Mi}', 'mountPath: /dev/shm', 'shm_size: 256m', '--shm-size=256m', 'kernel.shmmax', 'SHM=disk']) {
      expect(said).toContain(remedy);
    }
  });

  it.concurrent.each([
    ['with 1 GiB records, and tells how much it uses', '1g', {} as Record<string, string>],
    ['with 64 MiB and SHM=disk records', '64m', { SHM: 'disk' }],
  ])('%s', async (name, size, more) => {
    await using own = new AsyncDisposableStack();
    const environment = environmentOf(size, more);
    const config = readEdgeConfig(environment, '');
    const edge = own.use(await startEdge(config, silent));
    own.use(await startFinaliser(config, silent));
    const worker = own.use(startWorker(size, environment));
    const health = await eventually(async () => /"worker runs".*"healthPort":(\d+)/.exec(worker.output())?.[1], (port) => port !== undefined, 30_000);
    const body = JSON.stringify({ url: pages.url('/animated.html'), width: 640, height: 360, maxDuration: 3 });
    const created = (await (await fetch(`${edge.url}/v1/recordings`, { method: 'POST', body, headers: { 'content-type': 'application/json' } })).json()) as Recording;
    let peak = 0;
    const look = async () => {
      const metrics = await (await fetch(`http://127.0.0.1:${health}/metrics`)).text();
      peak = Math.max(peak, Number(/tabreel_worker_shm_bytes\{state="used"\} (\d+)/.exec(metrics)?.[1]));
    };
    const looks = setInterval(() => void look().catch(() => undefined), 200);
    own.defer(() => clearInterval(looks));
    for await (const { data } of readEvents(created.links.events, AbortSignal.timeout(60_000))) expect(data['state']).not.toBe('failed');
    await look();
    const file = join(directory, `${size}.mp4`);
    await writeFile(file, await (await fetch(created.links.file)).bytes());
    const { unique } = uniqueFrames(await readFrames(file));
    console.log(`${name}: ${unique} different frames in 3 s, ${(peak / 2 ** 20).toFixed(1)} MiB of /dev/shm`);
    expect(unique).toBeGreaterThan(30);
    if (more['SHM'] === 'disk') expect(peak).toBe(0);
  });
});
