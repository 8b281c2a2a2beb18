/** Notices that a page's WebRTC comes to nothing: the page itself may show that as an empty picture and no more. */
import { randomBytes } from 'node:crypto';
import type { Frame, Page } from 'puppeteer-core';

/** `never`: it did not connect in time. `lost`: it was connected, and its connection failed. */
export type WebrtcTrouble = 'never' | 'lost';

/** How long a connection may take once both sides have agreed on it, in milliseconds: calls take one or two seconds. */
const PATIENCE_MS = 6000;
const ASK_MS = 2000;

/**
 * Looks into all frames of all documents that the page opens from now on. Chromium's own states are not enough: without a
 * way to any candidate a connection stays `new` for ever.
 *
 * @param trouble called once for each kind
 */
export async function watchWebrtc(page: Page, trouble: (kind: WebrtcTrouble) => void): Promise<void> {
  const question = `_${randomBytes(8).toString('hex')}`;
  await page.evaluateOnNewDocument(watchConnections, question, PATIENCE_MS);
  const told = new Set<WebrtcTrouble>();
  /** A frame that is still loading answers late, or never. */
  const asked = new WeakSet<Frame>();

  const ask = async (frame: Frame): Promise<void> => {
    if (asked.has(frame)) return;
    asked.add(frame);
    const answer = await frame.evaluate((name) => {
      const kinds: string[] = [];
      document.dispatchEvent(new CustomEvent(name, { detail: kinds }));
      return kinds;
    }, question);
    asked.delete(frame);
    for (const kind of ['never', 'lost'] as const) {
      if (!answer.includes(kind) || told.has(kind)) continue;
      told.add(kind);
      trouble(kind);
    }
    if (told.size === 2) clearInterval(asking);
  };
  // a frame may go while it is asked
  const asking = setInterval(() => page.frames().forEach((frame) => void ask(frame).catch(() => asked.delete(frame))), ASK_MS);
  page.once('close', () => clearInterval(asking));
  page.browser().once('disconnected', () => clearInterval(asking));
}

/**
 * Runs in the page's own world before its scripts, and leaves nothing there by which it could be asked, but for a listener
 * whose name the page does not know. Injected as text: it must not refer to anything outside itself.
 */
function watchConnections(question: string, patience: number): void {
  const scope = globalThis as unknown as Record<string, unknown>;
  const Native = scope['RTCPeerConnection'] as typeof RTCPeerConnection | undefined;
  if (Native === undefined) return;
  const kinds: WebrtcTrouble[] = [];
  document.addEventListener(question, (event) => void (event as CustomEvent<WebrtcTrouble[]>).detail.push(...kinds));

  const watch = (connection: RTCPeerConnection) => {
    let connected = false;
    let told = false;
    let timer: number | undefined;
    const tell = () => {
      if (told || connection.signalingState === 'closed') return;
      told = true;
      kinds.push(connected ? 'lost' : 'never');
    };
    const look = () => {
      const { iceConnectionState: state, signalingState } = connection;
      if (state === 'connected' || state === 'completed') {
        connected = true;
        clearTimeout(timer);
      } else if (state === 'failed') tell();
      else if (!connected && timer === undefined && signalingState === 'stable') timer = setTimeout(tell, patience) as unknown as number;
    };
    connection.addEventListener('iceconnectionstatechange', look);
    connection.addEventListener('signalingstatechange', look);
  };

  const wrapped = new Proxy(Native, {
    construct(target, args: ConstructorParameters<typeof RTCPeerConnection>, newTarget) {
      const connection = Reflect.construct(target, args, newTarget) as RTCPeerConnection;
      watch(connection);
      return connection;
    },
  });
  Object.defineProperty(Native.prototype, 'constructor', { value: wrapped, writable: true, configurable: true, enumerable: false });
  for (const name of ['RTCPeerConnection', 'webkitRTCPeerConnection']) {
    if (scope[name] === Native) Object.defineProperty(scope, name, { value: wrapped, writable: true, configurable: true, enumerable: false });
  }
}
