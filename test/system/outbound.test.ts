/**
 * A page that tries all that it can to reach what is not its: canaries on this machine listen for it. The same page with all of
 * them open is the control: what reaches no canary then was no test of anything.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLog } from '../../shared/log.ts';
import { findBrowser } from '../../worker/browser/find.ts';
import { launchBrowser } from '../../worker/browser/launch.ts';
import { startProxy } from '../../worker/outbound/proxy.ts';
import { startRecorder } from '../helpers/recorder.ts';
import { lacks } from '../helpers/service.ts';

/** Of this machine, and no loopback one. */
const interfaceAddress = Object.values(networkInterfaces()).flatMap((all) => all ?? []).find(({ internal, family }) => !internal && family === 'IPv4')?.address;
/** By names and numbers in as many spellings as browsers take, all of this machine. */
const spellings: Readonly<Record<string, string>> = {
  decimal: '2130706433', octal: '0177.0.0.1', hex: '0x7f000001', short: '127.1', mapped: '[::ffff:127.0.0.1]', 'mapped-hex': '[::ffff:7f00:1]',
  localhost: 'localhost', 'localhost-dot': 'localhost.', 'sub-localhost': 'a.localhost', 'upper-case': 'LOCALHOST', another: '127.0.0.9', unspecified: '0.0.0.0',
  ...(interfaceAddress === undefined ? {} : { 'interface': interfaceAddress }),
};
/** Each asks the canary for /CHANNEL. */
const channels = [
  'img', 'iframe', 'css', 'fetch', 'beacon', 'event-source', 'worker', 'shared-worker', 'service-worker', 'redirect', 'meta-refresh', 'navigation',
  'script', 'form', 'prefetch', 'object', 'video', 'font', 'websocket', ...Object.keys(spellings),
];

const page = (canary: number, silent: number, udp: number) => `<!doctype html><html lang="en"><title>Hostile</title><link rel="icon" href="data:,">
<body style="background:#345"><div id="box" style="width:80px;height:80px;background:#fc6"></div><script>
const at = (channel, host = '127.0.0.1') => 'http://' + host + ':${canary}/' + channel;
const add = (name, attributes) => document.body.append(Object.assign(document.createElement(name), attributes));
const frame = (html) => add('iframe', { srcdoc: html });
const tries = [
  () => add('img', { src: at('img') }),
  () => add('iframe', { src: at('iframe') }),
  () => document.head.append(Object.assign(document.createElement('link'), { rel: 'stylesheet', href: at('css') })),
  () => document.head.append(Object.assign(document.createElement('link'), { rel: 'prefetch', href: at('prefetch') })),
  () => document.head.append(Object.assign(document.createElement('link'), { rel: 'preconnect', href: 'http://127.0.0.1:${silent}' })),
  () => fetch(at('fetch'), { mode: 'no-cors' }).catch(() => 0),
  () => navigator.sendBeacon(at('beacon'), 'x'),
  () => new EventSource(at('event-source')),
  () => new WebSocket(at('websocket').replace('http', 'ws')),
  () => new Worker('/worker.js'),
  () => new SharedWorker('/shared-worker.js'),
  () => navigator.serviceWorker.register('/service-worker.js').catch(() => 0),
  () => add('img', { src: '/redirect' }),
  () => frame('<meta http-equiv="refresh" content="0;url=' + at('meta-refresh') + '">'),
  () => frame('<script>location.href=' + JSON.stringify(at('navigation')) + '</' + 'script>'),
  () => add('script', { src: at('script') }),
  () => frame('<form method="post" action="' + at('form') + '"></form><script>document.forms[0].submit()</' + 'script>'),
  () => add('object', { data: at('object') }),
  () => add('video', { src: at('video'), preload: 'auto' }),
  () => new FontFace('x', 'url(' + at('font') + ')').load().catch(() => 0),
  ...Object.entries(${JSON.stringify(spellings)}).map(([name, host]) => () => fetch(at(name, host), { mode: 'no-cors' }).catch(() => 0)),
  ...['file:///etc/passwd', 'FILE:///etc/passwd', 'chrome://version', 'view-source:file:///etc/passwd', '\\\\\\\\127.0.0.1\\\\x'].map((url) => () => add('iframe', { src: url })),
  () => {
    const peer = new RTCPeerConnection({ iceServers: [
      { urls: 'stun:127.0.0.1:${udp}' },
      { urls: 'turn:127.0.0.1:${udp}?transport=udp', username: 'a', credential: 'b' },
      { urls: 'turn:127.0.0.1:${silent}?transport=tcp', username: 'a', credential: 'b' },
    ] });
    peer.createDataChannel('x');
    peer.createOffer().then((offer) => peer.setLocalDescription(offer));
  },
];
for (const attempt of tries) { try { attempt(); } catch (error) { console.log(String(error)); } }
let x = 0;
setInterval(() => { box.style.marginLeft = (x = (x + 5) % 300) + 'px'; }, 50);
</script>`;

