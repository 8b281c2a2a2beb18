/** One signalling socket with an Ant Media Server: dial, messages as JSON text, heartbeat. What is said over it is push.ts's. */
import type { LookupAddress } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import type { SecureContext } from 'node:tls';
import type { RawData } from 'ws';
import { z } from 'zod';
import { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import { dialSocket, hostOf } from '../sink/media-dial.ts';
import { dialCause, timeoutCause } from '../sink/media-socket-causes.ts';
import { resolveAll, type Lookup } from './addresses.ts';

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
  /** Asked for every address that the host has; one that is refused is enough. */
  mayDial(address: string, port: number): boolean;
  lookup: Lookup;
};

/** Marks an address that may not be dialled. */
const DENIED = 'DENIED';

/** Dials at once. The URL must be parseable. */
export function connectSignalling({ url, trust, mayDial, lookup }: SignallingTarget, times: SignallingTimes, log: Log, events: SignallingEvents): Signalling {
  const host = hostOf(url);
  const { hostname, port: givenPort, protocol } = new URL(url);
  const port = Number(givenPort || (protocol === 'wss:' ? 443 : 80));
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
  const forbidden = (address: string) => new TabreelError('push_forbidden', `${host} is ${address}, which may not be dialled`);

  // net asks for names only, and dials what it is given here
  const judged: LookupFunction = (name, _options, callback) => {
    resolveAll(name, lookup).then(
      (addresses) => {
        const refused = addresses.find((address) => !mayDial(address, port));
        if (refused !== undefined) {
          why = forbidden(refused);
          return callback(Object.assign(new Error(DENIED), { code: DENIED }), []);
        }
        if (addresses.length === 0) return callback(Object.assign(new Error('no address'), { code: 'ENOTFOUND' }), []);
        callback(null, addresses.map((address): LookupAddress => ({ address, family: isIP(address) })));
      },
      (error: NodeJS.ErrnoException) => callback(error, []),
    );
  };

  const literal = hostname.replace(/^\[(.*)\]$/, '$1');
  if (isIP(literal) !== 0 && !mayDial(literal, port)) {
    queueMicrotask(() => end(forbidden(literal)));
    return { send: () => undefined, close: () => undefined, terminate: () => undefined };
  }

  const dial = dialSocket(url, trust, { protocols: [], headers: {}, maxPayload: 1024 * 1024, lookup: judged });
  const { ws } = dial;
  limit = setTimeout(() => {
    why = new TabreelError('push_unreachable', timeoutCause(dial.stage(), host, times.handshake).what);
    ws.terminate();
  }, times.handshake);

  const send: Signalling['send'] = (message) => {
    if (ws.readyState === ws.OPEN) ws.send(JSON.stringify(message));
  };
  ws.on('open', () => {
    clearTimeout(limit);
    log.info('push signalling is open', { host, tls: dial.secured() });
    let silent = 0;
    ws.on('message', () => (silent = 0));
    heartbeat = setInterval(() => {
      if (silent >= 3) {
        why = new TabreelError('push_unreachable', `${host}: it was silent for ${(silent * times.ping) / 1000} s, pings were not answered`);
        return ws.terminate();
      }
      silent += 1;
      send({ command: 'ping' });
    }, times.ping);
    events.open();
  });
  ws.on('message', (data: RawData) => {
    const message = serverMessage.safeParse(jsonOf(data));
    if (!message.success) log.warn('the push target said something that is not understood');
    else if (!over) events.message(message.data);
  });
  ws.on('unexpected-response', (_request, response) => {
    response.destroy();
    why = new TabreelError('push_unreachable', `${host} answered the WebSocket upgrade with HTTP status ${response.statusCode}`);
    ws.terminate();
  });
  ws.on('error', (error) => {
    const { code, what } = dialCause(error, host, dial.stage(), dial.shown());
    why ??= new TabreelError(code.startsWith('media_tls') ? 'push_tls' : 'push_unreachable', what);
  });
  ws.on('close', (code) => end(why ?? new TabreelError('push_unreachable', `${host}: the signalling socket was closed${code === 1006 ? '' : ` with ${code}`}`)));

  return {
    send,
    close() {
      ws.close(1000);
      setTimeout(() => ws.terminate(), 1000).unref();
    },
    terminate: () => ws.terminate(),
  };
}

function jsonOf(data: RawData): unknown {
  try {
    return JSON.parse((Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer)).toString());
  } catch {
    return undefined;
  }
}
