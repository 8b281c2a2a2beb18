import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createServer, request, type IncomingMessage, type Server } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { launch } from 'puppeteer-core';
import { afterEach, describe, expect, it } from 'vitest';
import { WebSocketServer } from 'ws';
import { createLog } from '../../shared/log.ts';
import { failureKey, startProxy, type OutboundProxy, type ProxyOptions } from '../../worker/outbound/proxy.ts';
import { absoluteTarget, authorityTarget, forwardable } from '../../worker/outbound/request.ts';

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(options: Partial<ProxyOptions> = {}): Promise<OutboundProxy> {
  const proxy = await startProxy({ log: createLog('error', () => {}), judge: async () => null, ...options });
  closers.push(async () => proxy[Symbol.asyncDispose]());
  return proxy;
}

async function listen(server: Server | ReturnType<typeof createTcpServer>): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(async () => {
    if ('closeAllConnections' in server) server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** A port on which nothing listens. */
async function deadPort(): Promise<number> {
  const server = createTcpServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

type Answer = { status: number; headers: IncomingMessage['headers']; rawHeaders: string[]; body: Buffer };

function viaProxy(proxy: OutboundProxy, url: string, options: { method?: string; headers?: Record<string, string>; body?: Buffer } = {}): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const outgoing = request({ port: proxy.port, host: '127.0.0.1', path: url, method: options.method ?? 'GET', headers: options.headers ?? {}, agent: false }, (incoming) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('error', reject);
    incoming.on('end', () =>
      resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, rawHeaders: incoming.rawHeaders, body: Buffer.concat(chunks) }),
    );
  });
  outgoing.on('error', reject);
  outgoing.end(options.body);
  return promise;
}

function connectVia(proxy: OutboundProxy, authority: string): Promise<{ status: number; headers: IncomingMessage['headers']; socket: Duplex; head: Buffer }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; headers: IncomingMessage['headers']; socket: Duplex; head: Buffer }>();
  const outgoing = request({ port: proxy.port, host: '127.0.0.1', method: 'CONNECT', path: authority, agent: false });
  outgoing.on('connect', (response, socket, head) => resolve({ status: response.statusCode ?? 0, headers: response.headers, socket, head }));
  outgoing.on('error', reject);
  outgoing.end();
  closers.push(async () => outgoing.destroy());
  return promise;
}

describe('plain http through the proxy', () => {
  it('reaches the target as it was asked, and comes back as it was answered', async () => {
    const seen: IncomingMessage[] = [];
    const port = await listen(
      createServer((incoming, response) => {
        seen.push(incoming);
        response.writeHead(203, ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'X-Odd-CASE', 'kept', 'Connection', 'x-hop', 'X-Hop', 'mine', 'x-tabreel-error', 'FAKE']);
        response.end('body');
      }),
    );
    const proxy = await start();
    const answer = await viaProxy(proxy, `http://127.0.0.1:${port}?q=%20a`, {
      headers: { Accept: 'text/html', 'Proxy-Connection': 'keep-alive', 'Proxy-Authorization': 'Basic c2VjcmV0', TE: 'trailers', Connection: 'X-Mine', 'X-Mine': 'hop', Host: 'other' },
    });
    expect(answer).toMatchObject({ status: 203, body: Buffer.from('body') });
    expect(answer.headers['set-cookie']).toEqual(['a=1', 'b=2']);
    expect(answer.rawHeaders).toContain('X-Odd-CASE');
    expect(answer.headers).not.toHaveProperty('x-hop');
    expect(answer.headers).not.toHaveProperty('x-tabreel-error');
    expect(seen[0]?.url).toBe('/?q=%20a');
    expect(seen[0]?.headers).toMatchObject({ host: `127.0.0.1:${port}`, accept: 'text/html' });
    for (const name of ['proxy-connection', 'proxy-authorization', 'te', 'x-mine']) expect(seen[0]?.headers).not.toHaveProperty(name);
    expect(proxy.counts()).toMatchObject({ connections: 1, failed: 0 });
  });

  it('streams big bodies both ways, in either framing', async () => {
    const port = await listen(
      createServer((incoming, response) => {
        if (incoming.headers['content-length'] !== undefined) response.setHeader('content-length', incoming.headers['content-length']);
        incoming.pipe(response);
      }),
    );
    const proxy = await start();
    const body = randomBytes(24 * 1024 * 1024);
    const digest = createHash('sha256').update(body).digest('hex');
    for (const headers of [{ 'Content-Length': String(body.length) }, { 'Transfer-Encoding': 'chunked' }]) {
      const answer = await viaProxy(proxy, `http://127.0.0.1:${port}/echo`, { method: 'PUT', headers, body });
      expect(createHash('sha256').update(answer.body).digest('hex')).toBe(digest);
    }
    expect(proxy.counts().bytesIn).toBeGreaterThan(2 * body.length);
    expect(proxy.counts().bytesOut).toBeGreaterThan(2 * body.length);
  });

  it('passes each piece on as it comes, and tells the target when the browser hangs up', async () => {
    const { promise: hungUp, resolve } = Promise.withResolvers<void>();
    const port = await listen(
      createServer((incoming, response) => {
        response.write('data: first\n\n');
        incoming.socket.on('close', () => resolve());
      }),
    );
    const proxy = await start();
    const outgoing = request({ port: proxy.port, host: '127.0.0.1', path: `http://127.0.0.1:${port}/events`, agent: false }).end();
    outgoing.on('error', () => {});
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    const [chunk] = (await once(response, 'data')) as [Buffer];
    expect(chunk.toString()).toBe('data: first\n\n');
    outgoing.destroy();
    await hungUp;
  });

  it('cuts an answer that the target cut, rather than ending it', async () => {
    const port = await listen(
      createServer((_incoming, response) => {
        response.writeHead(200, { 'content-length': '1000' });
        response.write('half', () => response.destroy());
      }),
    );
    const proxy = await start();
    await expect(viaProxy(proxy, `http://127.0.0.1:${port}/`)).rejects.toThrow(/aborted|ECONNRESET|hang up/);
  });

  it('answers no Date, no body and no length that the target did not send', async () => {
    const port = await listen(
      createServer((incoming, response) => {
        response.sendDate = false;
        response.writeHead(incoming.method === 'HEAD' ? 200 : 304, incoming.method === 'HEAD' ? { 'content-length': '12345' } : { etag: '"x"' });
        response.end();
      }),
    );
    const proxy = await start();
    const head = await viaProxy(proxy, `http://127.0.0.1:${port}/`, { method: 'HEAD' });
    expect(head.headers['content-length']).toBe('12345');
    expect(head.headers['date']).toBeUndefined();
    expect(await viaProxy(proxy, `http://127.0.0.1:${port}/`)).toMatchObject({ status: 304, body: Buffer.alloc(0) });
  });
});

