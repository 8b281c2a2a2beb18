/** The Media Push plugin's way, with its own calls: nginx sends those here, and all else of the application to the Ant Media Server. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startAntMedia, type AntMedia } from '../antmedia/server.ts';
import { createAuthority, type Authority } from '../helpers/certificates.ts';
import { operatorCurl, operatorEnvironment } from '../helpers/keys.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { lacks, startService, type Service } from '../helpers/service.ts';
import { nginxAt } from '../proxies/nginx.ts';
import { freePorts, listens, runProcess, type RunningProcess } from '../proxies/proxy.ts';

const missing = await lacks('chromium', 'redis-server', 'nginx', 'openssl', 'curl', 'headless shell');

describe.skipIf(missing)("the Media Push plugin's calls", () => {
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-media-push-'));
  let authority: Authority;
  let pages: Pages;
  let server: AntMedia;
  let service: Service;
  let nginx: RunningProcess;
  let outside: string;
  beforeAll(async () => {
    [authority, pages, server] = await Promise.all([createAuthority(), startPages(), startAntMedia({ token: 'Sesame-1' })]);
    service = await startService({ slots: 2, environment: { ...operatorEnvironment, MEDIA_CA: authority.caPath } });
    const [port = 0] = await freePorts(1);
    outside = `127.0.0.1:${port}`;
    const leaf = await authority.issue(['127.0.0.1']);
    const edge = Number(new URL(service.url).port);
    writeFileSync(join(directory, 'nginx.conf'), nginxAt(outside, { directory, leaf, edge }, { '/LiveApp/': server.port, '/LiveApp/rest/v1/media-push/': edge }));
    nginx = runProcess(['nginx', '-p', directory, '-c', 'nginx.conf', '-e', 'stderr'], { cwd: directory });
    await listens(port, '127.0.0.1', [nginx], leaf);
  });
  afterAll(async () => {
    for (const each of [nginx, service, server, pages, authority]) await each?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  });

  const call = async (path: string, body?: unknown): Promise<Record<string, unknown>> => {
    const data = body === undefined ? [] : ['-H', 'Content-Type: application/json', '-d', JSON.stringify(body)];
    const args = ['--silent', '--show-error', '--max-time', '60', '--cacert', authority.caPath, ...operatorCurl, '-X', 'POST', '-H', 'Accept: Application/json', ...data];
    const { stdout } = await promisify(execFile)('curl', [...args, `https://${outside}/LiveApp/rest/v1/media-push/${path}`]);
    return JSON.parse(stdout) as Record<string, unknown>;
  };

  it('a page is live there when start says so, obeys a command, is recorded by the server, and is gone when stop says so', async () => {
    const started = await call('start', { url: pages.url('/animated.html'), width: 640, height: 360, token: 'Sesame-1', recordType: 'webm', extraChromeSwitches: '--accept-lang=fr,--no-zygote' });
    expect(started).toEqual({ success: true, message: 'Chrome switches that are not passed on: --no-zygote', dataId: expect.any(String), errorId: 0 });
    const streamId = started['dataId'] as string;
    onTestFinished(() => void call(`stop/${streamId}`).catch(() => undefined));
    const session = server.streams.get(streamId)?.sessions.at(-1);
    expect(session?.ended).toBeNull();
    // the receiver's browser tells of packets first, then of whole frames
    await server.until('a picture', () => (session?.video.length ?? 0) > 0);

    const asked = await server.until('the server is asked to record', () => server.restCalls.find((each) => each.streamId === streamId));
    expect(asked).toMatchObject({ recording: true, recordType: 'webm', answer: { success: true } });
    const put = server.requests.findLast(({ method }) => method === 'PUT');
    expect({ host: put?.host, scheme: put?.forwarded['x-forwarded-proto'] }).toEqual({ host: outside, scheme: 'https' });

    const send = (jsCommand: string) => call(`send-command?streamId=${streamId}`, { jsCommand });
    expect(await send('const answer = innerWidth + "x" + innerHeight; return answer')).toEqual({ success: true, message: '640x360', dataId: streamId, errorId: 0 });
    expect(await send('return navigator.language')).toMatchObject({ message: 'fr' });
    expect(await send('return new Promise((resolve) => setTimeout(() => resolve({ a: 1 }), 20))')).toMatchObject({ success: true, message: '{"a":1}' });
    expect(await send('document.title = "commanded"')).toMatchObject({ success: true, message: '' });
    expect(await send('return document.title')).toMatchObject({ message: 'commanded' });
    expect(await send('null.x')).toMatchObject({ success: false, message: expect.stringMatching(/^Command cannot be executed: TypeError/), dataId: null });

    expect(await call(`stop/${streamId}`)).toEqual({ success: true, message: null, dataId: null, errorId: 0 });
    expect(session?.ended).toBe('stop');
    const { body } = await service.api<{ recordings: { state: string; files: unknown[]; warnings: string[]; push: { streamId: string }[] }[] }>('/v1/recordings');
    const [recording] = body.recordings.filter(({ push }) => push[0]?.streamId === streamId);
    expect(recording?.files).toEqual([]);
    expect(recording?.warnings.join()).not.toContain('does not record');
    expect(service.lines.join('')).not.toContain('Sesame');
  });

  it('a server that refuses the token is told of in the answer; one that refuses to record, in a warning', async () => {
    server.faults.rest = 403;
    const url = pages.url('/animated.html');
    const [refused, kept] = await Promise.all([
      call('start?streamId=refused', { url, width: 320, height: 240, token: 'Sesame-2' }),
      call('start?streamId=kept', { url, width: 320, height: 240, token: 'Sesame-1', recordType: 'mp4' }),
    ]);
    expect(refused).toEqual({ success: false, message: expect.stringContaining('token'), dataId: null, errorId: 0 });
    expect(kept).toEqual({ success: true, message: null, dataId: 'kept', errorId: 0 });
    const warnings = async () => {
      const { body } = await service.api<{ recordings: { warnings: string[]; push: { streamId: string }[] }[] }>('/v1/recordings');
      return body.recordings.find(({ push }) => push[0]?.streamId === 'kept')?.warnings;
    };
    await expect.poll(warnings, { timeout: 20_000 }).toContain(`The server does not record kept: ${outside} answered with HTTP status 403`);
    expect(await call('stop/kept')).toMatchObject({ success: true });
  });
});
