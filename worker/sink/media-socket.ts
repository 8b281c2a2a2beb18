/** The sink that sends parts to the recording's media URL, over as many media sockets as it takes (shared/media-protocol.ts). */
import { asTabreelError, TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import { closeCodes, encodePart, MAX_PART_BYTES, PING_MS, type Part, type PartHeader } from '../../shared/media-protocol.ts';
import { createBacklog, type SpoolPlace } from './backlog.ts';
import { noCounts, type MediaSocketCounts } from './media-counts.ts';
import { hostOf } from './media-dial.ts';
import { createMediaLink, type LinkTimes } from './media-link.ts';
import { createPatience, type PatienceTimes } from './media-patience.ts';
import { explain, isSuperseded, type MediaCause } from './media-socket-causes.ts';
import { watchTrouble, type Warn } from './media-trouble.ts';
import type { Sink, SinkPart, SinkProgress } from './sink.ts';

/** Bounds and times; bytes and milliseconds. */
export type MediaSocketLimits = LinkTimes & PatienceTimes & {
  /** Parts in memory that wait for their acknowledgement, all together. */
  waitingBytes: number;
  /** What is handed to the socket ahead of the network: ws keeps a masked copy of it. */
  bufferedBytes: number;
  /** What a spool leaves free on its disk. */
  spoolReserve: number;
  /** How long it may go wrong before the recording is told, and before a dial goes without TLS where that is allowed. */
  told: number;
};

const defaultLimits: MediaSocketLimits = {
  waitingBytes: 32 * 1024 * 1024,
  bufferedBytes: 4 * 1024 * 1024,
  spoolReserve: 512 * 1024 * 1024,
  unreachable: 60_000,
  deliver: 15 * 60_000,
  told: 5000,
  stalled: 30_000,
  handshake: 10_000,
  ping: PING_MS,
  firstRetry: 200,
  lastRetry: 5000,
};

/** Seconds that a socket may fall behind what is made, at a pressure of 1. */
const BEHIND_SECONDS = 30;

export type MediaSocketOptions = {
  /** Absolute `wss://` or `ws://` URL, without a credential. */
  url: string;
  /** Sent as a bearer token in the handshake; never logged. */
  credential: string;
  attempt: number;
  /** PEM of an authority that is trusted beside Node's own and the system's. */
  ca: string | null;
  /** Whether a `wss://` URL may be dialled without TLS where nobody speaks it: see media-way.ts. */
  allowInsecure?: boolean;
  /** Where parts go that are too much for the memory; by default there is no such place. */
  spool?: SpoolPlace | null;
  /** Whether an earlier attempt has stored media at this URL: see media-patience.ts. */
  found?: boolean;
  /** A line for the recording's `warnings`. */
  warn?: Warn;
  log: Log;
  limits?: Partial<MediaSocketLimits>;
};

/**
 * Dials at once, and again whenever the socket is lost, until everything is stored or the sink must give up.
 * What goes wrong then rejects `failed`: see `isSuperseded` for the one end that isn't an error of anyone's.
 * @throws where the URL or the authority's PEM can't be parsed.
 */
export function createMediaSocketSink(options: MediaSocketOptions): Sink & { counts(): MediaSocketCounts } {
  const { url, log } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const host = hostOf(url);
  const warn = options.warn ?? (() => undefined);
  const patience = createPatience(limits, options.found ?? false, (milliseconds) => giveUp(milliseconds));
  const trouble = watchTrouble({ after: limits.told, patience: patience.limit, warn });
  const backlog = createBacklog({
    memoryBytes: limits.waitingBytes,
    spool: options.spool ?? null,
    reserve: limits.spoolReserve,
    name: spoolName(url, options.attempt),
    log,
  });

  let lastSeq = 0;
  let acked = 0;
  let everSent = 0;
  const stored = { segments: 0, bytes: 0, until: 0 };
  const counts = noCounts();

  let state: 'open' | 'finishing' | 'finished' | 'failed' | 'disposed' = 'open';
  /** The next part for the present connection; null while there is no welcomed one. */
  let nextSeq: number | null = null;
  /** A part is being read from disk. */
  let reading = false;

  let lastCause: MediaCause = { code: 'media_unreachable', what: `${host} was never dialled` };
  /** A connection was closed for want of room, and nothing was stored since. */
  let full: MediaCause | null = null;
  /** Least seconds of media that have waited on the present socket. */
  let leastWaiting = 0;
  /** What was refused leaves a hole: nothing may follow it. */
  let refused: TabreelError | null = null;

  let failedWith: TabreelError | null = null;
  /** Resolves once what can't be delivered is left on disk. */
  let leaving = Promise.resolve();
  const failed = Promise.withResolvers<never>();
  const finished = Promise.withResolvers<void>();
  // whoever wants to know awaits them; nobody else is to be brought down
  failed.promise.catch(() => {});
  finished.promise.catch(() => {});

  const settle = (end: 'finished' | 'failed' | 'disposed') => {
    state = end;
    patience.dispose();
    trouble.dispose();
  };

  const wasFound = () => options.found === true || counts.connections > 0;

  /** Media that can't be delivered is all that there is of it, unless nobody wants it. */
  const leaveBehind = async (): Promise<void> => {
    const seconds = backlog.seconds();
    const directory = await backlog.leave();
    if (directory !== null) log.error('media is left on disk', { directory, parts: backlog.parts(), seconds });
  };

  const fail = (error: TabreelError) => {
    settle('failed');
    failedWith = error;
    // that nobody wants the media any more is no failure
    log[isSuperseded(error) ? 'info' : 'error']('media socket gives up', { error, waitingParts: backlog.parts(), waitingBytes: backlog.bytes() });
    link.stop();
    if (!isSuperseded(error) && wasFound()) leaving = leaveBehind();
    failed.reject(error);
    finished.reject(error);
  };

  const giveUp = (milliseconds: number) => {
    const why = `nothing could be stored for ${milliseconds / 1000} s: ${full?.what ?? explain(lastCause)}`;
    const missing = `${backlog.seconds().toFixed(1)} s of media are missing`;
    // once it was found, whatever hides it now is a loss rather than a wrong setting
    if (full !== null) fail(new TabreelError('storage_full', `${missing}: ${why}`));
    else if (wasFound()) fail(new TabreelError('media_unreachable', `${missing}: ${why}`));
    else fail(new TabreelError(lastCause.code, why));
  };

  const takeAck = (seq: number) => {
    for (const { header, payloadBytes } of backlog.drop(seq)) {
      full = null;
      stored.bytes += payloadBytes;
      acked = header.seq;
      counts.ackedParts = acked;
      if (header.type === 'segment') {
        stored.segments += 1;
        stored.until = header.start + header.duration;
      }
    }
    leastWaiting = Math.min(leastWaiting, backlog.seconds());
    link.progressed();
    patience.progressed();
    trouble.over();
    if (state === 'finishing' && backlog.parts() === 0) {
      settle('finished');
      log.info('media is stored', { parts: lastSeq, bytes: stored.bytes, dials: counts.dials, resentParts: counts.resentParts, roundTrip: counts.roundTrip });
      link.stop({ code: closeCodes.done.code, reason: 'done' });
      finished.resolve();
    }
  };

  const send = (message: Uint8Array) => {
    const socket = link.socket();
    if (socket === null || nextSeq === null) return;
    counts.sentParts += 1;
    counts.sentBytes += message.length;
    if (nextSeq <= everSent) counts.resentParts += 1;
    everSent = Math.max(everSent, nextSeq);
    nextSeq += 1;
    socket.send(message, pump);
  };

  /** Hands parts to the connection, as many as it may hold ahead of the network. */
  const pump = () => {
    while (nextSeq !== null && nextSeq <= lastSeq && !reading && (link.socket()?.buffered() ?? Infinity) < limits.bufferedBytes) {
      const message = backlog.message(nextSeq);
      if (message === null) return void sendFromDisk(nextSeq);
      send(message);
    }
  };

  const sendFromDisk = async (seq: number) => {
    reading = true;
    const message = await backlog.read(seq).catch((error: unknown) => asTabreelError(error));
    reading = false;
    // meanwhile the connection may be another, and the part stored
    const due = nextSeq === seq && state !== 'failed' && state !== 'disposed';
    if (due && message instanceof TabreelError) return fail(new TabreelError('internal', `a part that waited on disk can not be read: ${message.message}`, { cause: message }));
    if (due) send(message as Uint8Array);
    pump();
  };

  const link = createMediaLink({
    url,
    credential: options.credential,
    attempt: options.attempt,
    ca: options.ca,
    allowInsecure: options.allowInsecure ?? false,
    warn,
    times: limits,
    log,
    counts,
    events: {
      welcome(seq) {
        trouble.opened();
        if (seq > everSent) return fail(new TabreelError('media_refused', `the ingest claims part ${seq} of this attempt, of which ${everSent} were sent`));
        patience.welcomed();
        // can't be, as acknowledged means stored; sending goes on from what is still here
        if (seq < acked) log.error('the ingest knows of fewer parts than it acknowledged', { acked, claimed: seq });
        if (seq > acked || backlog.parts() === 0) takeAck(seq);
        leastWaiting = backlog.seconds();
        nextSeq = acked + 1;
        pump();
      },
      ack(seq) {
        if (seq > everSent) log.warn('the ingest acknowledged what was not sent', { seq, sent: everSent });
        else if (seq > acked) takeAck(seq);
        pump();
      },
      lost(cause, since, code) {
        nextSeq = null;
        lastCause = cause;
        if (code === closeCodes.storageFull.code) full = cause;
        patience.lost();
        trouble.failed(cause, since);
        patience.trouble(backlog.parts() > 0);
      },
      refused(error) {
        nextSeq = null;
        fail(error);
      },
      acked: () => acked,
      expectsAck: () => everSent > acked,
      waiting: () => ({ waitingParts: backlog.parts(), waitingBytes: backlog.bytes() }),
    },
  });

  /** @returns whether there was room */
  const take = (part: SinkPart): boolean => {
    const header = { ...part.header, seq: lastSeq + 1 } as PartHeader;
    const message = joined({ header, payload: part.payload });
    if (message.length > MAX_PART_BYTES) throw new TabreelError('internal', `a part of ${message.length} bytes is more than an ingest takes`);
    const first = backlog.parts() === 0;
    if (!backlog.push(header, part.payload.length, message)) return false;
    if (first) patience.waits();
    lastSeq = header.seq;
    pump();
    return true;
  };

  /** What an outage left is no reason to ease off, as long as it becomes less. */
  const pressure = (): number => {
    const behind = nextSeq === null ? 0 : (backlog.seconds() - leastWaiting) / BEHIND_SECONDS;
    return Math.min(1, Math.max(backlog.pressure(), behind));
  };

  const refusal = (): TabreelError => {
    const what = `${backlog.bytes()} bytes of media wait to be stored at ${host}, and no more can be kept`;
    if (full !== null) return new TabreelError('storage_full', `${what}: ${full.what}`);
    return new TabreelError('media_backlog', nextSeq === null ? `${what}: ${explain(lastCause)}` : what);
  };

  return {
    push(part) {
      if (failedWith !== null) throw failedWith;
      if (state !== 'open') throw new TypeError(`the sink takes no more parts: it is ${state}`);
      if (refused === null && !take(part)) refused = refusal();
      if (refused !== null) throw refused;
    },
    progress: (): SinkProgress => ({
      waitingParts: backlog.parts(),
      waitingBytes: backlog.bytes(),
      storedSegments: stored.segments,
      storedBytes: stored.bytes,
      storedUntil: stored.until,
    }),
    pressure,
    finish(durationMicroseconds) {
      if (state === 'disposed') return Promise.reject(new TypeError('the sink is disposed'));
      if (state === 'open') {
        state = 'finishing';
        patience.finishing();
        // the end always finds room: it is what makes the rest a whole
        take({ header: { type: 'end', duration: durationMicroseconds }, payload: new Uint8Array() });
      }
      return finished.promise;
    },
    failed: failed.promise,
    counts: () => ({ ...structuredClone(counts), waitingBytes: backlog.bytes(), spooledBytes: backlog.spooledBytes(), pressure: pressure() }),
    async [Symbol.asyncDispose]() {
      if (state === 'open' || state === 'finishing') {
        settle('disposed');
        finished.reject(new TypeError('the sink was disposed before everything was stored'));
      }
      // a finished connection is closing by itself: it gets a moment for the ingest's own close frame
      if (state !== 'finished') link.stop();
      const cut = setTimeout(link.terminate, 1000);
      await link.closed();
      clearTimeout(cut);
      await leaving;
      await backlog.dispose();
    },
  };
}

/** The recording's id, where the URL has one, and the attempt. */
const spoolName = (url: string, attempt: number): string => `tabreel-spool-${/\/(rec_[a-z0-9]+)\//.exec(url)?.[1] ?? 'media'}-a${attempt}`;

/**
 * One buffer for a part. ws makes a masked copy of whatever it sends, and a part is kept to be sent again, so joining it
 * once costs one copy (0.75 MB each two seconds at 3 Mb/s) and lets go of the muxer's buffer; sending it as fragments would
 * move that copy into the ingest.
 */
const joined = (part: Part): Uint8Array => Buffer.concat(encodePart(part));
