/** What a worker is told by a real nginx that does not pass its media socket on. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLog } from '../../shared/log.ts';
import type { TabreelError } from '../../shared/errors.ts';
import { mediaUrlOf } from '../../shared/origin.ts';
import { createMediaSocketSink } from '../../worker/sink/media-socket.ts';
import { testEdge, type TestEdge } from '../edge/harness.ts';
import { segment } from '../worker/fixtures/stub-ingest.ts';
import { createAuthority, hasOpenssl, type Authority } from '../helpers/certificates.ts';
import { hasRedisServer, startRedis, type TestRedis } from '../helpers/redis.ts';
import { nginx } from './nginx.ts';
import { missingPackages, startProxy, type RunningProxy, type Way } from './proxy.ts';

const missing = [...missingPackages(nginx), ...(hasOpenssl ? [] : ['openssl']), ...(hasRedisServer ? [] : ['redis-server'])];
if (missing.length > 0) console.warn(`Tests are skipped for want of ${missing.join(', ')}: apt-get install them`);

describe.skipIf(missing.length > 0)('a media socket behind nginx', () => {
  let authority: Authority;
  let redis: TestRedis;
  let edge: TestEdge;
  let proxy: RunningProxy;
  beforeAll(async () => {
    [authority, redis] = await Promise.all([createAuthority(), startRedis()]);
    edge = await testEdge(redis, {}, { keyed: true });
    proxy = await startProxy(nginx, await authority.issue(['127.0.0.1']), Number(new URL(edge.url).port));
  });
  afterAll(async () => {
    await proxy[Symbol.asyncDispose]();
    await edge[Symbol.asyncDispose]();
    await redis[Symbol.asyncDispose]();
    await authority[Symbol.asyncDispose]();
  });

  async function dial(way: Way) {
    const { id } = await edge.create();
    const attempt = await edge.control.run(id);
    const url = mediaUrlOf(`wss://127.0.0.1:${proxy.ports[way]}`, id);
    return dialAs(url, attempt, await edge.control.credential(id));
  }
  const dialAs = (url: string, attempt: number, credential: string) =>
    createMediaSocketSink({
      url, credential, attempt, ca: authority.ca, log: createLog('error', () => undefined), limits: { firstRetry: 10, lastRetry: 40, unreachable: 400 },
    });
  const errorOf = (sink: ReturnType<typeof dialAs>) => sink.failed.catch((thrown: unknown) => thrown as TabreelError) as Promise<TabreelError>;

  it('stores its media with the recommended lines', async () => {
    await using sink = await dial('single');
    sink.push({ header: { type: 'init' }, payload: Buffer.from('init') });
    sink.push(segment(0));
    await sink.finish(2_000_000);
    expect(sink.progress()).toMatchObject({ storedSegments: 1, waitingParts: 0 });
  });

  it('is told which headers are missing where nginx has none for WebSockets', async () => {
    await using sink = await dial('bare');
    const error = await errorOf(sink);
    expect(error.code).toBe('media_upgrade_cut');
    expect(error.message).toMatch(/HTTP status 426 \(the request has no Upgrade: websocket.*proxy_set_header Upgrade \$http_upgrade/);
    expect(sink.counts().dials).toBeGreaterThan(1);
  });

  it('is told the status of a gateway without an edge', async () => {
    await edge[Symbol.asyncDispose]();
    await using lost = dialAs(mediaUrlOf(`wss://127.0.0.1:${proxy.ports.single}`, 'rec_1'), 1, 'credential');
    expect(await errorOf(lost)).toMatchObject({ code: 'media_http_status', message: expect.stringContaining('answered HTTP status 502') });
  });
});
