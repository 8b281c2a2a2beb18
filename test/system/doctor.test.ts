/** `tabreel doctor URL --record`: a real recording through a real service, and what is said of one that breaks. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { examine, type DoctorReport } from '../../bin/doctor.ts';
import { testEdge } from '../edge/harness.ts';
import { createAuthority, type Authority } from '../helpers/certificates.ts';
import { operator, operatorEnvironment } from '../helpers/keys.ts';
import { startRedis } from '../helpers/redis.ts';
import { lacks, startService, type Service } from '../helpers/service.ts';
import { nginxAt } from '../proxies/nginx.ts';
import { freePorts, listens, runProcess } from '../proxies/proxy.ts';

const program = fileURLToPath(new URL('../../bin/tabreel.ts', import.meta.url));
const marksOf = ({ links }: DoctorReport) => Object.fromEntries(links.map(({ name, mark }) => [name, mark]));
const textOf = ({ links }: DoctorReport, name: string): string => {
  const link = links.find((each) => each.name === name);
  return [link?.detail, ...(link?.notes ?? []), ...(link?.advice ?? [])].join('\n');
};

async function doctor(args: readonly string[], options: { interruptAt?: RegExp } = {}) {
  const child = spawn(process.execPath, [program, 'doctor', ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, TABREEL_KEY: operator.key } });
  const said = { out: '', err: '' };
  let interrupted = false;
  child.stdout.on('data', (chunk: Buffer) => (said.out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => {
    said.err += chunk.toString();
    if (interrupted || options.interruptAt?.test(said.err) !== true) return;
    interrupted = true;
    child.kill('SIGINT');
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, ...said };
}

const noTls = await lacks('nginx', 'openssl');

describe.skipIf(await lacks('headless shell'))('a trial recording', () => {
  let stack: AsyncDisposableStack;
  let authority: Authority | undefined;
  let service: Service;
  /** By nginx, with TLS. */
  let outside = '';
  beforeAll(async () => {
    stack = new AsyncDisposableStack();
    authority = noTls ? undefined : stack.use(await createAuthority());
    service = stack.use(await startService({ slots: 2, environment: { ...operatorEnvironment, ...(authority === undefined ? {} : { MEDIA_CA: authority.caPath }) } }));
    if (authority === undefined) return;
    const leaf = await authority.issue(['127.0.0.1']);
    const [port = 0] = await freePorts(1);
    const directory = mkdtempSync(join(tmpdir(), 'tabreel-doctor-'));
    stack.defer(() => rmSync(directory, { recursive: true, force: true }));
    writeFileSync(join(directory, 'nginx.conf'), nginxAt(`127.0.0.1:${port}`, { directory, leaf, edge: Number(new URL(service.url).port) }));
    const proxy = stack.use(runProcess(['nginx', '-p', directory, '-c', 'nginx.conf', '-e', 'stderr']));
    await listens(port, '127.0.0.1', [proxy]);
    outside = `https://127.0.0.1:${port}`;
  });
  afterAll(() => stack.disposeAsync());
  const left = async () => (await service.api<{ recordings: unknown[] }>('/v1/recordings')).body.recordings;

  it('is sent again and again by a canary, which tells how it went and leaves nothing behind', async () => {
    const child = spawn(process.execPath, [program, 'canary', service.url, '--every', '1', '--port', '0'], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, TABREEL_KEY: operator.key } });
    const lines: { event: string; port?: number; recording?: string }[] = [];
    try {
      let seen: string[] = [];
      for await (const line of createInterface({ input: child.stdout })) {
        const told = JSON.parse(line) as (typeof lines)[0];
        lines.push(told);
        const text = async () => (await fetch(`http://127.0.0.1:${lines[0]?.port}/metrics`)).text();
        if (told.event === 'canary runs') expect(await text()).toMatch(/# TYPE tabreel_canary_up gauge\n# HELP tabreel_canary_running/);
        if (told.event !== 'canary recorded') continue;
        seen = (await text()).split('\n');
        await expect.poll(async () => (await service.api<{ recordings: unknown[] }>('/v1/recordings?state=recording')).body.recordings.length, { timeout: 20_000 }).toBe(1);
        // one is being recorded at this moment
        child.kill('SIGTERM');
      }
      expect(child.exitCode ?? (await once(child, 'exit'))[0]).toBe(0);
      expect(seen).toEqual(expect.arrayContaining(['tabreel_canary_up 1', 'tabreel_canary_runs_total{outcome="ok"} 1', 'tabreel_canary_runs_total{outcome="failed"} 0', 'tabreel_canary_step_ok{step="file"} 1']));
      const valueOf = (name: string) => Number(seen.find((line) => line.startsWith(name))?.split(' ')[1]);
      expect(valueOf('tabreel_canary_last_success_timestamp_seconds')).toBeGreaterThan(Date.now() / 1000 - 60);
      expect(valueOf('tabreel_canary_seconds{step="page"}')).toBeGreaterThan(0);
      expect(valueOf('tabreel_canary_frame_share')).toBeGreaterThan(0.3);
      expect(lines.map(({ event }) => event)).toEqual(['canary runs', 'canary recorded', 'canary left']);
      await expect.poll(async () => (await left()).length, { timeout: 10_000 }).toBe(0);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('is made, followed, fetched and looked at; without and with TLS', async () => {
    const [plain, secure] = await Promise.all([
      doctor([service.url, '--record']),
      // the browser knows no authorities but the system's, so it is shown a page without TLS
      authority === undefined ? null : doctor([outside, '--record', '--json', '--ca', authority.caPath, '--page', `${service.url}/doctor/page`]),
    ]);
    expect({ ...plain, out: plain.out }).toMatchObject({ code: 0 });
    for (const name of ['test page', 'request', 'queued', 'page', 'media', 'stop', 'finish', 'file', 'events', 'clean up']) {
      expect(plain.out).toMatch(new RegExp(`^ok    ${name} `, 'm'));
    }
    expect(plain.out).toMatch(/^ok {4}file +\d\.\d\d MB, [4-7]\.\d s, 640x360, \d+ pictures, sound$/m);
    expect(plain.err).toMatch(/is recording[\s\S]*MB stored[\s\S]*is completed/);
    expect(plain.out + plain.err).not.toMatch(/token=|eyJ/);
    if (secure !== null) {
      const report = JSON.parse(secure.out) as DoctorReport;
      expect({ code: secure.code, err: secure.err, marks: new Set(report.links.map(({ mark }) => mark)) }).toEqual({ code: 0, err: '', marks: new Set(['ok']) });
      expect(textOf(report, 'request')).toContain(`media goes to ${outside.replace('https', 'wss')}`);
      expect(secure.out).not.toMatch(/token=|eyJ/);
    }
    expect(await left()).toEqual([]);
  });

  it.skipIf(noTls)("of which the worker's browser refuses the certificate breaks at the page", async () => {
    const { code, out } = await doctor([outside, '--record', '--json', '--ca', authority?.caPath ?? '']);
    const report = JSON.parse(out) as DoctorReport;
    expect(marksOf(report)).toMatchObject({ tls: 'ok', origin: 'ok', upgrade: 'ok', request: 'ok', queued: 'ok', page: 'fail', file: 'skipped' });
    expect({ code, error: report.recording?.error?.code }).toEqual({ code: 1, error: 'target_tls' });
    expect(textOf(report, 'page')).toMatch(/target_tls: .*\/doctor\/page[\s\S]*CACertificates[\s\S]*--page URL/);
  });

  it('that is interrupted is deleted', async () => {
    const { code, err } = await doctor([service.url, '--record'], { interruptAt: /is recording/ });
    expect({ code, err: err.split('\n').map((line) => line.trim()).slice(-3) }).toEqual({
      code: 130,
      err: ['the trial recording is deleted', 'tabreel: interrupted', ''],
    });
    expect(await left()).toEqual([]);
  });
});