const noChromium = await lacks('chromium');

/** Asks in all ways, again and again. */
const asking = (canary: number) => `<!doctype html><title>Asking</title><script>
window.failures = 0;
const at = (path) => 'http://127.0.0.1:${canary}/' + path;
const worker = new Worker(URL.createObjectURL(new Blob(["setInterval(() => fetch('" + at('from-worker') + "', { mode: 'no-cors', cache: 'no-store' }).catch(() => 0), 200)"], { type: 'text/javascript' })));
setInterval(() => {
  fetch(at('again'), { mode: 'no-cors', cache: 'no-store' }).catch(() => { window.failures += 1; });
  new Image().src = at('image');
  new WebSocket(at('socket').replace('http', 'ws'));
  navigator.sendBeacon(at('beacon'), 'x');
}, 200);
</script>`;

describe.skipIf(await lacks('headless shell'))('a page that looks for others', () => {
  const closers: (() => unknown)[] = [];
  afterAll(async () => {
    for (const close of closers.reverse()) await close();
  });
  const reached = new Set<string>();
  let opened = 0;
  let packets = 0;
  const listen = async (server: Server, port = 0, address = '0.0.0.0'): Promise<number> => {
    server.listen(port, address);
    await once(server, 'listening');
    closers.push(() => server.close());
    return (server.address() as AddressInfo).port;
  };
  let site: number;
  let silent: number;

  beforeAll(async () => {
    const hear = (url: string | undefined) => void reached.add((url ?? '').slice(1));
    const canaryServer = createHttpServer((request, response) => {
      hear(request.url);
      response.writeHead(200, { 'access-control-allow-origin': '*', connection: 'close' }).end('');
    });
    canaryServer.on('connection', () => (opened += 1));
    canaryServer.on('upgrade', (request, socket) => {
      hear(request.url);
      socket.destroy();
    });
    const canary = await listen(canaryServer);
    silent = await listen(createServer((socket) => {
      reached.add('connection');
      opened += 1;
      socket.on('error', () => undefined);
      setTimeout(() => socket.destroy(), 500);
    }));
    const socket = createSocket('udp4', () => (packets += 1));
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    closers.push(() => socket.close());
    const script = (channel: string) => `fetch('http://127.0.0.1:${canary}/${channel}', { mode: 'no-cors' }).catch(() => 0);`;
    const html = page(canary, silent, socket.address().port);
    site = await listen(
      createHttpServer(({ url = '' }, response) => {
        const worker = /^\/(worker|shared-worker|service-worker)\.js$/.exec(url)?.[1];
        if (worker !== undefined) response.writeHead(200, { 'content-type': 'text/javascript' }).end(script(worker));
        else if (url === '/keeps-asking') response.writeHead(200, { 'content-type': 'text/html' }).end(asking(canary));
        else if (url === '/redirect') response.writeHead(302, { location: `http://127.0.0.1:${canary}/redirect` }).end();
        else response.writeHead(200, { 'content-type': 'text/html' }).end(html);
      }),
    );
  });

  const open = async (allow: string[], webrtc: 'proxied' | 'direct', engine: 'self' | 'tab' = 'self') => {
    reached.clear();
    [opened, packets] = [0, 0];
    const run = await startRecorder({
      engine,
      request: { url: `http://127.0.0.1:${site}/`, audio: false, maxDuration: 4 },
      settings: { outbound: { allow, own: [] } },
      webrtc,
    });
    const { error } = await run.ended;
    await sleep(200);
    const of = (type: 'warning' | 'denied') => run.reports.flatMap(({ message }) => (message.type === type ? [message] : []));
    return { error, warnings: of('warning').map((message) => (message as { message: string }).message), denied: of('denied') };
  };

  it('finds all of them where they are open: the control', async () => {
    const { error } = await open(['127.0.0.0/8', '::1', '0.0.0.0/32', ...(interfaceAddress === undefined ? [] : [interfaceAddress])], 'direct');
    expect(error).toBeNull();
    const missing = channels.filter((channel) => !reached.has(channel));
    console.log(`open: ${reached.size} channels reached a canary, ${opened} connections, ${packets} datagrams; not reached: ${missing.join(', ') || 'none'}`);
    expect(missing).toEqual([]);
    expect(reached).toContain('connection');
    expect(packets).toBeGreaterThan(0);
  });

  it.each(['self', 'tab'] as const)('finds none where they are not, is recorded by %s, and its caller reads what was blocked', async (engine) => {
    if (engine === 'tab' && noChromium) return;
    const { error, warnings, denied } = await open([`127.0.0.1:${site}`], 'proxied', engine);
    expect(error).toBeNull();
    expect([...reached]).toEqual([]);
    expect([opened, packets]).toEqual([0, 0]);
    expect(warnings).toContainEqual(expect.stringMatching(/^blocked: 127\.0\.0\.1:\d+, a loopback address$/));
    const counts = denied.flatMap((message) => Object.values((message as unknown as { dials: Record<string, number> }).dials));
    expect(counts.reduce((sum, count) => sum + count, 0)).toBeGreaterThan(channels.length);
    console.log(`closed: nothing reached; ${JSON.stringify(denied.map((message) => (message as unknown as { dials: unknown }).dials))}; ${warnings.length} warnings`);
  });

  it('whose proxy is gone reaches nobody, though its browser goes on', async () => {
    const proxy = await startProxy({ log: createLog('error', () => undefined), judge: async () => null, denied: () => undefined });
    const found = await findBrowser({ chromiumPath: null, engine: 'self' });
    const signal = new AbortController().signal;
    const sandbox = process.getuid?.() !== 0;
    await using launched = await launchBrowser({ ...found, sandbox, devShm: true, width: 320, height: 240, proxyPort: proxy.port, captureTitle: '', paced: false, webrtc: 'proxied' }, signal);
    const [opening] = await launched.browser.pages();
    await opening?.goto(`http://127.0.0.1:${site}/keeps-asking`);
    await sleep(1500);
    expect([...reached]).toEqual(expect.arrayContaining(['again', 'image', 'socket', 'from-worker']));
    await proxy[Symbol.asyncDispose]();
    await sleep(300);
    reached.clear();
    [opened, packets] = [0, 0];
    await sleep(2500);
    // it still asks, and is told that there is nobody
    expect(await opening?.evaluate('window.failures')).toBeGreaterThan(3);
    expect([[...reached], opened, packets]).toEqual([[], 0, 0]);
  });

  it.each([
    ['an address', () => `http://127.0.0.1:${silent}/`],
    ['a name', () => `http://localhost:${silent}/`],
    ['TLS', () => `https://127.0.0.1:${silent}/`],
    ['the metadata service', () => 'http://169.254.169.254/latest/meta-data/'],
  ])('is not recorded where it is closed itself: %s', async (_what, url) => {
    [opened] = [0];
    const run = await startRecorder({ engine: 'self', request: { url: url(), audio: false, maxDuration: 3 }, settings: { outbound: { allow: [], own: [] } } });
    const { error } = await run.ended;
    expect(error).toMatchObject({ code: 'target_blocked', blame: 'target', retryable: false, message: expect.stringContaining('OUTBOUND_ALLOW') });
    expect(opened).toBe(0);
  });
});
