/** One signalling socket with an Ant Media Server: dial, messages as JSON text, heartbeat. What is said over it is push.ts's. */
import type { SecureContext } from 'node:tls';
import type { RawData, WebSocket } from 'ws';
import { z } from 'zod';
import { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import { assertLiteral, judgedLookup, OutboundDenied, type Lookup } from '../../shared/outbound/judge.ts';
import type { Judge } from '../../shared/outbound/policy.ts';
import { dialSocket, hostOf } from '../sink/media-dial.ts';
import { dialCause, timeoutCause } from '../sink/media-socket-causes.ts';

const text = z.string();

/** What is understood of a message; a server may say more. */
const serverMessage = z.object({
  command: text,
  streamId: text.nullish(),
  definition: text.nullish(),
  type: text.nullish(),
  sdp: text.nullish(),
  candidate: text.nullish(),
  label: z.number().int().nullish(),
  id: text.nullish(),
  stunServerUri: text.nullish(),
  turnServerUsername: text.nullish(),
  turnServerCredential: text.nullish(),
});
export type ServerMessage = z.infer<typeof serverMessage>;

export type SignallingTimes = {
  /** Milliseconds for all of a dial. */
  handshake: number;
  /** Between two pings; a socket that says nothing for three of them is dead. */
  ping: number;
};

export type SignallingEvents = {
  open(): void;
  message(message: ServerMessage): void;
  /** Once, at the end, also where the dial failed. */
  closed(error: TabreelError): void;
};

export type Signalling = {
  send(message: Readonly<Record<string, unknown>>): void;
  /** Closes in good order, or cuts where that takes too long. */
  close(): void;
  terminate(): void;
};

export type SignallingTarget = {
  url: string;
  /** Null for `ws://`. */
  trust: SecureContext | null;
  /** Asked for all addresses that the host has. */
  judge: Judge;
  lookup: Lookup;
};

const forbidden = ({ message }: OutboundDenied) => new TabreelError('push_forbidden', message);

/** Dials at once. The URL must be parseable. */
export function connectSignalling({ url, trust, judge, lookup }: SignallingTarget, times: SignallingTimes, log: Log, events: SignallingEvents): Signalling {
  const host = hostOf(url);
  const { hostname, port: givenPort, protocol } = new URL(url);
  const port = Number(givenPort || (protocol === 'wss:' ? 443 : 80));
  let ws: WebSocket | null = null;
  let over = false;
  let why: TabreelError | null = null;
  let heartbeat: NodeJS.Timeout | undefined;
  let limit: NodeJS.Timeout | undefined;

  const end = (error: TabreelError) => {
    if (over) return;
    over = true;
    clearInterval(heartbeat);
    clearTimeout(limit);
    events.closed(error);
  };
  const send: Signalling['send'] = (message) => {
    if (ws?.readyState === ws?.OPEN) ws?.send(JSON.stringify(message));
  };
  const begin = () => {
    const dial = dialSocket(url, trust, { protocols: [], headers: {}, maxPayload: 1024 * 1024, lookup: judgedLookup(judge, hostname, port, lookup) });
    const socket = dial.ws;
    ws = socket;
    limit = setTimeout(() => {
      why = new TabreelError('push_unreachable', timeoutCause(dial.stage(), host, times.handshake).what);
      socket.terminate();
    }, times.handshake);
    socket.on('open', () => {
      clearTimeout(limit);
      log.info('push signalling is open', { host, tls: dial.secured() });
      let silent = 0;
      socket.on('message', () => (silent = 0));
      heartbeat = setInterval(() => {
        if (silent >= 3) {
          why = new TabreelError('push_unreachable', `${host}: it was silent for ${(silent * times.ping) / 1000} s, pings were not answered`);
          return socket.terminate();
        }
        silent += 1;
        send({ command: 'ping' });
      }, times.ping);
      events.open();
    });
    socket.on('message', (data: RawData) => {
      const message = serverMessage.safeParse(jsonOf(data));
      if (!message.success) log.warn('the push target said something that is not understood');
      else if (!over) events.message(message.data);
    });
    socket.on('unexpected-response', (_request, response) => {
      response.destroy();
      why = new TabreelError('push_unreachable', `${host} answered the WebSocket upgrade with HTTP status ${response.statusCode}`);
      socket.terminate();
    });
    socket.on('error', (error) => {
      if (error instanceof OutboundDenied) return void (why ??= forbidden(error));
      const { code, what } = dialCause(error, host, dial.stage(), dial.shown());
      why ??= new TabreelError(code.startsWith('media_tls') ? 'push_tls' : 'push_unreachable', what);
    });
    socket.on('close', (code) => end(why ?? new TabreelError('push_unreachable', `${host}: the signalling socket was closed${code === 1006 ? '' : ` with ${code}`}`)));
  };
  // net asks for names only
  assertLiteral(judge, hostname, port).then(
    () => over || begin(),
    (error: unknown) => end(error instanceof OutboundDenied ? forbidden(error) : new TabreelError('push_unreachable', `${host}: ${String(error)}`)),
  );

  return {
    send,
    close() {
      over ||= ws === null;
      ws?.close(1000);
      setTimeout(() => ws?.terminate(), 1000).unref();
    },
    terminate() {
      // not dialled yet: it won't be
      over ||= ws === null;
      ws?.terminate();
    },
  };
}

function jsonOf(data: RawData): unknown {
  try {
    return JSON.parse((Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer)).toString());
  } catch {
    return undefined;
  }
}
