/** What becomes of a recording whose media URL is no good, through the whole worker. */
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../../bin/local-redis.ts';
import { createAuthority, hasOpenssl } from '../helpers/certificates.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { lacks, startService } from '../helpers/service.ts';

if (!hasOpenssl) console.warn('Tests are skipped for want of openssl: apt-get install openssl');

describe.skipIf(!hasOpenssl || (await lacks('headless shell')))('a recording', () => {
  let pages: Pages;
  beforeAll(async () => {
    pages = await startPages();
  });
  afterAll(() => pages.close());

  it('whose media URL shows a certificate of nobody known fails with that, was warned of it before, and is counted', async () => {
    await using authority = await createAuthority();
    const server = createServer(await authority.issue(['127.0.0.1'])).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    await using service = await startService({
      environment: { PUBLIC_URL: `https://${host}`, HEALTH_PORT: '0' },
      mediaLimits: { unreachable: 2500, told: 500 },
    });
    const { id } = await service.create({ url: pages.url('/static.html') });
    const recording = await service.waitFor(id, 'failed');
    expect(recording.error).toMatchObject({ code: 'media_tls_authority', blame: 'service', retryable: false });
    expect(recording.error?.message).toMatch(new RegExp(`${host}: the authority of its certificate is not trusted.*MEDIA_CA`));
    expect(recording.warnings.filter((warning) => warning.includes(host))).toEqual([expect.stringContaining(`${host}: the authority of its certificate is not trusted`)]);
    const metrics = await (await fetch(`http://127.0.0.1:${service.worker.healthPort}/metrics`)).text();
    expect(metrics).toMatch(/^tabreel_worker_media_dials_total\{outcome="media_tls_authority"\} [1-9]/m);
    expect(metrics).toContain('tabreel_worker_media_sockets 0\n');
    server.close();
    server.closeAllConnections();
  });

  it('goes to a media URL without TLS only because the worker may, and says so', async () => {
    const port = await freePort();
    await using service = await startService({
      environment: { PORT: String(port), PUBLIC_URL: `https://127.0.0.1:${port}`, ALLOW_INSECURE_WS: 'true', HEALTH_PORT: '0' },
      mediaLimits: { told: 500 },
    });
    const { id } = await service.create({ url: pages.url('/static.html'), maxDuration: 2 });
    const recording = await service.waitFor(id, 'completed');
    expect(recording.error).toBeUndefined();
    expect(recording.warnings).toContainEqual(expect.stringContaining('ALLOW_INSECURE_WS=true allows to go without'));
    const metrics = await (await fetch(`http://127.0.0.1:${service.worker.healthPort}/metrics`)).text();
    expect(metrics).toContain('tabreel_worker_media_dials_total{outcome="open"} 1\n');
    expect(metrics).toMatch(/^tabreel_worker_media_round_trip_seconds_count [1-9]/m);
  });
});
