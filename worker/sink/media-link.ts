/** A sink's way to the ingest: one media socket after the other, each dialled when the one before is lost, until it is told to stop. */
import { randomInt } from 'node:crypto';
import { trusting } from '../../shared/authorities.ts';
import type { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import { connectMedia, type ConnectionTimes, type MediaConnection } from './media-connection.ts';
import { countDial, countRoundTrip, type MediaSocketCounts } from './media-counts.ts';
import { hostOf } from './media-dial.ts';
import type { MediaCause } from './media-socket-causes.ts';
import type { Warn } from './media-trouble.ts';
import { insecureWarning, mediaWays } from './media-way.ts';

/** Milliseconds. */
export type LinkTimes = ConnectionTimes & {
  /** How long it may go wrong before a dial goes without TLS where that is allowed. */
  told: number;
  /** Pauses before the next dial: the first, and the longest. */
  firstRetry: number;
  lastRetry: number;
};

export type LinkOptions = {
  url: string;
  credential: string;
  attempt: number;
  ca: string | null;
  allowInsecure: boolean;
  warn: Warn;
  times: LinkTimes;
  log: Log;
  /** Counts its dials and connections here. */
  counts: MediaSocketCounts;
  events: LinkEvents;
};

export type LinkEvents = {
  /** First thing on each socket: the ingest has the parts up to `acked`. */
  welcome(acked: number): void;
  ack(seq: number): void;
  /** A dial or a socket came to its end, and another dial follows. @param since when it began to go wrong, as `performance.now` */
  lost(cause: MediaCause, since: number, code: number): void;
  /** No further dial can help. It is stopped. */
  refused(error: TabreelError): void;
  /** The last part that was acknowledged, and whether something was sent that should be. */
  acked(): number;
  expectsAck(): boolean;
  /** For the log. */
  waiting(): { waitingParts: number; waitingBytes: number };
};

export type MediaLink = {
  /** The socket that is welcome; null while there is none. */
  socket(): MediaConnection | null;
  /** Something was stored: the next loss is dialled at once again. */
  progressed(): void;
  /** No more dials. @param close of the open socket; without one it is cut */
  stop(close?: { code: number; reason: string }): void;
  /** Cuts what is still open. */
  terminate(): void;
  /** Resolves once no socket is open. */
  closed(): Promise<void>;
};

/**
 * Dials at once.
 * @throws where the URL or the authority's PEM can't be parsed.
 */
export function createMediaLink({ url, credential, attempt, times, log, counts, events, warn, ...options }: LinkOptions): MediaLink {
  const trust = url.startsWith('wss:') ? trusting(options.ca) : null;
  const ways = mediaWays(url, { allowInsecure: options.allowInsecure, after: times.told });
  let connection: MediaConnection | null = null;
  let connectionClosed = Promise.resolve();
  let open = false;
  let stopped = false;
  let retries = 0;
  let retryTimer: NodeJS.Timeout | undefined;
  let attemptToken: string | null = null;
  /** When the last welcomed connection was lost; null while there is one, and before the first. */
  let lostAt: number | null = null;
  let toldInsecure = false;

  const stop: MediaLink['stop'] = (close) => {
    stopped = true;
    clearTimeout(retryTimer);
    if (close === undefined) connection?.terminate();
    else connection?.close(close.code, close.reason);
  };

  const dial = () => {
    counts.dials += 1;
    const way = ways.next();
    const dialledAt = performance.now();
    const dialLog = log.with({ dial: counts.dials, host: hostOf(way.url) });
    const closed = Promise.withResolvers<void>();
    let welcomed = false;
    let ackedBefore = 0;
    connectionClosed = closed.promise;
    dialLog.info('media socket dials', { reconnect: counts.connections, tls: !way.insecure && trust !== null });
    if (way.insecure && !toldInsecure) {
      toldInsecure = true;
      warn('media_insecure', insecureWarning(url));
    }
    const target = { url: way.url, credential, attempt, number: counts.dials, acked: events.acked(), attemptToken, trust: way.insecure ? null : trust };
    connection = connectMedia(target, times, dialLog, {
      token: (token) => void (attemptToken = token),
      welcome(seq) {
        welcomed = open = counts.open = true;
        ackedBefore = events.acked();
        countDial(counts, 'open');
        counts.connections += 1;
        counts.reconnects = counts.connections - 1;
        if (lostAt !== null) dialLog.info('media socket is back', { reconnect: counts.reconnects, away: Math.round(performance.now() - lostAt) });
        lostAt = null;
        events.welcome(seq);
      },
      ack: events.ack,
      roundTrip: (milliseconds) => countRoundTrip(counts, milliseconds),
      expectsAck: events.expectsAck,
      closed(end) {
        connection = null;
        open = counts.open = false;
        closed.resolve();
        const { cause, refusal } = ways.ended(way, end);
        if (!welcomed) countDial(counts, stopped ? 'abandoned' : refusal === null ? cause.code : 'media_refused');
        const delay = stopped || refusal !== null ? null : delayOf(retries, times);
        const carried = { ...end.life, ...(welcomed ? { ackedParts: events.acked() - ackedBefore } : {}), ...events.waiting() };
        dialLog[stopped ? 'info' : 'warn']('media socket is closed', { code: end.code, kind: cause.code, cause: cause.what, ...carried, dialsAgainIn: delay });
        if (stopped) return;
        if (refusal !== null) {
          stopped = true;
          return events.refused(refusal);
        }
        retries += 1;
        retryTimer = setTimeout(dial, delay ?? 0);
        if (welcomed) lostAt ??= performance.now();
        events.lost(cause, welcomed ? performance.now() : dialledAt, end.code);
      },
    });
  };
  dial();

  return {
    socket: () => (open ? connection : null),
    progressed: () => void (retries = 0),
    stop,
    terminate: () => connection?.terminate(),
    closed: () => connectionClosed,
  };
}

/** Milliseconds before the next dial; half of them by chance, so that a lost edge's workers don't all come back at once. */
function delayOf(retries: number, times: LinkTimes): number {
  const most = Math.min(times.lastRetry, times.firstRetry * 2 ** retries);
  return Math.round(most / 2 + randomInt(Math.ceil(most / 2) + 1));
}
