/** Where a push goes that names no URL, dialled: a media server beside the edge, under the name that the caller used, behind each proxy. */
import { createServer, request as requestHttp, type IncomingMessage } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseTrust } from '../../edge/origin/trust.ts';
import { createLog } from '../../shared/log.ts';
import { createAntMediaPush, type PushState } from '../../worker/push/push.ts';
import { startAntMedia, type AntMedia } from '../antmedia/server.ts';
import { testEdge, type TestEdge } from '../edge/harness.ts';
import { createAuthority, type Authority, type Leaf } from '../helpers/certificates.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { lacks } from '../helpers/service.ts';
import { openToAll } from '../helpers/judges.ts';
import { apache } from './apache.ts';
import { caddy } from './caddy.ts';
import { ask } from './client.ts';
import { haproxy } from './haproxy.ts';
import { nginx } from './nginx.ts';
import { missingPackages, startProxy, type Way } from './proxy.ts';
import { varnish } from './varnish.ts';

const NAME = 'rec.example.com';

describe.skipIf(await lacks('openssl', 'chromium'))('a push without a URL reaches the server beside the edge', () => {
  let authority: Authority;
  let leaf: Leaf;
  let redis: TestRedis;
  let edge: TestEdge;
  let server: AntMedia;
  let fork: AsyncDisposable & { port: number };
  beforeAll(async () => {
    [authority, redis, server] = await Promise.all([createAuthority(), startRedis(), startAntMedia({ token: 'Sesame' })]);
    leaf = await authority.issue([NAME]);
    edge = await testEdge(redis, { trust: parseTrust(['127.0.0.1']) }, { keyed: true });
    fork = await startFork({ '/LiveApp/': server.port, '/': Number(new URL(edge.url).port) });
  });
  afterAll(async () => {
    for (const each of [fork, edge, server, redis, authority]) await each?.[Symbol.asyncDispose]();
  });

  it.for([nginx, haproxy, caddy, apache, varnish])('behind $name', async (proxy, { skip }) => {
    skip(missingPackages(proxy).length > 0);
    await using running = await startProxy(proxy, leaf, fork.port);
    for (const way of ['single', 'append'] as const satisfies readonly Way[]) {
      const port = running.ports[way];
      const outside = `${NAME}:${port}`;
      const { status, body } = await ask({ port, authority: outside, ca: authority.ca }, '/v1/recordings', { body: { url: 'https://example.com/', push: [{ type: 'antmedia' }] } });
      expect(status, JSON.stringify(body)).toBe(202);
      const [{ url, streamId }] = body.push;
      expect(url).toBe(`wss://${outside}/LiveApp/websocket`);
      const seen = server.requests.length;
      const over = Promise.withResolvers<PushState>();
      const push = createAntMediaPush(
        { type: 'antmedia', url, streamId },
        {
          ca: authority.ca,
          codec: 'avc1.42001f',
          bitrate: 1_000_000,
          audio: false,
          log: createLog('error', () => undefined),
          // no token: the server has been reached, and says no
          onState: (state, error) => state === 'failed' && (error?.code === 'push_unauthorized' ? over.resolve(state) : over.reject(error)),
          onKeyFrameWanted: () => undefined,
          onBitrate: () => undefined,
          judge: openToAll,
          lookup: async () => ['127.0.0.1'],
        },
      );
      await over.promise;
      await push.stop();
      expect(server.requests.slice(seen)).toMatchObject([
        { url: '/LiveApp/websocket?target=origin', host: outside, forwarded: { 'x-forwarded-proto': expect.stringMatching(/^https(, ?https?)?$/) }, status: 101 },
      ]);
    }
  });
});

/** The last hop inside, which changes nothing: each request goes where its path says. @param ports by the beginnings of paths; the first that fits */
async function startFork(ports: Readonly<Record<string, number>>): Promise<AsyncDisposable & { port: number }> {
  const portOf = (request: IncomingMessage) => Object.entries(ports).find(([path]) => request.url?.startsWith(path))?.[1] ?? 0;
  const server = createServer((request, response) => {
    const onward = requestHttp({ host: '127.0.0.1', port: portOf(request), method: request.method, path: request.url, headers: request.rawHeaders, agent: false }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  // those that changed protocols are no connections of the server's any more, and keep it from closing all the same
  const upgraded = new Set<Duplex>();
  server.on('upgrade', (request, socket, head) => {
    const onward = connect(portOf(request), '127.0.0.1');
    const lines = request.rawHeaders.flatMap((name, i, all) => (i % 2 === 0 ? [`${name}: ${all[i + 1]}`] : []));
    onward.write([`${request.method} ${request.url} HTTP/1.1`, ...lines, '', ''].join('\r\n'));
    onward.write(head);
    socket.pipe(onward).pipe(socket);
    for (const each of [socket, onward]) {
      upgraded.add(each);
      each.on('error', () => (socket.destroy(), onward.destroy()));
      each.once('close', () => upgraded.delete(each));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const each of upgraded) each.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