describe('tunnels through the proxy', () => {
  it('carry bytes both ways, half-closes included', async () => {
    const tcp = createTcpServer({ allowHalfOpen: true }, (socket: Socket) => {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      socket.on('end', () => socket.end(createHash('sha256').update(Buffer.concat(chunks)).digest('hex')));
    });
    const port = await listen(tcp);
    const proxy = await start();
    const { status, socket } = await connectVia(proxy, `127.0.0.1:${port}`);
    expect(status).toBe(200);
    const body = randomBytes(8 * 1024 * 1024);
    socket.end(body);
    const [digest] = (await once(socket, 'data')) as [Buffer];
    expect(digest.toString()).toBe(createHash('sha256').update(body).digest('hex'));
    await once(socket, 'close');
  });

  it('end when the target resets', async () => {
    const tcp = createTcpServer((socket: Socket) => socket.once('data', () => socket.resetAndDestroy()));
    const proxy = await start();
    const { socket } = await connectVia(proxy, `127.0.0.1:${await listen(tcp)}`);
    socket.on('error', () => {});
    socket.write('x');
    await once(socket, 'close');
    expect(proxy.counts().open).toBe(0);
  });

  it('carry a WebSocket, and so do absolute-form requests for one', async () => {
    const server = createServer();
    const wss = new WebSocketServer({ server });
    wss.on('connection', (ws) => ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary })));
    const port = await listen(server);
    const proxy = await start();
    const key = randomBytes(16).toString('base64');
    const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': key };
    // a masked text frame "hi", with a mask of zeros, and the echo of it
    const hi = Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x68, 0x69]);

    const { socket: tunnelled } = await connectVia(proxy, `127.0.0.1:${port}`);
    const ways = [
      () => request({ port: proxy.port, host: '127.0.0.1', path: `http://127.0.0.1:${port}/ws`, headers, agent: false }),
      () => request({ createConnection: () => tunnelled as Socket, path: '/ws', headers: { ...headers, Host: 'x' } }),
    ];
    for (const way of ways) {
      const outgoing = way().end();
      const [response, socket] = (await once(outgoing, 'upgrade')) as [IncomingMessage, Socket];
      expect(response.headers['sec-websocket-accept']).toBe(accept);
      socket.write(hi);
      const [echo] = (await once(socket, 'data')) as [Buffer];
      expect(echo.subarray(2).toString()).toBe('hi');
      socket.destroy();
    }
  });
});

