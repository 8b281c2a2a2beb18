/** One media socket from its dial to its close: handshake, welcome, heartbeat. What is sent over it is the sink's. */
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls';
import { WebSocket, type RawData } from 'ws';
import { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import { ATTEMPT_HEADER, ingestMessage, MEDIA_SUBPROTOCOL } from '../../shared/media-protocol.ts';
import { closeRefuses, dialCause, refusalOf, statusRefuses } from './media-socket-causes.ts';

/** A peer that leaves this many pings unanswered, while no bytes leave either, is dead. */
const PINGS_MISSED = 2;

export type MediaTarget = {
  /** Absolute `wss://` or `ws://` URL, without a credential. */
  url: string;
  /** Sent as a bearer token in the handshake; never logged. */
  credential: string;
  attempt: number;
  /** Null for `ws://`. */
  trust: SecureContext | null;
};

/** Milliseconds. */
export type ConnectionTimes = { handshake: number; ping: number; stalled: number };

export type ConnectionEvents = {
  /** Once: the ingest has the parts up to `acked`. */
  welcome(acked: number): void;
  ack(seq: number): void;
  /** Once, at the end, also where the dial failed. `refusal` where no further dial can help. */
  closed(end: { code: number; cause: string; refusal: TabreelError | null }): void;
  /** Whether something was sent that the ingest should acknowledge. */
  expectsAck(): boolean;
};

export type MediaConnection = {
  /** Bytes handed over that have not left yet. */
  buffered(): number;
  /** @param sent called once the message has left or failed. */
  send(message: Uint8Array, sent: () => void): void;
  close(code: number, reason: string): void;
  /** Cuts the connection without a word. */
  terminate(): void;
  /** Milliseconds of the last ping; null before the first answer. */
  roundTrip(): number | null;
};

/** Dials at once. The URL must be parseable. */
export function connectMedia(target: MediaTarget, times: ConnectionTimes, log: Log, events: ConnectionEvents): MediaConnection {
  const dialledAt = performance.now();
  const host = hostOf(target.url);
  log.info('media socket dials', { host });
  const ws = new WebSocket(target.url, [MEDIA_SUBPROTOCOL], {
    headers: { authorization: `Bearer ${target.credential}`, [ATTEMPT_HEADER]: String(target.attempt) },
    handshakeTimeout: times.handshake,
    perMessageDeflate: false, // media doesn't compress
    maxPayload: 64 * 1024,
    rejectUnauthorized: true, // whatever NODE_TLS_REJECT_UNAUTHORIZED says
    ...(target.trust === null ? {} : { secureContext: target.trust }),
  });

  let cause: string | null = null;
  let refusal: TabreelError | null = null;
  let welcomed = false;
  let sentBytes = 0;
  let ackedAt = dialledAt;
  let roundTrip: number | null = null;
  let heartbeat: NodeJS.Timeout | undefined;
  let welcomeTimer: NodeJS.Timeout | undefined;

  const abandon = (why: string) => {
    cause = why;
    ws.terminate();
  };

  const startHeartbeat = () => {
    let pings = 0;
    let missed = 0;
    let pingedAt = 0;
    let left = 0;
    let movedAt = performance.now();
    ws.on('message', () => (missed = 0));
    ws.on('pong', () => {
      missed = 0;
      roundTrip = Math.round((performance.now() - pingedAt) * 10) / 10;
      log[pings === 1 ? 'info' : 'debug']('media socket round trip', { milliseconds: roundTrip });
    });
    const ping = () => {
      const now = performance.now();
      // bytes that leave are a sign of life too: on a slow uplink a ping waits behind a long part
      if (sentBytes - ws.bufferedAmount !== left) {
        left = sentBytes - ws.bufferedAmount;
        missed = 0;
        movedAt = now;
      }
      if (missed >= PINGS_MISSED) return abandon(`${missed} pings were not answered`);
      if (!events.expectsAck()) ackedAt = now;
      if (now - Math.max(movedAt, ackedAt) > times.stalled) return abandon('the ingest is connected but acknowledges nothing');
      missed += 1;
      pings += 1;
      pingedAt = now;
      ws.ping();
    };
    heartbeat = setInterval(ping, times.ping);
    ping();
  };

  ws.on('open', () => {
    log.info('media socket is open', { milliseconds: Math.round(performance.now() - dialledAt) });
    welcomeTimer = setTimeout(() => abandon('the ingest sent no welcome'), times.handshake);
    startHeartbeat();
  });
  ws.on('message', (data: RawData) => {
    const message = ingestMessage.safeParse(jsonOf(textOf(data)));
    if (!message.success || (message.data.type === 'welcome') === welcomed) {
      // a newer ingest may say more than this worker knows of
      log.warn('the ingest said something unexpected');
    } else if (message.data.type === 'ack') {
      ackedAt = performance.now();
      events.ack(message.data.seq);
    } else {
      welcomed = true;
      clearTimeout(welcomeTimer);
      log.info('media socket is welcome', { acked: message.data.acked });
      events.welcome(message.data.acked);
    }
  });
  ws.on('unexpected-response', (_request, response) => {
    const status = response.statusCode ?? 0;
    void refusalOf(response).then((detail) => {
      const answer = `HTTP status ${status}${detail}`;
      if (statusRefuses(status)) refusal = new TabreelError('media_refused', `the media URL answered ${answer}`);
      abandon(answer);
    });
  });
  // cutting a dial short comes here as well, when the cause is known already
  ws.on('error', (error) => (cause ??= dialCause(error, host)));
  ws.on('close', (code, reason) => {
    clearInterval(heartbeat);
    clearTimeout(welcomeTimer);
    const said = reason.toString();
    if (code !== 1006) cause = `it was closed with ${code}${said === '' ? '' : ` (${said})`}`;
    events.closed({ code, cause: cause ?? 'the connection was cut', refusal: refusal ?? closeRefuses(code, said) });
  });

  return {
    buffered: () => ws.bufferedAmount,
    send(message, sent) {
      sentBytes += message.length;
      ws.send(message, { binary: true }, sent);
    },
    close: (code, reason) => ws.close(code, reason),
    terminate: () => ws.terminate(),
    roundTrip: () => roundTrip,
  };
}

/**
 * What to trust: Node's own list (and NODE_EXTRA_CA_CERTS), the system's store, and the operator's authority.
 * @throws where `ca` is not PEM.
 */
export function trusting(ca: string | null): SecureContext {
  return createSecureContext({
    ca: [...new Set([...getCACertificates('default'), ...getCACertificates('system'), ...(ca === null ? [] : [ca])])],
    minVersion: 'TLSv1.2',
  });
}

export const hostOf = (url: string): string => new URL(url).host;

const textOf = (data: RawData): string => (Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer)).toString();

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
