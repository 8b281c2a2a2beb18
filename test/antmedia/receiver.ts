/** A headless Chromium whose pages receive WebRTC: the implementation that Ant Media Server has inside too. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { launch, type Browser, type Page } from 'puppeteer-core';
import { WebSocketServer, type WebSocket } from 'ws';
import { findBrowser } from '../../worker/browser/find.ts';

/** An encoded frame, as it came out of the jitter buffer's front door: whole, but not decoded yet. */
export interface ArrivedFrame {
  /** As in the packets: 32 bits, 90 kHz for video, 48 kHz for Opus. */
  readonly rtpTimestamp: number;
  /** When it was whole, in ms since 1970. */
  readonly arrived: number;
  /** Video only: whether it can be decoded alone. */
  readonly key: boolean;
  readonly bytes: number;
  /** H.264 is in Annex B's form, Opus as in the packet. */
  readonly data: Uint8Array;
  /** SSRC. */
  readonly source: number;
  readonly mimeType: string | null;
  /** Of video, where the frame says them; else 0. */
  readonly width: number;
  readonly height: number;
}

/** What an RTCP sender report says of one source's clock. */
export interface SenderReport {
  readonly source: number;
  /** Sender's wall clock in s since 1900. */
  readonly ntp: number;
  /** The same moment by the stream's own clock. */
  readonly rtpTimestamp: number;
  /** Packets and payload octets that were sent until then, as the sender counts them. */
  readonly packets: number;
  readonly octets: number;
  /** In ms since 1970. */
  readonly arrived: number;
}

export interface PeerEvents {
  track(kind: 'audio' | 'video', streams: readonly string[]): void;
  answer(sdp: string): void;
  candidate(candidate: string, label: number, id: string): void;
  ice(state: RTCIceConnectionState): void;
  frame(kind: 'audio' | 'video', frame: ArrivedFrame): void;
}

export interface Peer {
  /** @throws where the browser does not take it */
  offer(sdp: string, type: string): Promise<void>;
  /** getStats() as it is. */
  stats(): Promise<Record<string, unknown>[]>;
  /** Sends a PLI. @throws where there is no video yet */
  askForKeyFrame(): Promise<void>;
  /** Resolves when all that has arrived until now has been handed over. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

export interface Receiver extends AsyncDisposable {
  open(events: PeerEvents): Promise<Peer>;
  /** All that came, of all peers, oldest first. */
  readonly senderReports: readonly SenderReport[];
  /** Of the browser; null once it is gone. */
  readonly pid: number | null;
}

export const rtcFlags: readonly string[] = [
  // no other address is offered or asked: loopback alone
  '--allow-loopback-in-peer-connection',
  '--disable-features=WebRtcHideLocalIpsWithMdns',
  '--autoplay-policy=no-user-gesture-required',
  '--disable-background-networking',
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  '--disable-component-update',
  '--disable-gpu',
  '--mute-audio',
];

