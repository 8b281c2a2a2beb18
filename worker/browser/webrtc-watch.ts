/** Notices that a page's WebRTC comes to nothing: the page itself may show that as an empty picture and no more. */
import type { Page } from 'puppeteer-core';
import { listenInWorld } from './world.ts';

/** `never`: it did not connect in time. `lost`: it was connected, and its connection failed. */
export type WebrtcTrouble = 'never' | 'lost';

/** How long a connection may take once both sides have agreed on it, in milliseconds: calls take one or two seconds. */
const PATIENCE_MS = 6000;
const EVENT = 'tabreel-webrtc-';

/**
 * Looks into all frames of all documents that the page opens from now on. Chromium's own states are not enough: without a
 * way to any candidate a connection stays `new` for ever.
 *
 * @param trouble called once for each kind
 * @param entered as `listenInWorld` has it
 */
export async function watchWebrtc(page: Page, trouble: (kind: WebrtcTrouble) => void, entered: (count: number) => void): Promise<void> {
  const kinds = ['never', 'lost'] as const;
  const told = new Set<string>();
  await listenInWorld(page, kinds.map((kind) => EVENT + kind), (name) => {
    const kind = kinds.find((each) => EVENT + each === name);
    if (kind === undefined || told.has(kind)) return;
    told.add(kind);
    trouble(kind);
  }, entered);
  await page.evaluateOnNewDocument(watchConnections, EVENT, PATIENCE_MS);
}

/**
 * Runs in the page's own world before its scripts, and holds nothing that the page could use: what it says is an event of the
 * document. Injected as text: it must not refer to anything outside itself.
 */
function watchConnections(event: string, patience: number): void {
  const scope = globalThis as unknown as Record<string, unknown>;
  const Native = scope['RTCPeerConnection'] as typeof RTCPeerConnection | undefined;
  if (Native === undefined) return;

  const watch = (connection: RTCPeerConnection) => {
    let connected = false;
    let told = false;
    let timer: number | undefined;
    const tell = () => {
      if (told || connection.signalingState === 'closed') return;
      told = true;
      document.dispatchEvent(new Event(event + (connected ? 'lost' : 'never')));
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
