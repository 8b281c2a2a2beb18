/**
 * Edge and worker on machines of their own, as real processes: what loopback means is another thing on each. Redis, the edge,
 * the finaliser and nginx are on one, the worker and the page on the other.
 */
import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { probe, readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { createAuthority } from '../helpers/certificates.ts';
import { operatorCurl, operatorEnvironment } from '../helpers/keys.ts';
import { createNamespaces, type Namespace } from '../helpers/namespaces.ts';
import { lacks, type Problem } from '../helpers/service.ts';
import { nginxAt } from '../proxies/nginx.ts';
import { runProcess, type RunningProcess } from '../proxies/proxy.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const PASSWORD = 'two-machines';
const REDIS_PORT = 6379;
const EDGE_PORT = 8080;
const TLS_PORT = 8443;
const PAGES_PORT = 9000;

/** A worker unpacks its browser, tests itself and measures its sound first; on a busy machine that takes long, and it has 100 s for it. */
const PREPARED_MS = 110_000;

describe.skipIf(await lacks('network namespaces', 'redis-server', 'ffmpeg', 'headless shell', 'nginx', 'openssl', 'curl'))('edge and worker on two machines', () => {
  it('a loopback origin is refused before anything is queued; one through the proxy is recorded', async () => {
    await using stack = new AsyncDisposableStack();
    const directory = mkdtempSync(join(tmpdir(), 'tabreel-two-'));
    stack.defer(() => rmSync(directory, { recursive: true, force: true }));
    chmodSync(directory, 0o755);
    const authority = stack.use(await createAuthority());
    const { a: edgeSide, b: workerSide, ...namespaces } = await createNamespaces();
    stack.defer(() => namespaces[Symbol.asyncDispose]());
    const outside = `${edgeSide.address}:${TLS_PORT}`;
    const leaf = await authority.issue([edgeSide.address]);

    const start = (side: Namespace, command: readonly [string, ...string[]], environment: Record<string, string> = {}): RunningProcess =>
      stack.use(runProcess(side.within(...command), { cwd: root, environment }));
    /** The first line of its output that has this in it. */
    const says = async (running: RunningProcess, text: string, patience = 30_000): Promise<void> => {
      for (const until = Date.now() + patience; !running.output().includes(text); await sleep(20)) {
        const { exitCode, signalCode } = running.child;
        if (exitCode !== null || signalCode !== null || Date.now() > until) throw new Error(`it never said ${text}:\n${running.output().slice(-4000)}`);
      }
    };

    const redis = start(edgeSide, ['redis-server', '--bind', edgeSide.address, '--port', String(REDIS_PORT), '--requirepass', PASSWORD, '--save', '', '--dir', directory]);
    await says(redis, 'Ready to accept connections');
    const environment = {
      HOME: directory,
      REDIS_URL: `redis://:${PASSWORD}@${edgeSide.address}:${REDIS_PORT}`,
      TOKEN_SECRET: 'two-machines-token-secret',
      SECRETS_KEY: 'two-machines-secrets-key',
      STORAGE_URL: pathToFileURL(join(directory, 'storage')).href,
      LOG_LEVEL: 'info',
    };
    const edge = start(edgeSide, [process.execPath, 'edge/node.ts'], { ...environment, ...operatorEnvironment, PORT: String(EDGE_PORT) });
    start(edgeSide, [process.execPath, 'edge/finaliser.ts'], environment);
    await writeFile(join(directory, 'nginx.conf'), nginxAt(outside, { directory, leaf, edge: EDGE_PORT }));
    start(edgeSide, ['nginx', '-p', directory, '-c', 'nginx.conf', '-e', 'stderr']);
    const worker = start(workerSide, [process.execPath, 'worker/main.ts'], {
      ...environment,
      MEDIA_CA: authority.caPath,
      SLOTS: '1',
      CAPTURE_ENGINE: 'self',
      CHROMIUM_SANDBOX: 'off',
      // the page is on the worker's own machine
      OUTBOUND_ALLOW: '127.0.0.1',
    });
    const pages = start(workerSide, [process.execPath, '--input-type=module', '--eval', `
      import { startPages } from ${JSON.stringify(new URL('../helpers/pages.ts', import.meta.url).href)};
      console.log((await startPages({ port: ${PAGES_PORT} })).origin);
    `]);
    await Promise.all([says(edge, '"edge listens"'), says(worker, '"worker runs"', PREPARED_MS), says(pages, 'http://')]);

    const curl = async (side: Namespace, ...args: string[]): Promise<string> => {
      const [command, ...rest] = side.within('curl', '--silent', '--show-error', '--max-time', '60', '--cacert', authority.caPath, ...operatorCurl, ...args);
      return (await run(command, rest)).stdout;
    };
    const post = async <T>(side: Namespace, base: string): Promise<T> => {
      const body = { url: `http://127.0.0.1:${PAGES_PORT}/animated.html`, width: 640, height: 360, audio: false, maxDuration: 3 };
      return JSON.parse(await curl(side, `${base}/v1/recordings`, '--header', 'content-type: application/json', '--data', JSON.stringify(body))) as T;
    };

    // as `kubectl port-forward` has it: the caller's loopback is the edge's, and no worker's
    const refused = await post<Problem>(edgeSide, `http://127.0.0.1:${EDGE_PORT}`);
    expect(refused).toMatchObject({ status: 421, code: 'origin_loopback' });
    const metrics = await curl(edgeSide, `http://127.0.0.1:${EDGE_PORT}/metrics`);
    expect(metrics).toContain('tabreel_recordings{state="queued"} 0\n');
    expect(metrics).not.toMatch(/^(tabreel_recordings|bullmq_job_count)\{.*\} [1-9]/m);

    const created = await post<Recording>(workerSide, `https://${outside}`);
    expect(created.mediaUrl).toBe(`wss://${outside}/v1/recordings/${created.id}/media`);
    expect(await curl(workerSide, '--no-buffer', created.links.events)).toMatch(/event: state\ndata: .*"completed"/);
    const file = join(directory, 'recording.mp4');
    await curl(workerSide, '--fail-with-body', '--output', file, created.links.file);
    expect((await probe(file)).video).toMatchObject({ codec: 'h264', width: 640, height: 360 });
    const frames = uniqueFrames(await readFrames(file));
    console.log(`two machines: ${frames.unique} different frames, ${frames.perSecond.toFixed(1)} a second`);
    expect(frames.unique).toBeGreaterThan(30);
  }, 2 * PREPARED_MS);
});
