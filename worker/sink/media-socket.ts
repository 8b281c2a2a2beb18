/** The sink that sends parts to the recording's media URL over a WebSocket: shared/media-protocol.ts, the worker's end. */
import { randomInt } from 'node:crypto';
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls';
import { WebSocket, type RawData } from 'ws';
import { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import {
  ATTEMPT_HEADER,
  closeCodes,
  encodePart,
  ingestMessage,
  MAX_PART_BYTES,
  MEDIA_SUBPROTOCOL,
  type Part,
  type PartHeader,
} from '../../shared/media-protocol.ts';
import type { Sink, SinkPart, SinkProgress } from './sink.ts';
import { closeRefuses, dialCause, refusalOf, statusRefuses } from './media-socket-causes.ts';

/** Bounds and times; milliseconds and bytes. */
export type MediaSocketLimits = {
  /** Parts that wait for their acknowledgement, all together. */
  waitingBytes: number;
  /** What is handed to the socket ahead of the network: ws keeps a masked copy of it. */
  bufferedBytes: number;
  /** How long nothing may be stored, while something goes wrong, before the sink gives up. */
  unreachable: number;
  /** An open socket on which neither bytes leave nor acknowledgements come is dialled anew. */
  stalled: number;
  handshake: number;
  ping: number;
  firstRetry: number;
  lastRetry: number;
};

const defaultLimits: MediaSocketLimits = {
  waitingBytes: 64 * 1024 * 1024,
  bufferedBytes: 4 * 1024 * 1024,
  unreachable: 60_000,
  stalled: 30_000,
  handshake: 10_000,
  ping: 10_000,
  firstRetry: 200,
  lastRetry: 5000,
};

/** A peer that leaves this many pings unanswered, while no bytes leave either, is dead. */
const PINGS_MISSED = 2;

export type MediaSocketOptions = {
  /** Absolute `wss://` or `ws://` URL, without a credential. */
  url: string;
  /** Sent as a bearer token in the handshake; never logged. */
  credential: string;
  attempt: number;
  /** PEM of an authority that is trusted beside Node's own and the system's. */
  ca: string | null;
  log: Log;
  limits?: Partial<MediaSocketLimits>;
};

export type MediaSocketCounts = {
  /** Sockets dialled, and those that got as far as a welcome. */
  dials: number;
  connections: number;
  /** Messages sent, those among them that had been sent on an earlier socket, and the bytes of all. */
  sentParts: number;
  resentParts: number;
  sentBytes: number;
  /** Milliseconds of the last ping; null before the first answer. */
  roundTrip: number | null;
};

type WaitingPart = { header: PartHeader; payloadBytes: number; message: Uint8Array };

/**
 * Dials at once, and again whenever the socket is lost, until everything is stored or the sink must give up.
 * @throws nothing: what goes wrong rejects `failed`.
 */
export function createMediaSocketSink(options: MediaSocketOptions): Sink & { counts(): MediaSocketCounts } {
  const { url, credential, attempt, log } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const secureContext = url.startsWith('wss:') ? trusting(options.ca) : undefined;

  /** Oldest first; `waiting[0]` is the first part that isn't known to be stored. */
  const waiting: WaitingPart[] = [];
  let waitingBytes = 0;
  let lastSeq = 0;
  let acked = 0;
  const stored = { segments: 0, bytes: 0, until: 0 };
  const counts: MediaSocketCounts = { dials: 0, connections: 0, sentParts: 0, resentParts: 0, sentBytes: 0, roundTrip: null };

  let socket: WebSocket | null = null;
  /** The next part for the present socket; null while there is no welcomed one. */
  let nextSeq: number | null = null;
  let everSent = 0;
  let retries = 0;
  let retryTimer: NodeJS.Timeout | undefined;
  let giveUpTimer: NodeJS.Timeout | undefined;
  /** When something was last stored, or last began to wait: the start of every "nothing stored for". */
  let progressedAt = performance.now();
  let lastCause = 'it was never dialled';
  /** When the present socket was welcomed; null while there is none, or once it had its grace. */
  let graceFrom: number | null = null;
  let graceUsed = false;

  let state: 'open' | 'finishing' | 'finished' | 'failed' | 'disposed' = 'open';
  const failure = Promise.withResolvers<never>();
  failure.promise.catch(() => {}); // whoever wants to know awaits it; others must not be brought down
  const finished = Promise.withResolvers<void>();
  finished.promise.catch(() => {});
  let failedWith: TabreelError | null = null;

  const settle = (end: 'finished' | 'failed' | 'disposed') => {
    state = end;
    clearTimeout(retryTimer);
    clearTimeout(giveUpTimer);
    giveUpTimer = undefined;
  };

  const fail = (error: TabreelError) => {
    if (state !== 'open' && state !== 'finishing') return;
    settle('failed');
    failedWith = error;
    log.error('media socket gives up', { error, waitingParts: waiting.length, waitingBytes });
    socket?.terminate();
    failure.reject(error);
    finished.reject(error);
  };

  const unreachable = () => {
    // a socket that was welcomed at the last moment may show what it can do, once
    const grace = graceFrom === null ? 0 : graceFrom + limits.stalled - performance.now();
    if (grace > 0 && socket !== null) {
      graceFrom = null;
      graceUsed = true;
      giveUpTimer = setTimeout(unreachable, grace);
      return;
    }
    fail(new TabreelError('media_unreachable', `nothing could be stored at ${hostOf(url)} for ${limits.unreachable / 1000} s: ${lastCause}`));
  };

  /** From now on, time in which nothing is stored counts, that since the last progress included. */
  const inTrouble = (cause: string) => {
    lastCause = cause;
    if (giveUpTimer !== undefined) return;
    if (waiting.length === 0) progressedAt = performance.now();
    giveUpTimer = setTimeout(unreachable, Math.max(0, progressedAt + limits.unreachable - performance.now()));
  };

  const progressed = () => {
    progressedAt = performance.now();
    retries = 0;
    graceUsed = false;
    clearTimeout(giveUpTimer);
    giveUpTimer = undefined;
  };

  const takeAck = (seq: number) => {
    while (waiting[0] !== undefined && waiting[0].header.seq <= seq) {
      const part = waiting.shift() as WaitingPart;
      waitingBytes -= part.message.length;
      stored.bytes += part.payloadBytes;
      acked = part.header.seq;
      if (part.header.type === 'segment') {
        stored.segments += 1;
        stored.until = part.header.start + part.header.duration;
      }
    }
    progressed();
    if (state === 'finishing' && waiting.length === 0) {
      settle('finished');
      log.info('media socket has stored everything', { parts: lastSeq, bytes: stored.bytes, ...counts });
      socket?.close(closeCodes.done.code, 'done');
      finished.resolve();
    }
  };

  /** Hands parts to the socket, as many as it may hold ahead of the network. */
  const pump = () => {
    const ws = socket;
    if (ws === null || ws.readyState !== WebSocket.OPEN) return;
    while (nextSeq !== null && nextSeq <= lastSeq && ws.bufferedAmount < limits.bufferedBytes) {
      const part = waiting[nextSeq - acked - 1] as WaitingPart;
      counts.sentParts += 1;
      counts.sentBytes += part.message.length;
      if (nextSeq <= everSent) counts.resentParts += 1;
      everSent = Math.max(everSent, nextSeq);
      nextSeq += 1;
      ws.send(part.message, { binary: true }, pump);
    }
  };

  /** Takes the ingest's word for what it has; a lower one than before isn't possible, and sending goes on from what is here. */
  const takeWelcome = (seq: number) => {
    if (seq > lastSeq) {
      fail(new TabreelError('media_refused', `the ingest claims part ${seq} of this attempt, of which ${lastSeq} exist`));
      return;
    }
    if (seq < acked) log.warn('the ingest knows of fewer parts than it acknowledged', { acked, claimed: seq });
    if (seq > acked || waiting.length === 0) takeAck(seq);
    if (!graceUsed) graceFrom = performance.now();
    nextSeq = acked + 1;
    pump();
  };

  const redial = () => {
    const most = Math.min(limits.lastRetry, limits.firstRetry * 2 ** retries);
    retries += 1;
    // half of it by chance, so that the workers of a lost edge don't come back all at once
    const delay = most / 2 + randomInt(Math.ceil(most / 2) + 1);
    retryTimer = setTimeout(dial, delay);
    return Math.round(delay);
  };

  function dial(): void {
    const dialledAt = performance.now();
    counts.dials += 1;
    const number = counts.dials;
    log.info('media socket dials', { host: hostOf(url), dial: number, waitingParts: waiting.length });
    const ws = new WebSocket(url, [MEDIA_SUBPROTOCOL], {
      headers: { authorization: `Bearer ${credential}`, [ATTEMPT_HEADER]: String(attempt) },
      handshakeTimeout: limits.handshake,
      perMessageDeflate: false, // media doesn't compress
      maxPayload: 64 * 1024,
      rejectUnauthorized: true, // whatever NODE_TLS_REJECT_UNAUTHORIZED says
      ...(secureContext === undefined ? {} : { secureContext }),
    });
    socket = ws;
    let cause = 'the connection was cut';
    let refusal: TabreelError | null = null;
    let welcomed = false;
    let heartbeat: NodeJS.Timeout | undefined;
    let welcomeTimer: NodeJS.Timeout | undefined;

    const abandon = (why: string) => {
      cause = why;
      ws.terminate();
    };

    const beat = () => {
      let missed = 0;
      let pingedAt = 0;
      let gone = 0;
      let movedAt = performance.now();
      const heard = () => (missed = 0);
      ws.on('message', heard);
      ws.on('pong', () => {
        heard();
        counts.roundTrip = Math.round((performance.now() - pingedAt) * 10) / 10;
        log[pings === 1 ? 'info' : 'debug']('media socket round trip', { dial: number, milliseconds: counts.roundTrip });
      });
      let pings = 0;
      const ping = () => {
        // bytes that leave are a sign of life too: on a slow uplink a ping waits behind a long part
        const left = counts.sentBytes - ws.bufferedAmount;
        if (left !== gone) {
          heard();
          movedAt = performance.now();
        }
        gone = left;
        if (missed >= PINGS_MISSED) return abandon(`${missed} pings were not answered`);
        const still = performance.now() - Math.max(movedAt, progressedAt);
        if (waiting.length > 0 && still > limits.stalled) return abandon('the ingest is connected but acknowledges nothing');
        missed += 1;
        pings += 1;
        pingedAt = performance.now();
        ws.ping();
      };
      heartbeat = setInterval(ping, limits.ping);
      ping();
    };

    ws.on('open', () => {
      log.info('media socket is open', { dial: number, milliseconds: Math.round(performance.now() - dialledAt) });
      welcomeTimer = setTimeout(() => abandon('the ingest sent no welcome'), limits.handshake);
      beat();
    });
    ws.on('message', (data: RawData, isBinary) => {
      if (ws !== socket || isBinary) return;
      const parsed = ingestMessage.safeParse(jsonOf(textOf(data)));
      if (!parsed.success || (parsed.data.type === 'welcome') === welcomed) {
        // a newer ingest may say more than this worker knows of
        log.warn('the ingest said something unexpected', { dial: number });
      } else if (parsed.data.type === 'welcome') {
        welcomed = true;
        counts.connections += 1;
        clearTimeout(welcomeTimer);
        log.info('media socket is welcome', { dial: number, acked: parsed.data.acked, waitingParts: waiting.length });
        takeWelcome(parsed.data.acked);
      } else if (parsed.data.seq > everSent) {
        log.warn('the ingest acknowledged what was not sent', { seq: parsed.data.seq, sent: everSent });
      } else if (parsed.data.seq > acked) {
        takeAck(parsed.data.seq);
        pump();
      }
    });
    ws.on('unexpected-response', (_request, response) => {
      const status = response.statusCode ?? 0;
      void refusalOf(response).then((detail) => {
        cause = `HTTP status ${status}${detail}`;
        if (statusRefuses(status)) refusal = new TabreelError('media_refused', `the media URL answered ${cause}`);
        ws.terminate();
      });
    });
    ws.on('error', (error) => {
      // `terminate` while connecting comes here too, when the cause is known already
      if (cause === 'the connection was cut') cause = dialCause(error, hostOf(url));
    });
    ws.on('close', (code, reason) => {
      clearInterval(heartbeat);
      clearTimeout(welcomeTimer);
      if (ws !== socket) return;
      socket = null;
      nextSeq = null;
      graceFrom = null;
      const said = reason.toString();
      if (state !== 'open' && state !== 'finishing') {
        log.info('media socket closed', { dial: number, code, reason: said });
        return;
      }
      if (code !== 1006) cause = `it was closed with ${code}${said === '' ? '' : ` (${said})`}`;
      refusal ??= closeRefuses(code, said);
      if (refusal !== null) return fail(refusal);
      inTrouble(cause);
      // giving up may be due this very moment
      log.warn('media socket closed', { dial: number, code, cause, waitingParts: waiting.length, reconnect: retries + 1, inMilliseconds: redial() });
    });
  }

  const push = (part: SinkPart, bound: number) => {
    if (failedWith !== null) throw failedWith;
    if (state !== 'open') throw new TypeError(`the sink takes no parts once it is ${state}`);
    const header = { ...part.header, seq: lastSeq + 1 } as PartHeader;
    const message = joined({ header, payload: part.payload });
    if (message.length > MAX_PART_BYTES) throw new TabreelError('internal', `a part of ${message.length} bytes is more than the ingest takes`);
    if (waitingBytes + message.length > bound) {
      throw new TabreelError('media_backlog', `${waitingBytes} bytes wait to be stored at ${hostOf(url)}${socket === null ? `: ${lastCause}` : ''}`);
    }
    // from here on the ingest has something to acknowledge
    if (waiting.length === 0 && giveUpTimer === undefined) progressedAt = performance.now();
    lastSeq = header.seq;
    waiting.push({ header, payloadBytes: part.payload.length, message });
    waitingBytes += message.length;
    pump();
  };

  dial();

  return {
    push: (part) => push(part, limits.waitingBytes),
    progress: (): SinkProgress => ({
      waitingParts: waiting.length,
      waitingBytes,
      storedSegments: stored.segments,
      storedBytes: stored.bytes,
      storedUntil: stored.until,
    }),
    finish(durationMicroseconds) {
      if (state === 'open') {
        // the end always finds room: it is what lets the rest count
        push({ header: { type: 'end', duration: durationMicroseconds }, payload: new Uint8Array() }, Infinity);
        state = 'finishing';
      } else if (state === 'disposed') {
        return Promise.reject(new TypeError('the sink is disposed'));
      }
      return finished.promise;
    },
    failed: failure.promise,
    counts: () => ({ ...counts }),
    async [Symbol.asyncDispose]() {
      if (state === 'open' || state === 'finishing') {
        const wasFinishing = state === 'finishing';
        settle('disposed');
        if (wasFinishing) finished.reject(new TypeError('the sink was disposed before everything was stored'));
      }
      clearTimeout(retryTimer);
      const ws = socket;
      if (ws === null) return;
      const closed = new Promise<void>((resolve) => ws.once('close', () => resolve()));
      // a finished socket is closing by itself: it gets a moment for the ingest's own close frame
      if (state !== 'finished') ws.terminate();
      const cut = setTimeout(() => ws.terminate(), 1000);
      await closed;
      clearTimeout(cut);
    },
  };
}

/**
 * One buffer for a part. ws makes a masked copy of whatever it sends, and a part is kept to be sent again, so joining it
 * once costs one copy (0.75 MB each two seconds at 3 Mb/s) and lets go of the muxer's buffer; sending it as fragments would
 * move that copy into the ingest.
 */
const joined = (part: Part): Uint8Array => Buffer.concat(encodePart(part));

/** What to trust: Node's own list (and NODE_EXTRA_CA_CERTS), the system's store, and the operator's authority. */
function trusting(ca: string | null): SecureContext {
  return createSecureContext({
    ca: [...new Set([...getCACertificates('default'), ...getCACertificates('system'), ...(ca === null ? [] : [ca])])],
    minVersion: 'TLSv1.2',
  });
}

const hostOf = (url: string): string => new URL(url).host;

const textOf = (data: RawData): string => (Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer)).toString();

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
