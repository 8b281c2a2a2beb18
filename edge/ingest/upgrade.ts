/** WebSocket upgrades of Node's HTTP server: the media URL of a recording, and nothing else. */
import { STATUS_CODES, type IncomingMessage, type Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer, type WebSocket } from 'ws';
import { TabreelError } from '../../shared/errors.ts';
import type { Log } from '../../shared/log.ts';
import { MAX_PART_BYTES, MEDIA_SUBPROTOCOL, closeCodes } from '../../shared/media-protocol.ts';
import { recordingId } from '../../shared/recording.ts';
import { problemResponse, toTabreelError } from '../problem.ts';
import type { Admission, Ingest } from './ingest.ts';

const mediaPath = /^\/v1\/recordings\/([^/?]+)\/media(?:\?.*)?$/;
/** The header of a part beside its payload. */
const HEADER_BYTES = 4100;

/** @returns refuse: no new sockets from now on; close: ends what is left */
export function handleUpgrades(server: Server, ingest: Ingest, log: Log): { refuse(): void; close(): void } {
  const sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_PART_BYTES + HEADER_BYTES,
    handleProtocols: (offered) => (offered.has(MEDIA_SUBPROTOCOL) ? MEDIA_SUBPROTOCOL : false),
  });
  let leaving = false;

  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const onError = (error: unknown) => log.debug('upgrade failed', { error });
    socket.on('error', onError);
    void admit(request).then(
      (admission) => {
        if (socket.destroyed) return;
        socket.off('error', onError);
        sockets.handleUpgrade(request, socket, head, (ws) => serve(ws, admission));
      },
      (thrown: unknown) => {
        const error = toTabreelError(thrown);
        log[error.code === 'internal' ? 'error' : 'info']('media socket refused', { path: request.url?.split('?')[0], code: error.code, error: thrown });
        void refuse(socket, error);
      },
    );
  });

  async function admit(request: IncomingMessage): Promise<Admission> {
    const id = mediaPath.exec(request.url ?? '')?.[1];
    if (id === undefined) throw new TabreelError('not_found', 'there is no WebSocket here');
    if (leaving) throw new TabreelError('redis_unavailable', 'the edge is leaving; dial again');
    if (!recordingId.safeParse(id).success) throw new TabreelError('recording_not_found', `there is no recording ${id}`);
    const protocols = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim());
    if (!protocols.includes(MEDIA_SUBPROTOCOL)) throw new TabreelError('invalid_request', `the subprotocol must be ${MEDIA_SUBPROTOCOL}`);
    return ingest.admit(id, new Headers(singleHeaders(request)));
  }

  function serve(ws: WebSocket, admission: Admission): void {
    if (admission.fenced) return ws.close(closeCodes.fenced.code, 'a newer attempt owns the recording');
    ws.on('error', (error) => log.info('media socket failed', { recording: admission.id, error }));
    // nothing is read before someone takes the messages
    ws.pause();
    ingest
      .accept(admission, {
        send: (text) => ws.send(text),
        close(code, reason) {
          ws.close(code, reason);
        },
        pause: () => ws.pause(),
        resume: () => ws.resume(),
        ping: () => ws.ping(),
        terminate: () => ws.terminate(),
      })
      .then((connection) => {
        if (connection === null) return ws.resume();
        ws.on('message', (data: Buffer, binary: boolean) => connection.message(data, binary));
        ws.on('pong', () => connection.pong());
        ws.on('close', (code) => connection.gone(code));
        // it may have gone while the parts were listed
        if (ws.readyState === ws.CLOSED) connection.gone(1006);
        ws.resume();
      })
      .catch((error: unknown) => {
        log.error('media socket could not be served', { recording: admission.id, error });
        ws.close(closeCodes.internal.code, 'the ingest failed');
        ws.resume();
      });
  }

  return {
    refuse() {
      leaving = true;
    },
    close() {
      for (const ws of sockets.clients) ws.terminate();
    },
  };
}

/** As strings; none of those read here may be there twice. */
const singleHeaders = ({ headers }: IncomingMessage): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).flatMap(([name, value]) => (typeof value === 'string' ? [[name, value]] : [])));

async function refuse(socket: Duplex, error: TabreelError): Promise<void> {
  const response = problemResponse(error);
  const body = await response.text();
  const lines = [
    `HTTP/1.1 ${response.status} ${STATUS_CODES[response.status] ?? ''}`,
    ...[...response.headers].map(([name, value]) => `${name}: ${value}`),
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
    '',
    body,
  ];
  socket.end(lines.join('\r\n'));
}
