/** The whole way behind a real proxy that ends TLS: what the caller asks, what the worker sends, what is fetched. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { probe, readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { createAuthority } from '../helpers/certificates.ts';
import { operatorCurl, operatorEnvironment } from '../helpers/keys.ts';
import { startPages } from '../helpers/pages.ts';
import { lacks, startService } from '../helpers/service.ts';
import { nginx } from '../proxies/nginx.ts';
import { startProxy } from '../proxies/proxy.ts';

describe.skipIf(await lacks('ffmpeg', 'headless shell', 'nginx', 'openssl', 'curl'))('behind nginx', () => {
  it('a recording is asked for, made and fetched over TLS', async () => {
    await using authority = await createAuthority();
    const leaf = await authority.issue(['127.0.0.1']);
    await using pages = await startPages();
    await using service = await startService({ environment: { ...operatorEnvironment, MEDIA_CA: authority.caPath } });
    await using proxy = await startProxy(nginx, leaf, Number(new URL(service.url).port));
    const outside = `127.0.0.1:${proxy.ports.single}`;
    const curl = async (...args: string[]): Promise<string> =>
      (await promisify(execFile)('curl', ['--silent', '--show-error', '--fail-with-body', '--max-time', '60', '--cacert', authority.caPath, ...operatorCurl, ...args])).stdout;

    const body = { url: pages.url('/animated.html'), width: 640, height: 360, audio: false, maxDuration: 3 };
    const created = JSON.parse(
      await curl(`https://${outside}/v1/recordings`, '--header', 'content-type: application/json', '--data', JSON.stringify(body)),
    ) as Recording;
    expect(created.mediaUrl).toBe(`wss://${outside}/v1/recordings/${created.id}/media`);
    expect(created.links.file).toMatch(`https://${outside}/v1/recordings/${created.id}/recording.mp4`);

    // as they come, through the proxy, until the recording is over
    const events = await curl('--no-buffer', created.links.events);
    expect(events).toMatch(/event: state\ndata: .*"completed"/);
    const file = join(proxy.directory, 'recording.mp4');
    await curl('--output', file, created.links.file);

    const recording = JSON.parse(await curl(`https://${outside}/v1/recordings/${created.id}`)) as Recording;
    expect(recording).toMatchObject({ state: 'completed', mediaUrl: created.mediaUrl, origin: { scheme: 'https', host: '127.0.0.1', port: proxy.ports.single } });
    expect((await probe(file)).video).toMatchObject({ codec: 'h264', width: 640, height: 360 });
    const frames = uniqueFrames(await readFrames(file));
    console.log(`through nginx: ${frames.unique} different frames in ${recording.duration} s, ${(frames.perSecond).toFixed(1)} a second`);
    expect(frames.unique).toBeGreaterThan(30);
    expect(frames.unique).toBeLessThanOrEqual(91);
    // the proxy saw the worker's socket
    expect(await readFile(join(proxy.directory, 'access.log'), 'utf8')).toContain(`"GET /v1/recordings/${created.id}/media HTTP/1.1" 101 `);
  });
});
