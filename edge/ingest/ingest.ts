/** The recordings' way in: who may open a media socket, and which of them are open. */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import { ACKED_HEADER, ATTEMPT_HEADER, ATTEMPT_TOKEN_HEADER, closeCodes, DIAL_HEADER, type PartHeader } from '../../shared/media-protocol.ts';
import { isEnd } from '../../shared/recording.ts';
import type { RecordingRecord, RecordingStore } from '../../shared/recording-store.ts';
import { signAttemptToken, verifyAttemptToken, verifyToken } from '../../shared/token.ts';
import { lastContiguous, parsePartName, partKey, partName, type StoredPart } from '../storage/part-names.ts';
import { isSealed } from '../storage/seal.ts';
import type { Storage } from '../storage/storage.ts';
import type { Watch } from '../watch.ts';
import { createMediaConnection, type CloseName, type MediaConnection, type MediaSocket } from './connection.ts';
import type { LiveParts } from './live.ts';
import { compareSockets, parseSocketSignal, socketSignal, type SocketNumbers } from './takeover.ts';

/** How long an attempt token is good, and when the next is given: an outage of Redis shorter than the difference costs no dial. */
const TOKEN_MS = 10 * 60_000;
const TOKEN_RENEW_MS = 2 * 60_000;
/** How long a new socket waits for what an older one is storing; what takes longer is sent and stored again. */
const SETTLE_MS = 3000;
const FILE_IS_MADE = 'the file of the recording is made';
/** Between tries to read the record while Redis is away. */
const CHECK_AGAIN_MS = 3000;

export type IngestOptions = {
  log: Log;
  store: RecordingStore;
  storage: Storage;
  live: LiveParts;
  watch: Watch;
  tokenSecrets: readonly string[];
  /** Counts for the metrics. */
  onStored(kind: PartHeader['type'], bytes: number): void;
  onOpened(again: boolean): void;
  onClosed(code: number): void;
};

export type Admission = SocketNumbers & {
  id: string;
  /** The last part that was acknowledged to the worker. */
  acked: number;
  /** A newer attempt owns the recording: the socket is opened only to be told so. */
  fenced: boolean;
};
export type Ingest = ReturnType<typeof createIngest>;

type OpenSocket = SocketNumbers & { connection: MediaConnection };

