/** One media socket from its welcome to its end. Knows neither the WebSocket library nor where parts are stored. */
import { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import { closeCodes, decodePart, MISSED_PINGS, PING_MS, type IngestMessage, type Part } from '../../shared/media-protocol.ts';

/** The little of a WebSocket that is needed here. */
export type MediaSocket = {
  send(text: string): void;
  close(code: number, reason: string): void;
  /** Stops reading, so that the sender's own queue grows and not ours. */
  pause(): void;
  resume(): void;
  ping(): void;
  /** Ends it without a handshake. */
  terminate(): void;
};

/** Bytes received and not yet stored, above which nothing more is read. One more message may still come. */
const MAX_WAITING_BYTES = 16 * 1024 * 1024;

/** A close reason has at most 123 bytes (RFC 6455, 5.5.1), and may repeat what came, in any script. */
const REASON_BYTES = 123;

/** As much of a text as fits, in UTF-8. */
function inBytes(text: string, most: number): string {
  const bytes = new Uint8Array(most);
  return text.slice(0, new TextEncoder().encodeInto(text, bytes).read);
}

export type CloseName = keyof typeof closeCodes;

export type MediaConnection = {
  message(data: Uint8Array, binary: boolean): void;
  pong(): void;
  /** The socket is gone. */
  gone(code: number): void;
  /** Gives the worker a newer attempt token. */
  renew(token: string): void;
  /** Ends it from our side. */
  end(name: CloseName, reason: string): void;
  /** Resolves once nothing is being stored any more. */
  readonly settled: Promise<void>;
};

export type MediaConnectionOptions = {
  socket: MediaSocket;
  /** Last part of this attempt that is stored. */
  acked: number;
  /** Attempt token for the welcome. */
  token: string;
  /** Resolves once the part is durable. @throws {TabreelError} `storage_full`, `live_over` */
  store(part: Part): Promise<void>;
  /** @param code 1006 where the socket was cut. */
  onGone(code: number): void;
  log: Log;
};

export function createMediaConnection({ socket, acked, token, store, onGone, log }: MediaConnectionOptions): MediaConnection {
  const waiting: Part[] = [];
  let waitingBytes = 0;
  let received = acked;
  let storedBytes = 0;
  let paused = false;
  let closed = false;
  let storing = false;
  let missedPongs = 0;
  const settled = Promise.withResolvers<void>();

  const say = (message: IngestMessage) => {
    if (!closed) socket.send(JSON.stringify(message));
  };
  const shut = () => {
    closed = true;
    clearInterval(heartbeat);
    waiting.length = 0;
    if (!storing) settled.resolve();
  };
  const end = (name: CloseName, reason: string) => {
    if (closed) return;
    shut();
    // a paused socket would not read the other side's answer to the close
    if (paused) socket.resume();
    socket.close(closeCodes[name].code, inBytes(reason, REASON_BYTES));
    log.info('media socket closed', { reason: name, detail: reason, acked, storedBytes });
    onGone(closeCodes[name].code);
  };
  const heartbeat = setInterval(() => {
    // while we don't read we can't see pongs
    if (paused) return;
    if (missedPongs >= MISSED_PINGS) {
      log.warn('media socket is dead', { acked });
      socket.terminate();
      return;
    }
    missedPongs += 1;
    socket.ping();
  }, PING_MS);

  async function storeWaiting() {
    if (storing) return;
    storing = true;
    try {
      for (let part = waiting[0]; part !== undefined && !closed; part = waiting[0]) {
        await store(part);
        waiting.shift();
        waitingBytes -= part.payload.length;
        storedBytes += part.payload.length;
        acked = part.header.seq;
        say({ type: 'ack', seq: acked });
        if (paused && waitingBytes < MAX_WAITING_BYTES / 2 && !closed) {
          paused = false;
          missedPongs = 0;
          socket.resume();
        }
      }
    } catch (error) {
      const code = error instanceof TabreelError ? error.code : null;
      if (code === 'live_over') return end('over', (error as TabreelError).message);
      const full = code === 'storage_full';
      log.error('a part could not be stored', { seq: acked + 1, error });
      end(full ? 'storageFull' : 'internal', full ? 'the storage is full' : 'the part could not be stored');
    } finally {
      storing = false;
      if (closed) settled.resolve();
    }
  }

  say({ type: 'welcome', acked, token });
  log.info('media socket open', { acked });

  return {
    settled: settled.promise,
    renew: (newer) => say({ type: 'token', token: newer }),
    end,
    pong() {
      missedPongs = 0;
    },
    gone(code) {
      if (closed) return;
      shut();
      log.info('media socket gone', { code, acked, storedBytes });
      onGone(code);
    },
    message(data, binary) {
      if (closed) return;
      missedPongs = 0;
      let part: Part;
      try {
        if (!binary) throw new TypeError('a part is a binary message');
        part = decodePart(data);
      } catch (error) {
        return end('malformed', error instanceof Error ? error.message : 'not a part');
      }
      const { seq } = part.header;
      // sent again after a reconnect; what is stored says so at once, what still waits will be acknowledged in its turn
      if (seq <= acked) return say({ type: 'ack', seq });
      if (seq <= received) return;
      if (seq !== received + 1) return end('malformed', `part ${seq} follows part ${received}`);
      if (part.header.type !== 'end' && part.payload.length === 0) return end('malformed', `part ${seq} is empty`);
      received = seq;
      waiting.push(part);
      waitingBytes += part.payload.length;
      if (waitingBytes > MAX_WAITING_BYTES && !paused) {
        paused = true;
        socket.pause();
      }
      void storeWaiting();
    },
  };
}
