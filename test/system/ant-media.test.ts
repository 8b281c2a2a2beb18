/** What a caller asks for behind nginx, which has the API and an Ant Media Server under one name: the page is recorded and arrives there. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { startAntMedia, type AntMedia, type Session } from '../antmedia/server.ts';
import { flashBeepOffsets, probe, readBeeps, readFrames, summary, uniqueFrames } from '../helpers/analyse.ts';
import { createAuthority, type Authority } from '../helpers/certificates.ts';
import { operatorCurl, operatorEnvironment } from '../helpers/keys.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { lacks, startService } from '../helpers/service.ts';
import { nginxAt } from '../proxies/nginx.ts';
import { freePorts, listens, runProcess, type RunningProcess } from '../proxies/proxy.ts';
import { figuresOf } from './figures.ts';

const SECONDS = 10;
const missing = await lacks('ffmpeg', 'chromium', 'redis-server', 'nginx', 'openssl', 'curl');
const without = { self: missing || (await lacks('headless shell')), tab: missing };

describe.skipIf(missing)('a page that is recorded and pushed through one nginx', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-beside-'));
  let authority: Authority;
  let redis: TestRedis;
  let pages: Pages;
  let server: AntMedia;
  beforeAll(async () => {
    [authority, redis, pages, server] = await Promise.all([createAuthority(), startRedis(), startPages(), startAntMedia({ token: 'Sesame-1' })]);
  });
  afterAll(async () => {
    for (const each of [server, pages, redis, authority]) await each?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  });

  async function startNginx(edge: number): Promise<RunningProcess & { outside: string }> {
    const [port = 0] = await freePorts(1);
    const outside = `127.0.0.1:${port}`;
    const leaf = await authority.issue(['127.0.0.1']);
    writeFileSync(join(directory, 'nginx.conf'), nginxAt(outside, { directory, leaf, edge }, { '/LiveApp/': server.port }));
    const running = runProcess(['nginx', '-p', directory, '-c', 'nginx.conf', '-e', 'stderr'], { cwd: directory });
    await listens(port, '127.0.0.1', [running], leaf);
    return { ...running, outside };
  }

  it.for(['self', 'tab'] as const)('with the %s engine', async (engine, { skip }) => {
    skip(without[engine]);
    const environment = { ...operatorEnvironment, MEDIA_CA: authority.caPath, QUEUE_PREFIX: engine };
    await using service = await startService({ engine, redis, calibrate: true, environment });
    await using nginx = await startNginx(Number(new URL(service.url).port));
    const { outside } = nginx;
    const curl = async (...args: string[]): Promise<string> =>
      (await promisify(execFile)('curl', ['--silent', '--show-error', '--fail-with-body', '--max-time', '60', '--cacert', authority.caPath, ...operatorCurl, ...args])).stdout;

    const streamId = `beside-${engine}`;
    const push = [
      { type: 'antmedia', streamId, token: 'Sesame-1' },
      { type: 'antmedia', streamId: `refused-${engine}`, token: 'Sesame-2', subscriberCode: 'Sesame-3' },
    ];
    const body = { url: pages.url('/animated.html?report=1&video=1'), maxDuration: SECONDS, push };
    const asked = Date.now();
    const created = JSON.parse(
      await curl(`https://${outside}/v1/recordings`, '--header', 'content-type: application/json', '--data', JSON.stringify(body)),
    ) as Recording;
    const target = `wss://${outside}/LiveApp/websocket`;
    expect(created.push).toEqual(push.map((each) => ({ type: 'antmedia', url: target, streamId: each.streamId, state: 'waiting', stats: null })));
    const events = await curl('--no-buffer', created.links.events);
    const recording = JSON.parse(await curl(created.links.self)) as Recording;

    // whoever dialled came by TLS, to the name that the caller had used
    const session = server.streams.get(streamId)?.sessions.at(-1) as Session;
    const dials = server.requests.filter(({ headers }) => headers.upgrade === 'websocket');
    for (const { url, host, forwarded, status } of dials.slice(-2)) {
      expect({ url, host, scheme: forwarded['x-forwarded-proto'], status }).toEqual({ url: '/LiveApp/websocket?target=origin', host: outside, scheme: 'https', status: 101 });
    }
    expect(session.ended).toBe('stop');

    // one push that fails takes nothing from the other, nor from the recording
    const [good, refused] = recording.push;
    expect(good).toMatchObject({ state: 'ended', stats: { reconnects: 0 } });
    expect(good).not.toHaveProperty('error');
    expect(refused).toMatchObject({ state: 'failed', error: { code: 'push_unauthorized', blame: 'caller', retryable: false } });
    expect(recording).toMatchObject({ state: 'completed', engine, attempts: 1, verification: { ok: true } });
    expect(recording).not.toHaveProperty('error');
    expect(recording.warnings).toContainEqual(expect.stringMatching(`The push of refused-${engine} has failed`));
    const told = [...events.matchAll(/event: push\ndata: (.*)/g)].map(([, data = '']) => JSON.parse(data) as { streamId: string; state: string });
    const statesOf = (id: string) => told.filter((each) => each.streamId === id).map(({ state }) => state);
    expect(statesOf(streamId)).toEqual(expect.arrayContaining(['connecting', 'live', 'ended']));
    expect(statesOf(`refused-${engine}`).at(-1)).toBe('failed');

    // what only the server may see is nowhere else
    const client = new Redis(redis.url);
    const values: string[] = [];
    for (const key of await client.keys(`*${engine}*`)) values.push(JSON.stringify(await client.dump(key)), JSON.stringify(await client.hgetall(key).catch(() => null)));
    client.disconnect();
    expect(values.join('')).toContain(target);
    expect([created, recording, await service.manifest(created.id), events, service.lines, values].map((each) => JSON.stringify(each)).join('')).not.toContain('Sesame');

    // what arrived there
    const first = session.video[0]?.arrived ?? NaN;
    const last = session.video.at(-1)?.arrived ?? NaN;
    const arrived = await server.received(streamId);
    const frames = await readFrames(arrived);
    const { perSecond, unique, longestGap } = uniqueFrames(frames);
    const drawn = (pages.framesDrawn(first + 500, last - 500) ?? NaN) / ((last - first - 1000) / 1000);
    const share = perSecond / Math.min(30, drawn);
    const beeps = await readBeeps(arrived);
    const offset = summary(flashBeepOffsets(frames, beeps));
    const started = Date.parse(recording.startedAt ?? '');
    console.log(
      `${engine}, at the far end: first picture ${(first - asked).toFixed(0)} ms after the request, ${(first - started).toFixed(0)} ms after the recording's; ${unique} new frames, ${perSecond.toFixed(1)} a second ` +
        `(page drew ${drawn.toFixed(1)}, share ${share.toFixed(3)}), longest gap ${(longestGap * 1000).toFixed(0)} ms, ${beeps.length} beeps, beep after flash ${offset.median.toFixed(0)} ms ` +
        `(p5 ${offset.p5.toFixed(0)}, p95 ${offset.p95.toFixed(0)}), stats ${JSON.stringify(good?.stats)}`,
    );
    expect((await probe(arrived)).video).toMatchObject({ codec: 'h264', width: 1280, height: 720 });
    expect(first - started).toBeLessThanOrEqual(10_000);
    expect(share).toBeGreaterThanOrEqual(0.9);
    expect(perSecond).toBeGreaterThanOrEqual(20);
    expect(beeps.length).toBeGreaterThanOrEqual(SECONDS / 2);
    expect(Math.abs(offset.median)).toBeLessThanOrEqual(120);

    // and what was recorded meanwhile
    const path = join(directory, 'recording.mp4');
    await curl('--output', path, created.links.file);
    const figures = await figuresOf({ ...recording, path }, pages);
    expect(Math.abs((figures.probe.video?.duration ?? 0) - SECONDS)).toBeLessThanOrEqual(0.3);
    expect(Math.abs((figures.probe.audio?.duration ?? 0) - SECONDS)).toBeLessThanOrEqual(0.3);
    expect(figures.share).toBeGreaterThanOrEqual(0.9);
    expect(figures.backwards).toBe(0);
    expect(figures.beeps).toBeGreaterThanOrEqual(SECONDS - 1);
  });
});