export function createIngest({ log, store, storage, live, watch, tokenSecrets, onStored, onOpened, onClosed }: IngestOptions) {
  /** Among the edges. */
  const self = randomUUID();
  /** One open socket at most for each recording: the newest. */
  const open = new Map<string, OpenSocket>();
  const settling = new Set<Promise<void>>();
  /** Parts that are being stored, by their keys. */
  const storing = new Map<string, Promise<void>>();

  /** Whoever else sends the same part while it is being stored waits for that. */
  async function put(key: string, bytes: Uint8Array): Promise<boolean> {
    const running = storing.get(key);
    if (running !== undefined) {
      const stored = await running.then(() => true, () => false);
      return stored ? false : put(key, bytes);
    }
    const started = storage.put(key, bytes).finally(() => storing.delete(key));
    storing.set(key, started);
    await started;
    return true;
  }

  const attemptToken = (id: string, attempt: number) => signAttemptToken(tokenSecrets, id, attempt, Date.now() + TOKEN_MS);

  return {
    openSockets: () => open.size,

    /**
     * Whether this upgrade may become a media socket. With Redis away, the attempt token of an earlier one says so.
     *
     * @throws {TabreelError} with the status to answer: 400, 401, 404, 410; errors of Redis as they are
     */
    async admit(id: string, headers: Headers): Promise<Admission> {
      const token = /^Bearer +(\S+)$/i.exec(headers.get('authorization') ?? '')?.[1];
      if (token === undefined || !(await verifyToken(tokenSecrets, token, id, 'media'))) {
        throw new TabreelError('unauthorized', "the media socket needs the recording's credential in Authorization: Bearer");
      }
      const attempt = numberIn(headers, ATTEMPT_HEADER);
      if (attempt === null) throw new TabreelError('invalid_request', `${ATTEMPT_HEADER} must be the attempt's number`);
      const admission = { id, attempt, dial: numberIn(headers, DIAL_HEADER) ?? 0, acked: numberIn(headers, ACKED_HEADER) ?? 0, fenced: false };
      let record: RecordingRecord | null;
      try {
        record = await store.get(id);
      } catch (error) {
        if (!(await verifyAttemptToken(tokenSecrets, headers.get(ATTEMPT_TOKEN_HEADER) ?? '', id, attempt))) throw error;
        log.warn('media socket is admitted by its token', { recording: id, attempt, error });
        return admission;
      }
      if (record === null || record.desired === 'deleted') throw new TabreelError('recording_not_found', `there is no recording ${id}`);
      if (isEnd(record.state)) throw new TabreelError('live_over', `the recording is ${record.state}`);
      if (record.attempt < attempt) {
        throw new TabreelError('invalid_request', `${ATTEMPT_HEADER} is ${attempt}, the recording is at attempt ${record.attempt}`);
      }
      return { ...admission, fenced: record.attempt > attempt };
    },

    /**
     * Takes over a socket that was admitted. Messages that come before it resolves must be kept by the caller.
     * @returns null where a newer socket or attempt is there already: it is closed then
     */
    async accept({ id, attempt, dial, acked: known }: Admission, socket: MediaSocket): Promise<MediaConnection | null> {
      const connectionLog = log.with({ recording: id, attempt, dial });
      const refuse = (name: CloseName, reason: string): null => {
        connectionLog.info('media socket refused', { reason: name, detail: reason });
        socket.close(closeCodes[name].code, reason);
        return null;
      };
      const token = await attemptToken(id, attempt);
      const stored = await live.attach(id);
      let before: readonly StoredPart[];
      do {
        for (let older = open.get(id); older; older = open.get(id)) {
          // connections may overtake each other on their way
          if (compareSockets(older, { attempt, dial }) > 0) {
            stored.detach();
            return older.attempt > attempt ? refuse('fenced', 'a newer attempt owns the recording') : refuse('goingAway', 'a newer socket is open');
          }
          older.connection.end('goingAway', 'another socket took over');
          // what it was storing counts among what the new one need not send
          await Promise.race([older.connection.settled, sleep(SETTLE_MS, undefined, { ref: false })]);
        }
        // those that were there before the seal is looked for, and none that came behind it
        before = [...stored.parts()];
        const sealed = await isSealed(storage, id).catch((error: unknown) => {
          stored.detach();
          throw error;
        });
        if (sealed) {
          stored.detach();
          return refuse('over', FILE_IS_MADE);
        }
        // another socket may have come meanwhile
      } while (open.has(id));
      // with Redis away, what is stored tells of a newer attempt too
      if (stored.parts().some((part) => part.attempt > attempt)) {
        stored.detach();
        return refuse('fenced', 'a newer attempt owns the recording');
      }
      const acked = lastContiguous(before, attempt, known);
      const missing = known - before.filter((part) => part.attempt === attempt && part.seq <= known).length;
      if (missing > 0) {
        connectionLog.error('parts that were acknowledged are not in this storage', { acked: known, missing });
        store.warn(id, 'media_elsewhere', 'Media that was stored by one edge is not seen by another: all edges that take media need the same storage').catch(() => undefined);
      }
      const has = (seq: number) => stored.parts().some((part) => part.seq === seq && part.attempt === attempt);

      const unwatch = watch.recording(id, hear);
      const renewal = setInterval(() => void attemptToken(id, attempt).then((newer) => connection.renew(newer)), TOKEN_RENEW_MS);
      let checkAgain: NodeJS.Timeout | undefined;
      let gone = false;
      onOpened(acked > 0);
      const connection = createMediaConnection({
        socket,
        acked,
        token,
        log: connectionLog,
        async store({ header, payload }) {
          // an older socket's last part may have been stored since the welcome
          const had = has(header.seq);
          const name = partName(attempt, header);
          const written = !had && (await put(partKey(id, name), payload));
          // looked for after it was stored: then it is in the file, or not acknowledged
          if (await isSealed(storage, id)) throw new TabreelError('live_over', FILE_IS_MADE);
          const part = had ? null : parsePartName(name);
          if (part) stored.add(part);
          if (written) onStored(header.type, payload.length);
        },
        onGone(code) {
          gone = true;
          onClosed(code);
          unwatch();
          clearInterval(renewal);
          clearTimeout(checkAgain);
          stored.detach();
          if (open.get(id)?.connection === connection) open.delete(id);
          settling.add(connection.settled);
          void connection.settled.then(() => settling.delete(connection.settled));
        },
      });
      open.set(id, { attempt, dial, connection });

      function hear(kind: string) {
        const other = parseSocketSignal(kind);
        if (other !== null) {
          if (other.edge === self) return;
          const order = compareSockets({ attempt, dial }, other);
          if (order > 0) announce();
          else connection.end(other.attempt > attempt ? 'fenced' : 'goingAway', 'a socket at another edge took over');
        } else if (kind !== 'stats' && kind !== 'log') {
          // signals of other edges may have been lost as well
          if (kind === 'lost') announce();
          void check();
        }
      }
      // other edges may hold an older socket, which they can't know to be dead
      function announce() {
        store.signal(id, socketSignal({ attempt, dial, edge: self })).catch((error: unknown) => connectionLog.debug('other edges are not told', { error }));
      }
      // told by Redis at each change; without Redis the socket goes on, and this is caught up when it is back
      async function check() {
        clearTimeout(checkAgain);
        const record = await store.get(id).catch(() => undefined);
        if (gone) return;
        if (record === undefined) checkAgain = setTimeout(() => void check(), CHECK_AGAIN_MS);
        const verdict = record === undefined ? null : verdictOn(record, attempt);
        if (verdict) connection.end(...verdict);
      }
      announce();
      void check();
      return connection;
    },

    /** @returns whether there was one */
    end(id: string, name: CloseName, reason: string): boolean {
      const found = open.get(id);
      found?.connection.end(name, reason);
      return found !== undefined;
    },

    /** Closes every socket; resolves once what was being stored is. */
    async close(): Promise<void> {
      for (const { connection } of open.values()) connection.end('goingAway', 'the edge is leaving');
      await Promise.all(settling);
    },
  };
}

/** A header that is a number from 1, if it is one. */
function numberIn(headers: Headers, name: string): number | null {
  const value = headers.get(name) ?? '';
  return /^[1-9]\d{0,8}$/.test(value) ? Number(value) : null;
}

function verdictOn(record: RecordingRecord | null, attempt: number): [CloseName, string] | null {
  if (record === null || record.desired === 'deleted') return ['over', 'the recording was deleted'];
  if (record.desired === 'canceled') return ['over', 'the recording was canceled'];
  if (record.attempt > attempt) return ['fenced', `attempt ${record.attempt} owns the recording`];
  if (isEnd(record.state)) return ['over', `the recording is ${record.state}`];
  return null;
}