describe('what the proxy can not reach', () => {
  it('is told apart by code: in the answer and in `failures`', async () => {
    const proxy = await start();
    const dead = await deadPort();
    const refused = await viaProxy(proxy, `http://127.0.0.1:${dead}/`);
    expect(refused).toMatchObject({ status: 502 });
    expect(refused.headers['x-tabreel-error']).toBe('ECONNREFUSED');
    expect(refused.body.toString()).toContain(`127.0.0.1 port ${dead}`);
    const unknown = await connectVia(proxy, 'no-such-host.invalid:443');
    expect(unknown).toMatchObject({ status: 502 });
    const code = unknown.headers['x-tabreel-error'];
    expect(['ENOTFOUND', 'EAI_AGAIN']).toContain(code);
    expect(proxy.failures.get(failureKey(`http://127.0.0.1:${dead}/x`))).toBe('ECONNREFUSED');
    expect(proxy.failures.get(failureKey('https://No-Such-Host.invalid/x'))).toBe(code);
    expect(proxy.counts()).toMatchObject({ connections: 0, failed: 2 });
  });

  it('is forgotten as a failure once it can be reached, and only so many are remembered', async () => {
    const proxy = await start({ judge: async ({ host }) => (host.endsWith('.localhost') ? { class: 'loopback', reason: 'no' } : null) });
    const port = await deadPort();
    await viaProxy(proxy, `http://127.0.0.1:${port}/`);
    expect(proxy.failures.size).toBe(1);
    const server = createServer((_request, response) => response.end('up'));
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    closers.push(async () => server.close());
    expect((await viaProxy(proxy, `http://127.0.0.1:${port}/`)).body.toString()).toBe('up');
    expect(proxy.failures.size).toBe(0);
    for (let i = 0; i < 300; i += 50) {
      await Promise.all(Array.from({ length: 50 }, (_, j) => viaProxy(proxy, `http://n${i + j}.localhost:1/`)));
    }
    expect(proxy.failures.size).toBe(256);
  });

  it('times out where no address answers', async () => {
    // a process that is stopped accepts nothing; once its short backlog is full, dials hang as those to a lost machine do
    const child = spawn(process.execPath, ['-e', "require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, function () { console.log(this.address().port) })"]);
    closers.push(async () => child.kill('SIGKILL'));
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    child.kill('SIGSTOP');
    const port = Number(line.toString());
    const fillers = Array.from({ length: 4 }, () => connect(port, '127.0.0.1'));
    closers.push(async () => fillers.forEach((filler) => filler.destroy()));
    await once(fillers[0] as Socket, 'connect');
    const proxy = await start({ times: { connect: 300 } });
    const answer = await viaProxy(proxy, `http://127.0.0.1:${port}/`);
    expect(answer).toMatchObject({ status: 504 });
    expect(answer.headers['x-tabreel-error']).toBe('ETIMEDOUT');
  });

  it('is the proxy itself, by whatever name', async () => {
    const proxy = await start();
    for (const host of ['127.0.0.1', 'localhost', 'a.localhost', '0.0.0.0', '127.1', '2130706433', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]']) {
      const answer = await connectVia(proxy, `${host}:${proxy.port}`);
      expect([host, answer.status, answer.headers['x-tabreel-error']]).toEqual([host, 403, 'DENIED']);
    }
    expect((await viaProxy(proxy, `http://localhost:${proxy.port}/`)).status).toBe(403);
    expect((await viaProxy(proxy, '/')).status).toBe(400);
    expect((await viaProxy(proxy, `http://127.0.0.1:${proxy.port}/`)).status).toBe(403);
    expect(proxy.counts().denied).toBe(10);
  });

  it('is what the judge denies, who is told every address, and whose word is what gets dialled', async () => {
    let dialled = 0;
    const port = await listen(createServer((_request, response) => (dialled++, response.end())));
    const judged: unknown[] = [];
    const proxy = await start({
      judge: async (target) => {
        judged.push(target);
        return target.host === 'localhost' ? { class: 'private', reason: 'a private address' } : null;
      },
    });
    const denied = await viaProxy(proxy, `http://localhost:${port}/`);
    expect(denied).toMatchObject({ status: 403 });
    expect(denied.body.toString()).toContain('a private address');
    expect(judged).toEqual([{ host: 'localhost', port, addresses: ['127.0.0.1', '::1'], path: '/' }]);
    expect(dialled).toBe(0);
    expect((await viaProxy(proxy, `http://127.0.0.1:${port}/`)).status).toBe(200);
  });

  it('leaves a second address a chance when the first refuses', async () => {
    const server = createServer((_request, response) => response.end('six'));
    server.listen(0, '::1');
    await once(server, 'listening');
    closers.push(async () => server.close());
    const proxy = await start();
    const answer = await viaProxy(proxy, `http://localhost:${(server.address() as AddressInfo).port}/`);
    expect(answer.body.toString()).toBe('six');
  });
});