describe.skipIf(await lacks('headless shell')).concurrent('a trial recording whose media URL leads nowhere', () => {
  it('breaks at the media, and says why', async () => {
    const [port = 0] = await freePorts(1);
    await using service = await startService({ environment: { MEDIA_URL: `ws://127.0.0.1:${port}` } });
    const said: string[] = [];
    const report = await examine(
      { url: service.url, record: true, page: null, keep: false, ca: null, key: null },
      { signal: new AbortController().signal, tell: () => undefined, say: (line) => said.push(line), patience: { media: 7000 } },
    );
    expect(report.ok).toBe(false);
    expect(marksOf(report)).toMatchObject({ origin: 'ok', upgrade: 'fail', queued: 'ok', page: 'ok', media: 'fail', file: 'skipped', 'clean up': 'ok' });
    expect(textOf(report, 'upgrade')).toMatch(/ECONNREFUSED[\s\S]*MEDIA_URL/);
    // as the worker itself warns
    const words = new RegExp(`127\\.0\\.0\\.1:${port}: nothing listens there`);
    expect(said.join('\n')).toMatch(words);
    expect(textOf(report, 'media')).toMatch(words);
  });
});

describe.concurrent('a trial recording that no worker takes', () => {
  it('says so, and is deleted', async () => {
    await using redis = await startRedis();
    await using edge = await testEdge(redis);
    const report = await examine(
      { url: edge.url, record: true, page: null, keep: false, ca: null, key: null },
      { signal: new AbortController().signal, tell: () => undefined, say: () => undefined, patience: { queued: 1500 } },
    );
    expect(marksOf(report)).toMatchObject({ request: 'ok', queued: 'fail', file: 'skipped', 'clean up': 'ok' });
    expect(textOf(report, 'queued')).toMatch(/no worker takes jobs[\s\S]*REDIS_URL[\s\S]*QUEUE_PREFIX/);
    expect((await edge.api('/v1/recordings')).body.recordings).toEqual([]);
  });
});
