/**
 * A stand-in for an Ant Media Server, as a publisher sees it: its signalling word by word, silences included, its REST call for
 * recording, and libwebrtc behind them. What arrives is kept as it came.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttpServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketServer, type WebSocket } from 'ws';
import { clear, createRelay, type Network, type Relay } from './relay.ts';
import { timelines, writeReceived, type Timing } from './received-file.ts';
import { startReceiver, type ArrivedFrame, type Peer, type Receiver, type SenderReport } from './receiver.ts';
import { isStreamId, isTakenSdp, serverMessages, type ErrorDefinition, type Message } from './signalling.ts';

export type { ArrivedFrame, SenderReport } from './receiver.ts';
export type { Network } from './relay.ts';
export { errorDefinitions, type ErrorDefinition } from './signalling.ts';

/** How far a publish has come. */
export type Moment = 'open' | 'publish' | 'start' | 'offer' | 'answer' | 'publish_started' | 'connected' | 'media';

export type NetworkFaults = Partial<Network> & { up?: Partial<Network>; down?: Partial<Network> };

/** What goes wrong. May be changed at any time; each is read when its time has come. */
export interface Faults {
  /** The WebSocket handshake is answered with this status instead. */
  handshake: number | null;
  /** This error answers `publish`, in place of `start`. */
  publishError: ErrorDefinition | null;
  /** This error comes so long after a moment, once for each publish; the stream ends with it where `ends` is true. */
  laterError: { definition: ErrorDefinition; at: Moment; after?: number; ends?: boolean } | null;
  /** `start` comes so many ms late, or never. */
  start: number | 'never';
  /** The answer, and the candidates with it, come so many ms late, or never. */
  answer: number | 'never';
  /** Candidates come before the answer that they belong to. */
  candidatesFirst: boolean;
  pong: boolean;
  /** The socket is closed so many ms after a moment: with a code, or by a reset without a closing handshake. */
  close: { at: Moment; after?: number; how?: number | 'reset' } | null;
  /** `dead`: its candidates lead nowhere, to ports that take packets and answer none. */
  ice: 'works' | 'dead';
  /** A stream's id stays in use so many ms after its socket was lost. */
  holdsId: number;
  /** The REST calls answer with this status. */
  rest: number | null;
  /** What UDP packets meet; `up` is towards the server, and goes before what both have. */
  network: NetworkFaults;
}

export const noFaults: Readonly<Faults> = {
  handshake: null,
  publishError: null,
  laterError: null,
  start: 0,
  answer: 0,
  candidatesFirst: false,
  pong: true,
  close: null,
  ice: 'works',
  holdsId: 0,
  rest: null,
  network: {},
};

/** A request as it came in, behind whatever proxies. */
export interface SeenRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly host: string | null;
  /** The X-Forwarded-* headers and Forwarded, by their names in lower case. */
  readonly forwarded: Readonly<Record<string, string>>;
  readonly headers: IncomingHttpHeaders;
  /** In ms since 1970. */
  readonly at: number;
  /** What it was answered: 101 for a socket. */
  status: number;
}

export interface LoggedMessage {
  readonly at: number;
  readonly from: 'client' | 'server';
  /** Number of the socket, from 1. */
  readonly socket: number;
  /** What was sent, parsed; the text itself where it isn't JSON. */
  readonly message: Message | string;
  /** Why the server took no notice. */
  ignored?: string;
}

export interface RestCall {
  readonly at: number;
  readonly streamId: string;
  readonly recording: boolean;
  readonly recordType: string | null;
  readonly url: string;
  readonly answer: Message;
}

/** One publish, from `start` on. */
export interface Session {
  readonly streamId: string;
  /** Number of the socket. */
  readonly socket: number;
  readonly publish: Message;
  readonly startedAt: number;
  /** The offer and the answer, as sent. */
  readonly offer: string | null;
  readonly answer: string | null;
  /** The publisher's candidates. They are not used, all its packets come over the relay. */
  readonly candidates: readonly string[];
  readonly iceStates: readonly RTCIceConnectionState[];
  readonly endedAt: number | null;
  readonly ended: 'stop' | 'socket' | 'ice' | 'error' | 'server' | null;
  readonly video: readonly ArrivedFrame[];
  readonly audio: readonly ArrivedFrame[];
  /** Of its own sources. */
  readonly senderReports: readonly SenderReport[];
  /** What this one's packets meet, in place of the server's `faults.network`; null, as it begins, for that. */
  network: NetworkFaults | null;
  readonly relay: Relay['counts'];
  /** How sound and picture stand to each other in `received`. */
  timing(): { video: Timing; audio: Timing };
  /** The receiver's inbound-rtp statistics (packetsLost, pliCount, nackCount, framesDecoded, ...); null before any. */
  stats(kind: 'audio' | 'video'): Promise<Record<string, any> | null>;
  /** Sends a PLI. */
  askForKeyFrame(): Promise<void>;
}

