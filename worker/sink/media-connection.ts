/** One media socket from its dial to its close: handshake, welcome, heartbeat. What is sent over it is the sink's. */
import type { RawData } from 'ws';
import type { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import { ingestMessage, MISSED_PINGS } from '../../shared/media-protocol.ts';
import { dialMedia, hostOf, type MediaTarget } from './media-dial.ts';
import { closeRefuses, dialCause, statusAnswer, timeoutCause, type MediaCause } from './media-socket-causes.ts';

export type ConnectionTimes = {
  /** Milliseconds for all of a dial, and for the welcome after it. */
  handshake: number;
  /** Between two pings. */
  ping: number;
  /** For which nothing may be acknowledged, while no bytes leave either. */
  stalled: number;
};

/** How a connection ended. */
export type ConnectionEnd = {
  /** 1006 where no close frame came. */
  code: number;
  cause: MediaCause;
  /** Where no further dial can help. */
  refusal: TabreelError | null;
  /** The handshake had succeeded. */
  opened: boolean;
  /** Over TLS, with a certificate that was verified. */
  secured: boolean;
  /** For the log: milliseconds from its opening to its end, and without a word from the other side before that; what it carried. */
  life: { lived: number; silent: number; sentBytes: number } | null;
};

export type ConnectionEvents = {
  /** Once: the ingest has the parts up to `acked`. */
  welcome(acked: number): void;
  /** An attempt token came: the newest counts. */
  token(token: string): void;
  ack(seq: number): void;
  /** Milliseconds of a ping. */
  roundTrip(milliseconds: number): void;
  /** Once, at the end, also where the dial failed. */
  closed(end: ConnectionEnd): void;
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
};

/** Dials at once. The URL must be parseable. */
export function connectMedia(target: MediaTarget, times: ConnectionTimes, log: Log, events: ConnectionEvents): MediaConnection {
  const dialledAt = performance.now();
  const host = hostOf(target.url);
  const dial = dialMedia(target);
  const { ws } = dial;

  let cause: MediaCause | null = null;
  let refusal: TabreelError | null = null;
  let openedAt: number | null = null;
  let heardAt = dialledAt;
  let welcomed = false;
  let sentBytes = 0;
  let ackedAt = dialledAt;
  let heartbeat: NodeJS.Timeout | undefined;

  const abandon = (why: MediaCause) => {
    cause = why;
    ws.terminate();
  };
  const lost = (what: string): MediaCause => ({ code: 'media_unreachable', what: `${host}: ${what}` });
  const stall = (what: string) => {
    log.warn('media socket stalls', { reason: what, buffered: ws.bufferedAmount });
    abandon(lost(what));
  };
  // all of the dial in so long, whatever trickles in; the welcome has its own time
  const late = () => abandon(timeoutCause(dial.stage(), host, times.handshake));
  let limit = setTimeout(late, times.handshake);

  const startHeartbeat = () => {
    let first = true;
    /** Pings without an answer. */
    let missed = 0;
    let pingedAt = 0;
    let left = 0;
    let movedAt = performance.now();
    const alive = () => {
      if (missed > 1) log.info('media socket goes on');
      missed = 0;
    };
    ws.on('message', alive);
    ws.on('pong', () => {
      heardAt = performance.now();
      alive();
      const milliseconds = Math.round((heardAt - pingedAt) * 10) / 10;
      log[first ? 'info' : 'debug']('media socket round trip', { milliseconds });
      first = false;
      events.roundTrip(milliseconds);
    });
    const ping = () => {
      const now = performance.now();
      if (missed > 1) log.warn('media socket is silent', { pings: missed, buffered: ws.bufferedAmount });
      if (sentBytes - ws.bufferedAmount !== left) {
        left = sentBytes - ws.bufferedAmount;
        movedAt = now;
        // a sign of life too, where the network has to make room for them: on a slow uplink a ping waits behind a long part
        if (ws.bufferedAmount > 0) missed = 0;
      }
      if (missed >= MISSED_PINGS) return stall(`${missed} pings were not answered`);
      if (!events.expectsAck()) ackedAt = now;
      if (now - Math.max(movedAt, ackedAt) > times.stalled) return stall('the ingest is connected but acknowledges nothing');
      missed += 1;
      pingedAt = now;
      ws.ping();
    };
    heartbeat = setInterval(ping, times.ping);
    ping();
  };

  ws.on('open', () => {
    openedAt = heardAt = performance.now();
    log.info('media socket is open', { milliseconds: Math.round(openedAt - dialledAt), tls: dial.secured() });
    clearTimeout(limit);
    limit = setTimeout(late, times.handshake);
    startHeartbeat();
  });
  ws.on('message', (data: RawData) => {
    heardAt = performance.now();
    const message = ingestMessage.safeParse(jsonOf(textOf(data)));
    if (!message.success || (message.data.type === 'welcome') === welcomed) {
      // a newer ingest may say more than this worker knows of
      log.warn('the ingest said something unexpected');
    } else if (message.data.type === 'ack') {
      ackedAt = performance.now();
      events.ack(message.data.seq);
    } else {
      if (message.data.token !== undefined) events.token(message.data.token);
      if (message.data.type === 'token') return;
      welcomed = true;
      clearTimeout(limit);
      log.info('media socket is welcome', { acked: message.data.acked });
      events.welcome(message.data.acked);
    }
  });
  ws.on('unexpected-response', (_request, response) => {
    clearTimeout(limit); // reading the answer has a time of its own
    void statusAnswer(response, host).then((answer) => {
      refusal = answer.refusal;
      abandon(answer.cause);
    });
  });
  // cutting a dial short comes here as well, when the cause is known already
  ws.on('error', (error) => (cause ??= dialCause(error, host, dial.stage(), dial.shown())));
  ws.on('close', (code, reason) => {
    clearInterval(heartbeat);
    clearTimeout(limit);
    const now = performance.now();
    const life = openedAt === null ? null : { lived: Math.round(now - openedAt), silent: Math.round(now - heardAt), sentBytes };
    const said = reason.toString();
    if (code !== 1006) cause = lost(`it was closed with ${code}${said === '' ? '' : ` (${said})`}`);
    // a proxy's limit shows by the time: so long open, or so long silent
    cause ??= lost(life === null ? 'the connection was cut' : `the connection was cut ${seconds(life.lived)} after it was opened, silent for ${seconds(life.silent)}`);
    events.closed({ code, cause, refusal: refusal ?? closeRefuses(code, said), opened: life !== null, secured: dial.secured(), life });
  });

  return {
    buffered: () => ws.bufferedAmount,
    send(message, sent) {
      sentBytes += message.length;
      ws.send(message, { binary: true }, sent);
    },
    close: (code, reason) => ws.close(code, reason),
    terminate: () => ws.terminate(),
  };
}

const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(1)} s`;

const textOf = (data: RawData): string => (Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer)).toString();

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