/** A browser as these tests want it, with a profile of its own. */
export async function launchBrowser(flags: readonly string[], dumpio: (line: string) => void = () => undefined): Promise<{ browser: Browser } & AsyncDisposable> {
  const { executable, kind, libraryPath, fontsPath } = await findBrowser({ chromiumPath: null, engine: 'auto' });
  const home = mkdtempSync(join(tmpdir(), 'tabreel-antmedia-'));
  const browser = await launch({
    executablePath: executable,
    headless: kind === 'chrome' ? true : 'shell',
    pipe: true,
    userDataDir: join(home, 'profile'),
    args: [...rtcFlags, ...flags, ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
    env: {
      HOME: home,
      PATH: '/usr/local/bin:/usr/bin:/bin',
      ...(libraryPath === null ? {} : { LD_LIBRARY_PATH: libraryPath }),
      ...(fontsPath === null ? {} : { FONTCONFIG_PATH: fontsPath }),
    },
  });
  const child = browser.process();
  if (child?.stderr) createInterface({ input: child.stderr }).on('line', dumpio);
  return {
    browser,
    async [Symbol.asyncDispose]() {
      const ended = child && child.exitCode === null && child.signalCode === null ? once(child, 'exit') : null;
      child?.kill('SIGKILL');
      await ended;
      await browser.disconnect().catch(() => undefined);
      rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };
}

/** A page that may see all of the machine's addresses: without a permission to capture, WebRTC is shown the default route's alone. */
export async function openPage(browser: Browser, url: string): Promise<Page> {
  await browser.defaultBrowserContext().overridePermissions(new URL(url).origin, ['camera', 'microphone']);
  // a tab behind another one draws nothing
  const page = await browser.newPage({ type: 'window' });
  await page.goto(url);
  return page;
}

const source = (name: string) => readFileSync(new URL(name, import.meta.url));
const files: Readonly<Record<string, { type: string; body: string | Buffer }>> = {
  '/': { type: 'text/html', body: '<!doctype html><title>receiver</title><script type="module" src="/page.js"></script>' },
  '/page.js': { type: 'text/javascript', body: source('receiver-page.js') },
  '/worker.js': { type: 'text/javascript', body: source('receiver-worker.js') },
};

export async function startReceiver(): Promise<Receiver> {
  await using stack = new AsyncDisposableStack();
  const server = createServer((request, response) => {
    const file = files[request.url ?? ''];
    if (file) response.setHeader('content-type', file.type).end(file.body);
    else response.writeHead(404).end();
  });
  const sockets = new WebSocketServer({ server, maxPayload: 64 << 20 });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stack.defer(() => {
    for (const client of sockets.clients) client.terminate();
    sockets.close();
    server.closeAllConnections();
    server.close();
  });

  const peers = new Map<number, PeerEvents>();
  const calls = new Map<number, PromiseWithResolvers<unknown>>();
  const waiting = new Map<string, PromiseWithResolvers<void>>();
  let calling = 0;

  const onText = (text: string) => {
    const message = JSON.parse(text) as Record<string, any>;
    if (message['id'] !== undefined && message['event'] === undefined) {
      const call = calls.get(message['id']);
      calls.delete(message['id']);
      if (message['error'] === undefined) call?.resolve(message['result']);
      else call?.reject(new Error(message['error']));
      return;
    }
    const events = peers.get(message['peer']);
    if (message['event'] === 'flushed') waiting.get(`flush ${message['flush']}`)?.resolve();
    else if (message['event'] === 'asked') {
      const asked = waiting.get(`asked ${message['peer']}`);
      if (message['error'] === null) asked?.resolve();
      else asked?.reject(new Error(message['error']));
    } else if (message['event'] === 'track') events?.track(message['kind'], message['streams']);
    else if (message['event'] === 'answer') events?.answer(message['sdp']);
    else if (message['event'] === 'candidate') events?.candidate(message['candidate'], message['label'], message['id']);
    else if (message['event'] === 'ice') events?.ice(message['state']);
  };
  const onBinary = (message: Buffer) => {
    const length = message.readUInt32BE(0);
    const head = JSON.parse(message.toString('utf8', 4, 4 + length)) as Record<string, any>;
    const data = new Uint8Array(message.subarray(4 + length));
    peers.get(head['peer'])?.frame(head['kind'], {
      rtpTimestamp: head['rtpTimestamp'],
      arrived: head['arrived'],
      key: head['key'],
      bytes: data.length,
      data,
      source: head['source'],
      mimeType: head['mimeType'] ?? null,
      width: head['width'] ?? 0,
      height: head['height'] ?? 0,
    });
  };
  const connected = { page: Promise.withResolvers<WebSocket>(), worker: Promise.withResolvers<WebSocket>() };
  sockets.on('connection', (client, { url }) => {
    client.on('message', (data, isBinary) => (isBinary ? onBinary(data as Buffer) : onText((data as Buffer).toString())));
    connected[url === '/worker' ? 'worker' : 'page'].resolve(client);
  });

  const senderReports: SenderReport[] = [];
  const { browser } = stack.use(
    await launchBrowser(
      // packets' dumps are the one way to a sender report's two clocks
      ['--enable-logging=stderr', '--vmodule=srtp_session=3', '--force-fieldtrials=WebRTC-Debugging-RtpDump/Enabled/'],
      (line) => senderReports.push(...readSenderReports(line)),
    ),
  );
  await openPage(browser, `http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  const [socket] = await Promise.all([connected.page.promise, connected.worker.promise]);

  const call = (command: string, message: object): Promise<unknown> => {
    const id = (calling += 1);
    const pending = Promise.withResolvers<unknown>();
    calls.set(id, pending);
    socket.send(JSON.stringify({ id, command, ...message }));
    return pending.promise;
  };
  let gone = false;
  socket.on('close', () => {
    gone = true;
    for (const pending of [...calls.values(), ...waiting.values()]) {
      pending.promise.catch(() => undefined);
      pending.reject(new Error('the receiving browser is gone'));
    }
  });
  const all = stack.move();
  let count = 0;
  return {
    senderReports,
    get pid() {
      return gone ? null : (browser.process()?.pid ?? null);
    },
    async open(events) {
      const peer = (count += 1);
      peers.set(peer, events);
      await call('open', { peer });
      const flush = async () => {
        const flush = (calling += 1);
        const flushed = Promise.withResolvers<void>();
        waiting.set(`flush ${flush}`, flushed);
        await call('toWorker', { flush });
        await flushed.promise;
        waiting.delete(`flush ${flush}`);
      };
      return {
        offer: async (sdp, type) => void (await call('offer', { peer, sdp, type })),
        stats: async () => (await call('stats', { peer })) as Record<string, unknown>[],
        async askForKeyFrame() {
          const asked = Promise.withResolvers<void>();
          waiting.set(`asked ${peer}`, asked);
          await call('toWorker', { keyFrame: peer });
          await asked.promise;
        },
        flush,
        async close() {
          if (gone) return;
          await call('close', { peer }).catch(() => undefined);
        },
      };
    },
    [Symbol.asyncDispose]: () => all[Symbol.asyncDispose](),
  };
}

/** From a line of libwebrtc's packet dump (text2pcap), in which RTCP is decrypted. */
export function readSenderReports(line: string): SenderReport[] {
  const dump = /\bI \d\d:\d\d:\d\d\.\d+ 0+ ((?:[0-9a-f]{2} ?)+)/.exec(line);
  if (!dump) return [];
  const packet = Buffer.from((dump[1] as string).replaceAll(' ', ''), 'hex');
  const found: SenderReport[] = [];
  for (let at = 0; at + 8 <= packet.length; at += 4 * (packet.readUInt16BE(at + 2) + 1)) {
    const type = packet[at + 1] as number;
    if (type < 192 || type > 223) return found;
    if (type !== 200 || at + 28 > packet.length) continue;
    found.push({
      source: packet.readUInt32BE(at + 4),
      ntp: packet.readUInt32BE(at + 8) + packet.readUInt32BE(at + 12) / 2 ** 32,
      rtpTimestamp: packet.readUInt32BE(at + 16),
      packets: packet.readUInt32BE(at + 20),
      octets: packet.readUInt32BE(at + 24),
      arrived: Date.now(),
    });
  }
  return found;
}