export interface AntMediaStream {
  readonly streamId: string;
  /** Every publish of it, oldest first. */
  readonly sessions: readonly Session[];
  /** Video frames of the latest session. */
  readonly frames: readonly ArrivedFrame[];
  /** Opus packets of the latest session. */
  readonly audio: readonly ArrivedFrame[];
}

export interface AntMediaOptions {
  faults?: Partial<Faults>;
  /** Certificate and key in PEM: https and wss. */
  tls?: { cert: string; key: string };
  /** Default LiveApp. */
  app?: string;
  /** TCP port on 127.0.0.1; default any free one. */
  port?: number;
  /** What answers getIceServerConfig. By default no servers; null is the Community edition, which knows no such command. */
  iceServerConfig?: { stunServerUri: string; turnServerUsername?: string; turnServerCredential?: string } | null;
  /** Who publishes without this token is answered unauthorized_access. */
  token?: string;
  /** Of what the network loses; default 1. */
  seed?: number;
  /** One that is shared, and ends with whoever started it; by default one of its own, which takes a browser and about a second. */
  receiver?: Receiver;
  /** One line an event. */
  log?: (line: string) => void;
}

export interface AntMedia extends AsyncDisposable {
  /** ws://127.0.0.1:port, or wss:// with TLS. */
  readonly url: string;
  /** Where a publisher dials: `url`, the application and /websocket. */
  readonly websocketUrl: string;
  readonly port: number;
  readonly app: string;
  readonly faults: Faults;
  /** Each handshake and each other request, oldest first. */
  readonly requests: readonly SeenRequest[];
  readonly messages: readonly LoggedMessage[];
  readonly restCalls: readonly RestCall[];
  readonly streams: ReadonlyMap<string, AntMediaStream>;
  /** Resolves with the condition's first truthy value; looks every 20 ms. @throws after `milliseconds`, 10 s by default, naming the last messages */
  until<T>(what: string, condition: () => T, milliseconds?: number): Promise<NonNullable<T>>;
  /** An MP4 file of what arrived in a session, by default the last one. It goes with the server. @throws where there is nothing to play */
  received(streamId: string, session?: number): Promise<string>;
  /** An error to whoever publishes this stream. @throws where nobody does */
  sendError(streamId: string, definition: ErrorDefinition): void;
  /** Closes every socket: with a code, or by a reset. Default 1001. */
  closeSockets(how?: number | 'reset'): void;
  /** Says `server_will_stop` on every socket, and closes them so many ms later, default 200. */
  willStop(after?: number): Promise<void>;
  /** Ends everything that is under way and listens on the same port again, after `away` ms; 0 by default. What arrived is kept. */
  restart(away?: number): Promise<void>;
  close(): Promise<void>;
}

