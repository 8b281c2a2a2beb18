/** One dial: the WebSocket's handshake, watched stage by stage, so that an end of it can be told for what it was. */
import type { ClientRequest } from 'node:http';
import type { LookupFunction } from 'node:net';
import { TLSSocket, type SecureContext } from 'node:tls';
import { WebSocket } from 'ws';
import { ACKED_HEADER, ATTEMPT_HEADER, ATTEMPT_TOKEN_HEADER, DIAL_HEADER, MEDIA_SUBPROTOCOL } from '../../shared/media-protocol.ts';
import type { DialStage, ShownCertificate } from './media-socket-causes.ts';

export type MediaTarget = {
  /** Absolute `wss://` or `ws://` URL, without a credential. */
  url: string;
  /** Sent as a bearer token in the handshake; never logged. */
  credential: string;
  attempt: number;
  /** Which dial of the attempt it is, from 1. */
  number: number;
  /** The last part that was acknowledged. */
  acked: number;
  /** That the ingest gave last, if it did; never logged. */
  attemptToken: string | null;
  /** Null for `ws://`. */
  trust: SecureContext | null;
};

export type SocketDial = {
  ws: WebSocket;
  /** What it waits for. */
  stage(): DialStage;
  /** The server has shown a certificate that was verified. */
  secured(): boolean;
  /** What the server has shown for a certificate, good or bad. */
  shown(): ShownCertificate | null;
};

/** Dials at once. The URL must be parseable. Who calls it sees to it that it ends in time. */
export function dialMedia({ url, credential, attempt, number, acked, attemptToken, trust }: MediaTarget): SocketDial {
  const headers = {
    authorization: `Bearer ${credential}`,
    [ATTEMPT_HEADER]: String(attempt),
    [DIAL_HEADER]: String(number),
    [ACKED_HEADER]: String(acked),
    ...(attemptToken === null ? {} : { [ATTEMPT_TOKEN_HEADER]: attemptToken }),
  };
  return dialSocket(url, trust, { protocols: [MEDIA_SUBPROTOCOL], headers, maxPayload: 64 * 1024 });
}

export type SocketOptions = {
  protocols: string[];
  headers: Record<string, string>;
  /** Bytes of a message that is taken. */
  maxPayload: number;
  /** Instead of the system's, for names. */
  lookup?: LookupFunction;
};

/** Dials any WebSocket, as `dialMedia` does. @param trust null for `ws://` */
export function dialSocket(url: string, trust: SecureContext | null, { protocols, lookup, ...options }: SocketOptions): SocketDial {
  const tls = url.startsWith('wss:');
  let stage: DialStage = 'name';
  let secured = false;
  let shown: ShownCertificate | null = null;

  const watch = (request: ClientRequest) => {
    request.on('socket', (socket) => {
      // an address needs no look-up
      stage = socket.connecting && !isAddress(url) ? 'name' : 'connection';
      socket.on('lookup', () => (stage = 'connection'));
      socket.on('connect', () => (stage = tls ? 'tls' : 'upgrade'));
      if (!(socket instanceof TLSSocket)) return;
      // comes before Node verifies the certificate, and hides what it doesn't like
      socket.prependListener('secure', () => (shown = certificateOf(socket)));
      socket.on('secureConnect', () => {
        secured = true;
        stage = 'upgrade';
      });
    });
    request.end();
  };

  const ws = new WebSocket(url, protocols, {
    ...options,
    finishRequest: watch,
    perMessageDeflate: false, // media doesn't compress
    ...(lookup === undefined ? {} : { lookup }),
    rejectUnauthorized: true, // whatever NODE_TLS_REJECT_UNAUTHORIZED says
    ...(trust === null ? {} : { secureContext: trust }),
  });
  ws.on('open', () => (stage = 'welcome'));
  return { ws, stage: () => stage, secured: () => secured, shown: () => shown };
}

export const hostOf = (url: string): string => new URL(url).host;

const isAddress = (url: string): boolean => /^(\[.*\]|\d+\.\d+\.\d+\.\d+)$/.test(new URL(url).hostname);

function certificateOf(socket: TLSSocket): ShownCertificate | null {
  const { subject, issuer } = socket.getPeerCertificate();
  // what an unverified server says is nothing but text
  const name = (of: { CN?: string | string[]; O?: string | string[] } | undefined) =>
    JSON.stringify(String(of?.CN ?? of?.O ?? 'nobody').slice(0, 100));
  return subject === undefined ? null : { subject: name(subject), issuer: name(issuer) };
}
