/** A client that trusts the test authority, and finds every name at one address. */
import { connect as connectHttp2 } from 'node:http2';
import { request as requestHttps } from 'node:https';
import { isIP } from 'node:net';
import { checkServerIdentity as identityOf, connect as connectTls, type PeerCertificate } from 'node:tls';
import { text } from 'node:stream/consumers';
import { WebSocket } from 'ws';
import { ATTEMPT_HEADER, MEDIA_SUBPROTOCOL, ingestMessage, type IngestMessage } from '../../shared/media-protocol.ts';
import { operator } from '../helpers/keys.ts';

/** Not among the trusted addresses: a caller from elsewhere, as far as one machine has an elsewhere. */
export const CALLER = '127.9.9.9';

export type Target = {
  /** Where the connection goes. */
  port: number;
  /** What the caller asks for: host and, where it is not 443, port. */
  authority: string;
  ca: string;
};

export type Answer = { status: number; body: any };

export type Options = { headers?: Readonly<Record<string, string>>; body?: unknown; http2?: boolean };

const hostOf = (authority: string): string => new URL(`https://${authority}`).hostname.replace(/^\[|\]$/g, '');

/** Every name is at 127.0.0.1 and every IPv6 address at [::1]; the certificate has to be good for what is asked for. */
function connection({ port, authority, ca }: Target) {
  const name = hostOf(authority);
  const to = isIP(name) === 6 ? { host: '::1' } : { host: '127.0.0.1', localAddress: CALLER };
  const checkServerIdentity = (_host: string, certificate: PeerCertificate) => identityOf(name, certificate);
  return { ...to, port, ca, checkServerIdentity, ...(isIP(name) === 0 ? { servername: name } : {}) };
}

/** GET, or POST where there is a body; JSON in, JSON out; with the operator's key. */
export async function ask(target: Target, path: string, { headers = {}, body, http2 = false }: Options = {}): Promise<Answer> {
  const method = body === undefined ? 'GET' : 'POST';
  const content = body === undefined ? '' : JSON.stringify(body);
  const all = { ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(content)) }), ...operator.headers, ...headers };
  const [status, answer] = http2 ? await askHttp2(target, method, path, all, content) : await askHttp1(target, method, path, all, content);
  try {
    return { status, body: JSON.parse(answer) };
  } catch {
    return { status, body: answer };
  }
}

const askHttp1 = (target: Target, method: string, path: string, headers: Readonly<Record<string, string>>, content: string) =>
  new Promise<[status: number, answer: string]>((resolve, reject) => {
    const options = { ...connection(target), agent: false, method, path, headers: { host: target.authority, ...headers } };
    const request = requestHttps(options, (response) => {
      text(response).then((answer) => resolve([response.statusCode ?? 0, answer]), reject);
    });
    request.on('error', reject);
    request.end(content);
  });

async function askHttp2(target: Target, method: string, path: string, headers: Readonly<Record<string, string>>, content: string) {
  const session = connectHttp2(`https://${target.authority}`, {
    createConnection: () => connectTls({ ...connection(target), ALPNProtocols: ['h2'] }),
  });
  try {
    const stream = session.request({ ':method': method, ':path': path, ':authority': target.authority, ...headers }, { endStream: content === '' });
    const failed = new Promise<never>((_resolve, reject) => session.on('error', reject));
    failed.catch(() => undefined);
    const status = new Promise<number>((resolve) => stream.on('response', (answer) => resolve(answer[':status'] ?? 0)));
    if (content !== '') stream.end(content);
    const answer = await Promise.race([text(stream), failed]);
    return [await status, answer] as const;
  } finally {
    session.close();
  }
}

/** Dials a media URL as a worker does. @returns the ingest's first message. @throws {Error} with the status where it is refused */
export async function dialMedia(target: Pick<Target, 'port' | 'ca'>, mediaUrl: string, credential: string, attempt: number): Promise<IngestMessage> {
  const to = connection({ ...target, authority: new URL(mediaUrl).host });
  const ws = new WebSocket(mediaUrl, MEDIA_SUBPROTOCOL, {
    headers: { authorization: `Bearer ${credential}`, [ATTEMPT_HEADER]: String(attempt) },
    perMessageDeflate: false,
    createConnection: () => connectTls({ ...to, ALPNProtocols: ['http/1.1'] }),
  });
  try {
    return await new Promise((resolve, reject) => {
      ws.on('message', (data) => resolve(ingestMessage.parse(JSON.parse(String(data)))));
      ws.on('unexpected-response', (_request, response) => reject(new Error(`the upgrade was answered with ${response.statusCode}`)));
      ws.on('error', reject);
      ws.on('close', (code) => reject(new Error(`closed with ${code}`)));
    });
  } finally {
    ws.terminate();
  }
}