export async function startAntMedia(options: AntMediaOptions = {}): Promise<AntMedia> {
  const { app = 'LiveApp', tls, log = () => undefined, seed = 1, token } = options;
  const iceServerConfig = options.iceServerConfig === undefined ? { stunServerUri: '' } : options.iceServerConfig;
  await using stack = new AsyncDisposableStack();
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-antmedia-files-'));
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  const receiver = options.receiver ?? stack.use(await startReceiver());

  const faults: Faults = { ...noFaults, ...options.faults };
  const requests: SeenRequest[] = [];
  const messages: LoggedMessage[] = [];
  const restCalls: RestCall[] = [];
  const streams = new Map<string, Omit<AntMediaStream, 'sessions'> & { sessions: LiveSession[] }>();
  const clients = new Map<WebSocket, Client>();
  const held = new Map<string, number>();
  const recorded = new Map<string, Set<string>>();
  let socketCount = 0;
  let relayCount = 0;
  let closed = false;

  const networkOf = (direction: 'up' | 'down', session: LiveSession): Network => {
    const { up, down, ...both } = session.network ?? faults.network;
    return { ...clear, ...both, ...(direction === 'up' ? up : down) };
  };

  const send = ({ number, socket }: Client, message: Message) => {
    if (socket.readyState !== socket.OPEN) return;
    messages.push({ at: Date.now(), from: 'server', socket: number, message });
    log(`${number} < ${JSON.stringify(message).slice(0, 200)}`);
    socket.send(JSON.stringify(message));
  };
  const closeSocket = ({ socket }: Client, how: number | 'reset') => {
    if (how === 'reset') (socket as unknown as { _socket: { resetAndDestroy(): void } })._socket.resetAndDestroy();
    else socket.close(how);
  };

  /** Where faults that wait for a moment come in: once for each publish, `open` once for each socket. */
  const reach = (client: Client, moment: Moment, session: LiveSession | null = null) => {
    if (session !== null && (session.ended !== null || session.reached.has(moment))) return;
    session?.reached.add(moment);
    const { close, laterError } = faults;
    if (close?.at === moment) later(close.after, () => closeSocket(client, close.how ?? 1001));
    if (laterError?.at === moment) {
      later(laterError.after, () => {
        send(client, serverMessages.error(laterError.definition, session?.streamId));
        if (laterError.ends !== false && session) end(session, 'error');
      });
    }
  };
  const later = (after: number | undefined, act: () => void) => {
    if (after === undefined || after === 0) act();
    else setTimeout(act, after).unref();
  };

  const end = (session: LiveSession, ended: NonNullable<Session['ended']>) => {
    if (session.ended !== null) return;
    session.ended = ended;
    session.endedAt = Date.now();
    log(`${session.streamId} ended: ${ended}`);
    send(session.client, serverMessages.publishFinished(session.streamId));
    if (ended === 'socket' && faults.holdsId > 0) held.set(session.streamId, Date.now() + faults.holdsId);
    session.client.sessions.delete(session.streamId);
    session.closing = (async () => {
      // what has arrived by now is still handed over
      await session.peer?.flush().catch(() => undefined);
      await session.peer?.close();
      await session.relayPath[Symbol.asyncDispose]();
    })();
  };

  const publish = async (client: Client, message: Message, streamId: string) => {
    const refuse = (definition: ErrorDefinition) => send(client, serverMessages.error(definition, streamId));
    if (faults.publishError) return refuse(faults.publishError);
    if (client.sessions.has(streamId)) return refuse('already_publishing');
    const others = [...clients.values()].some(({ sessions }) => sessions.has(streamId));
    if (others || (held.get(streamId) ?? 0) > Date.now()) return refuse('streamIdInUse');
    if (token !== undefined && message['token'] !== token) return refuse('unauthorized_access');
    const session = createSession(client, streamId, message);
    client.sessions.set(streamId, session);
    const stream = streams.get(streamId) ?? createStream(streamId);
    streams.set(streamId, stream);
    stream.sessions.push(session);
    reach(client, 'publish', session);
    session.opening = openPeer(session);
    await session.opening;
    if (faults.start === 'never') return undefined;
    if (faults.start > 0) await sleep(faults.start, undefined, { ref: false });
    if (session.ended !== null) return undefined;
    send(client, serverMessages.start(streamId));
    reach(client, 'start', session);
    return undefined;
  };

  const createStream = (streamId: string) => {
    const sessions: LiveSession[] = [];
    return {
      streamId,
      sessions,
      get frames() {
        return sessions.at(-1)?.video ?? [];
      },
      get audio() {
        return sessions.at(-1)?.audio ?? [];
      },
    };
  };

  const createSession = (client: Client, streamId: string, message: Message): LiveSession => {
    const dead = faults.ice === 'dead';
    // each has packets of its own to lose, the same in each run
    const relay = createRelay((direction) => (dead ? { ...clear, loss: 1 } : networkOf(direction, session)), seed + 1000 * (relayCount += 1));
    const session: LiveSession = {
      streamId,
      client,
      socket: client.number,
      publish: message,
      startedAt: Date.now(),
      offer: null,
      answer: null,
      candidates: [],
      iceStates: [],
      mediaStreams: new Set(),
      reached: new Set(),
      endedAt: null,
      ended: null,
      video: [],
      audio: [],
      network: null,
      relay: relay.counts,
      relayPath: relay,
      peer: null,
      opening: Promise.resolve(),
      closing: null,
      get senderReports() {
        const sources = new Set([session.video[0]?.source, session.audio[0]?.source]);
        return receiver.senderReports.filter(({ source }) => sources.has(source));
      },
      timing() {
        const { video, audio } = timelines({ video: session.video, audio: session.audio, reports: session.senderReports });
        return { video: video.timing, audio: audio.timing };
      },
      async stats(kind) {
        const all = (await session.peer?.stats()) ?? [];
        return all.find((each) => each['type'] === 'inbound-rtp' && each['kind'] === kind) ?? null;
      },
      async askForKeyFrame() {
        await session.peer?.askForKeyFrame();
      },
    };
    return session;
  };

  const openPeer = async (session: LiveSession): Promise<void> => {
    const { client, streamId } = session;
    const pending: (() => void)[] = [];
    let answered = false;
    const sendCandidate = (candidate: string, label: number, id: string) => {
      const say = () => {
        if (session.ended === null) send(client, serverMessages.candidate(streamId, label, id, candidate));
      };
      if (answered || faults.candidatesFirst) say();
      else pending.push(say);
    };
    session.peer = await receiver.open({
      track(_kind, ids) {
        // libwebrtc's onAddStream: once for each stream, none where the offer's tracks are in none
        for (const id of ids) {
          if (session.mediaStreams.has(id)) continue;
          session.mediaStreams.add(id);
          if (session.ended !== null) continue;
          send(client, serverMessages.publishStarted(streamId));
          reach(client, 'publish_started', session);
        }
      },
      async answer(sdp) {
        session.answer = sdp;
        const late = faults.answer;
        if (late === 'never') return;
        if (late > 0) await sleep(late, undefined, { ref: false });
        // for candidates to be there to come first
        if (faults.candidatesFirst) await sleep(200, undefined, { ref: false });
        if (session.ended !== null) return;
        send(client, serverMessages.answer(streamId, sdp));
        answered = true;
        for (const say of pending.splice(0)) say();
        reach(client, 'answer', session);
      },
      async candidate(candidate, label, id) {
        // candidate:<foundation> <component> <transport> <priority> <address> <port> typ ...
        const words = candidate.split(' ');
        if (words[4] !== '127.0.0.1') return;
        if (words[2] === 'udp') words[5] = String(await session.relayPath.to(Number(words[5])));
        sendCandidate(words.join(' '), label, id);
      },
      ice(state) {
        session.iceStates.push(state);
        log(`${streamId} ICE ${state}`);
        if (state === 'connected') reach(client, 'connected', session);
        if (state === 'disconnected' || state === 'failed' || state === 'closed') end(session, 'ice');
      },
      frame(kind, frame) {
        session[kind].push(frame);
        reach(client, 'media', session);
      },
    });
  };

  /** @returns why it took no notice, where it took none */
  const onMessage = async (client: Client, text: string): Promise<string | undefined> => {
    const message = parse(text);
    messages.push({ at: Date.now(), from: 'client', socket: client.number, message: message ?? text });
    log(`${client.number} > ${text.slice(0, 200)}`);
    if (message === null) return 'it is no JSON object';
    const { command, streamId } = message;
    if (command === undefined || command === null) return 'it has no command';
    if (typeof command !== 'string') return 'its command is no string';
    if (command === 'getIceServerConfig' && iceServerConfig !== null) {
      send(client, { command: 'iceServerConfig', turnServerUsername: '', turnServerCredential: '', ...iceServerConfig });
      return undefined;
    }
    if (streamId !== undefined && streamId !== null && typeof streamId !== 'string') return 'its streamId is no string';
    const id = streamId ?? '';
    if (id === '' && command !== 'ping') {
      send(client, serverMessages.error('noStreamNameSpecified'));
      return undefined;
    }
    if (!isStreamId(id)) {
      send(client, serverMessages.error('invalidStreamName', id));
      return undefined;
    }
    const session = client.sessions.get(id);
    switch (command) {
      case 'ping':
        if (faults.pong) send(client, serverMessages.pong());
        return undefined;
      case 'publish':
        if ('video' in message && typeof message['video'] !== 'boolean') return 'video is no boolean';
        await publish(client, message, id);
        return undefined;
      case 'takeConfiguration': {
        const { type, sdp } = message;
        if (typeof sdp !== 'string') return 'sdp is no string';
        if (!session) return 'nothing is published';
        await session.opening;
        session.offer = sdp;
        if (!isTakenSdp(sdp)) return 'the SDP is not taken';
        reach(client, 'offer', session);
        try {
          await session.peer?.offer(sdp, type === 'offer' ? 'offer' : 'answer');
        } catch (error) {
          return `the SDP is not taken: ${(error as Error).message}`;
        }
        return undefined;
      }
      case 'takeCandidate': {
        const { label, id: mid, candidate } = message;
        if (typeof label !== 'number' || !Number.isInteger(label) || !isWritten(text, 'label')) return 'label is no integer';
        if (mid !== undefined && mid !== null && typeof mid !== 'string') return 'id is no string';
        if (typeof candidate !== 'string') return 'candidate is no string';
        if (!session) return 'nothing is published';
        session.candidates.push(candidate);
        return undefined;
      }
      case 'stop':
        if (!session) return 'nothing is published';
        end(session, 'stop');
        return undefined;
      case 'play':
      case 'getStreamInfo':
        send(client, { command: 'error', error_code: '404', definition: 'no_stream_exist', streamId: id });
        return undefined;
      default:
        return 'it is no command of a publisher';
    }
  };

  const onSocket = (socket: WebSocket) => {
    const client: Client = { number: (socketCount += 1), socket, sessions: new Map() };
    clients.set(socket, client);
    log(`${client.number} opened`);
    socket.on('error', () => undefined);
    socket.on('message', (data) => {
      const at = messages.length;
      onMessage(client, (data as Buffer).toString()).then(
        (ignored) => {
          if (ignored === undefined) return;
          log(`${client.number} ignored: ${ignored}`);
          const logged = messages[at];
          if (logged) logged.ignored = ignored;
        },
        (error: unknown) => log(`${client.number} failed: ${String(error)}`),
      );
    });
    socket.on('close', () => {
      clients.delete(socket);
      log(`${client.number} closed`);
      for (const session of client.sessions.values()) end(session, 'socket');
    });
    reach(client, 'open');
  };

  const note = (request: IncomingMessage, status: number): SeenRequest => {
    const { method = '', url = '', headers } = request;
    const forwarded = Object.fromEntries(
      Object.entries(headers).flatMap(([name, value]) => (/^(x-forwarded-.*|forwarded|x-real-ip)$/.test(name) ? [[name, [value].flat().join(', ')]] : [])),
    );
    const seen = { method, url, host: headers.host ?? null, forwarded, headers, at: Date.now(), status };
    requests.push(seen);
    log(`${method} ${url} ${status}`);
    return seen;
  };

  /** BroadcastRestService.enableRecording, and what it calls. */
  const record = (streamId: string, recording: boolean, type: string | null): Message => {
    const recordType = type ?? 'mp4';
    if (!['mp4', 'webm'].includes(recordType) || !streams.has(streamId)) {
      return { success: false, message: `No stream for this id: ${streamId} or unexpected record type. Record type is ${type === null ? 'mp4' : type}`, dataId: null, errorId: 0 };
    }
    const types = recorded.get(streamId) ?? new Set();
    recorded.set(streamId, types);
    if (types.has(recordType) === recording) {
      return { success: false, message: `${recordType} recording couldn't be ${recording ? 'started' : 'stopped'}`, dataId: null, errorId: 0 };
    }
    if (recording) types.add(recordType);
    else types.delete(recordType);
    const live = [...clients.values()].some(({ sessions }) => sessions.has(streamId));
    return { success: true, message: live ? '0' : null, dataId: live ? `vod${restCalls.length}` : null, errorId: 0 };
  };
  const onRequest = (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? '/', 'http://127.0.0.1');
    const recording = new RegExp(`^/${app}/rest/v2/broadcasts/([^/]+)/recording/(true|false)$`).exec(url.pathname);
    const isCall = recording !== null && request.method === 'PUT';
    const status = isCall ? (faults.rest ?? 200) : 404;
    note(request, status);
    request.resume();
    response.statusCode = status;
    if (url.pathname === '/') return void response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>Ant Media Server</title>');
    if (!isCall || status !== 200) return void response.end();
    const streamId = decodeURIComponent(recording[1] as string);
    const wanted = recording[2] === 'true';
    const recordType = url.searchParams.get('recordType');
    const answer = record(streamId, wanted, recordType);
    restCalls.push({ at: Date.now(), streamId, recording: wanted, recordType, url: request.url ?? '', answer });
    return void response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
  };

  const sockets = new WebSocketServer({ noServer: true, maxPayload: 1 << 20 });
  sockets.on('connection', onSocket);
  const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const { pathname } = new URL(request.url ?? '/', 'http://127.0.0.1');
    const status = faults.handshake ?? (pathname === `/${app}/websocket` ? 101 : 404);
    note(request, status);
    if (status === 101) return sockets.handleUpgrade(request, socket, head, (client) => sockets.emit('connection', client, request));
    return void socket.end(`HTTP/1.1 ${status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
  };
  const listen = async (port: number) => {
    const server = tls ? createHttpsServer({ cert: tls.cert, key: tls.key }) : createHttpServer();
    server.on('request', onRequest).on('upgrade', onUpgrade);
    server.on('tlsClientError', (error: Error) => log(`TLS: ${error.message}`));
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return server;
  };
  let server = await listen(options.port ?? 0);
  const { port } = server.address() as AddressInfo;
  const url = `${tls ? 'wss' : 'ws'}://127.0.0.1:${port}`;

  const sessions = () => [...streams.values()].flatMap((stream) => stream.sessions);
  const stopListening = async () => {
    const stopped = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const { sessions: own, socket } of clients.values()) {
      for (const session of own.values()) {
        // a server that is gone says nothing more
        socket.removeAllListeners('message');
        socket.terminate();
        end(session, 'server');
      }
      socket.terminate();
    }
    await Promise.all(sessions().map(({ closing }) => closing ?? Promise.resolve()));
    server.closeAllConnections();
    await stopped;
  };
  stack.defer(async () => {
    closed = true;
    await stopListening();
  });

  const live = (streamId: string): LiveSession => {
    const session = [...clients.values()].map((client) => client.sessions.get(streamId)).find((each) => each !== undefined);
    if (!session) throw new Error(`nobody publishes ${streamId}`);
    return session;
  };
  const closeSockets = (how: number | 'reset' = 1001) => {
    for (const client of clients.values()) closeSocket(client, how);
  };
  const all = stack.move();
  let files = 0;
  return {
    url,
    websocketUrl: `${url}/${app}/websocket`,
    port,
    app,
    faults,
    requests,
    messages,
    restCalls,
    streams,
    async until(what, condition, milliseconds = 25_000) {
      for (const deadline = Date.now() + milliseconds; ; await sleep(20)) {
        const value = condition();
        if (value) return value;
        if (Date.now() > deadline) {
          const last = messages.slice(-12).map(({ from, message, ignored }) => `${from}: ${JSON.stringify(message).slice(0, 160)}${ignored ? ` (${ignored})` : ''}`);
          throw new Error(`not within ${milliseconds} ms: ${what}. Last messages:\n${last.join('\n')}`);
        }
      }
    },
    async received(streamId, number) {
      const session = streams.get(streamId)?.sessions.at(number ?? -1);
      if (!session) throw new Error(`${streamId} was never published`);
      await (session.closing ?? session.peer?.flush());
      const file = join(directory, `${streamId}-${(files += 1)}.mp4`);
      await writeReceived(file, { video: session.video, audio: session.audio, reports: session.senderReports });
      return file;
    },
    sendError(streamId, definition) {
      send(live(streamId).client, serverMessages.error(definition, streamId));
    },
    closeSockets,
    async willStop(after = 200) {
      for (const client of clients.values()) send(client, serverMessages.serverWillStop());
      await sleep(after);
      closeSockets();
    },
    async restart(away = 0) {
      await stopListening();
      await sleep(away);
      if (!closed) server = await listen(port);
    },
    close: () => all[Symbol.asyncDispose](),
    [Symbol.asyncDispose]: () => all[Symbol.asyncDispose](),
  };
}

type Client = { number: number; socket: WebSocket; sessions: Map<string, LiveSession> };

type LiveSession = {
  -readonly [Key in keyof Session]: Session[Key] extends readonly (infer Item)[] ? Item[] : Session[Key];
} & {
  client: Client;
  reached: Set<Moment>;
  relayPath: Relay;
  mediaStreams: Set<string>;
  peer: Peer | null;
  opening: Promise<void>;
  closing: Promise<void> | null;
};

function parse(text: string): Message | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Message) : null;
  } catch {
    return null;
  }
}

/** Java tells 1.0 from 1, JSON.parse doesn't. */
const isWritten = (text: string, field: string): boolean => new RegExp(`"${field}"\\s*:\\s*-?\\d+\\s*[,}]`).test(text);