describe('the proxy itself', () => {
  it('answers its controller page at the secret address alone', async () => {
    const proxy = await start({ controllerPage: '<title>controller</title>' });
    for (const url of [proxy.controllerUrl, new URL(proxy.controllerUrl).pathname]) {
      const answer = await viaProxy(proxy, url);
      expect(answer).toMatchObject({ status: 200, body: Buffer.from('<title>controller</title>') });
      expect(answer.headers['content-type']).toBe('text/html; charset=utf-8');
    }
    expect((await viaProxy(proxy, `${proxy.controllerUrl}x`)).status).toBe(403);
    expect((await viaProxy(proxy, proxy.controllerUrl.replace('127.0.0.1', 'localhost'))).status).toBe(403);
  });

  it('takes down every connection at once when it is disposed', async () => {
    const port = await listen(createTcpServer());
    const proxy = await start();
    const { socket } = await connectVia(proxy, `127.0.0.1:${port}`);
    socket.on('error', () => {});
    const closed = once(socket, 'close');
    await proxy[Symbol.asyncDispose]();
    await closed;
    const late = connect(proxy.port, '127.0.0.1');
    await expect(once(late, 'connect')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });

  it('reads what it is asked strictly', () => {
    expect(authorityTarget('example.com:443')).toEqual({ host: 'example.com', port: 443 });
    expect(authorityTarget('[2001:db8::1]:443')).toEqual({ host: '[2001:db8::1]', port: 443 });
    for (const text of ['example.com', 'example.com:0', 'example.com:65536', 'a@b:1', 'a:b:1', ':1', 'http://a:1', '[::1:1', 'a b:1']) {
      expect([text, authorityTarget(text)]).toEqual([text, null]);
    }
    expect(absoluteTarget('HTTP://a.example')).toEqual({ target: { host: 'a.example', port: 80 }, host: 'a.example', path: '/' });
    expect(absoluteTarget('http://[::1]:8/%2e%2e/a?b')).toEqual({ target: { host: '[::1]', port: 8 }, host: '[::1]:8', path: '/%2e%2e/a?b' });
    for (const text of ['https://a/', 'ftp://a/', '/path', '*', 'http://u:p@a/', 'http:///x', 'http://a:99999/', 'http://a\\b/']) {
      expect([text, absoluteTarget(text)]).toEqual([text, null]);
    }
    expect(forwardable(['Host', 'x', 'A', '1', 'Connection', 'close, A', 'B', '2'], 'y')).toEqual(['Host', 'y', 'B', '2']);
  });
});

const chromium = ['/usr/bin/chromium', '/usr/bin/google-chrome'].find((path) => existsSync(path));

describe.skipIf(chromium === undefined)('a real browser behind the proxy', () => {
  it('loads pages, sockets and the controller page, and fails with a cause that can be told', async () => {
    const server = createServer((incoming, response) => {
      response.setHeader('content-type', 'text/html');
      response.end(`<title>${incoming.headers.host}</title>`);
    });
    const wss = new WebSocketServer({ server });
    wss.on('connection', (ws) => ws.on('message', (data) => ws.send(`echo ${String(data)}`)));
    const port = await listen(server);
    const proxy = await start({ controllerPage: '<title>controller</title>' });
    const browser = await launch({
      executablePath: chromium as string,
      headless: true,
      pipe: true,
      args: [`--proxy-server=${proxy.url}`, '--proxy-bypass-list=<-loopback>', '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1', '--disable-quic', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
    });
    closers.push(() => browser.close());
    const page = await browser.newPage();
    await page.goto(`http://some.localhost:${port}/`);
    expect(await page.title()).toBe(`some.localhost:${port}`);
    const echo = await page.evaluate(
      (url) =>
        new Promise((resolve) => {
          const ws = new WebSocket(url);
          ws.onopen = () => ws.send('hi');
          ws.onmessage = (event) => resolve(event.data);
          ws.onerror = () => resolve('error');
        }),
      `ws://127.0.0.1:${port}/`,
    );
    expect(echo).toBe('echo hi');
    expect(proxy.counts().connections).toBeGreaterThanOrEqual(2);

    await page.goto(proxy.controllerUrl);
    expect(await page.title()).toBe('controller');
    expect(await page.evaluate(() => isSecureContext)).toBe(true);

    const dead = await deadPort();
    const answer = await page.goto(`http://127.0.0.1:${dead}/`);
    expect(answer?.headers()['x-tabreel-error']).toBe('ECONNREFUSED');
    await expect(page.goto(`https://127.0.0.1:${dead}/`)).rejects.toThrow('ERR_TUNNEL_CONNECTION_FAILED');
    expect(proxy.failures.get(failureKey(`https://127.0.0.1:${dead}/`))).toBe('ECONNREFUSED');
  }, 20_000);
});
