/** The recordings' way in: who may open a media socket, and which of them are open. */
import { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import { ATTEMPT_HEADER, type PartHeader } from '../../shared/media-protocol.ts';
import { isEnd } from '../../shared/recording.ts';
import type { RecordingRecord, RecordingStore } from '../../shared/recording-store.ts';
import { verifyToken } from '../../shared/token.ts';
import { lastContiguous, parsePartName, partKey, partName } from '../storage/part-names.ts';
import type { Storage } from '../storage/storage.ts';
import type { Watch } from '../watch.ts';
import { createMediaConnection, type CloseName, type MediaConnection, type MediaSocket } from './connection.ts';
import type { LiveParts } from './live.ts';

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

/** @property fenced a newer attempt owns the recording: the socket is opened only to be told so */
export type Admission = { id: string; attempt: number; fenced: boolean };
export type Ingest = ReturnType<typeof createIngest>;

export function createIngest({ log, store, storage, live, watch, tokenSecrets, onStored, onOpened, onClosed }: IngestOptions) {
  /** One open socket at most for each recording: the newest. */
  const open = new Map<string, MediaConnection>();
  const settling = new Set<Promise<void>>();

  return {
    openSockets: () => open.size,

    /**
     * Whether this upgrade may become a media socket.
     *
     * @throws {TabreelError} with the status to answer: 400, 401, 404, 410; errors of Redis as they are
     */
    async admit(id: string, headers: Headers): Promise<Admission> {
      const token = /^Bearer +(\S+)$/i.exec(headers.get('authorization') ?? '')?.[1];
      if (token === undefined || !(await verifyToken(tokenSecrets, token, id, 'media'))) {
        throw new TabreelError('unauthorized', "the media socket needs the recording's credential in Authorization: Bearer");
      }
      const attempt = headers.get(ATTEMPT_HEADER) ?? '';
      if (!/^[1-9]\d{0,5}$/.test(attempt)) throw new TabreelError('invalid_request', `${ATTEMPT_HEADER} must be the attempt's number`);
      const record = await store.get(id);
      if (record === null || record.desired === 'deleted') throw new TabreelError('recording_not_found', `there is no recording ${id}`);
      if (isEnd(record.state)) throw new TabreelError('live_over', `the recording is ${record.state}`);
      if (record.attempt < Number(attempt)) {
        throw new TabreelError('invalid_request', `${ATTEMPT_HEADER} is ${attempt}, the recording is at attempt ${record.attempt}`);
      }
      return { id, attempt: Number(attempt), fenced: record.attempt > Number(attempt) };
    },

    /** Takes over a socket that was admitted. Messages that come before it resolves must be kept by the caller. */
    async accept({ id, attempt }: Admission, socket: MediaSocket): Promise<MediaConnection> {
      const connectionLog = log.with({ recording: id, attempt });
      const stored = await live.attach(id);
      for (let before = open.get(id); before; before = open.get(id)) {
        before.end('goingAway', 'another socket took over');
        // what it was storing counts among what the new one need not send
        await before.settled;
      }
      const unwatch = watch.recording(id, (kind) => {
        if (kind !== 'stats' && kind !== 'log') void check();
      });
      const acked = lastContiguous(stored.parts(), attempt);
      onOpened(acked > 0);
      const connection = createMediaConnection({
        socket,
        acked,
        log: connectionLog,
        async store({ header, payload }) {
          const name = partName(attempt, header);
          await storage.put(partKey(id, name), payload);
          const part = parsePartName(name);
          if (part) stored.add(part);
          onStored(header.type, payload.length);
        },
        onGone(code) {
          onClosed(code);
          unwatch();
          stored.detach();
          if (open.get(id) === connection) open.delete(id);
          settling.add(connection.settled);
          void connection.settled.then(() => settling.delete(connection.settled));
        },
      });
      open.set(id, connection);

      // told by Redis at each change; without Redis the socket goes on, and this is caught up when it is back
      async function check() {
        const record = await store.get(id).catch(() => undefined);
        const verdict = record === undefined ? null : verdictOn(record, attempt);
        if (verdict) connection.end(...verdict);
      }
      void check();
      return connection;
    },

    /** @returns whether there was one */
    end(id: string, name: CloseName, reason: string): boolean {
      const found = open.get(id);
      found?.end(name, reason);
      return found !== undefined;
    },

    /** Closes every socket; resolves once what was being stored is. */
    async close(): Promise<void> {
      for (const connection of open.values()) connection.end('goingAway', 'the edge is leaving');
      await Promise.all(settling);
    },
  };
}

function verdictOn(record: RecordingRecord | null, attempt: number): [CloseName, string] | null {
  if (record === null || record.desired === 'deleted') return ['over', 'the recording was deleted'];
  if (record.attempt > attempt) return ['fenced', `attempt ${record.attempt} owns the recording`];
  if (isEnd(record.state)) return ['over', `the recording is ${record.state}`];
  return null;
}
