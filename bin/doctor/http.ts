/** HTTP/1.1 with limits, on Node's own client: one connection a request, an authority of the caller's. */
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';

/** Milliseconds that a link may take. */
export const LINK_TIMEOUT_MS = 5000;
/** Bytes of an answer that is read as text. */
const MAX_TEXT_BYTES = 1024 * 1024;
const MAX_REDIRECTS = 3;

export type Access = {
  /** Authorities that are believed, in PEM. */
  ca: readonly string[];
  /** False once a certificate was found wanting and reported: the links behind it are looked at all the same. */
  verify: boolean;
  /** Milliseconds. */
  timeout: number;
  signal: AbortSignal;
  /** An API key, and the origin that it is sent to; to no other, nor to the media socket, which has a credential of its own. */
  key?: { value: string; origin: string } | null;
};

export type Ask = { method?: string; headers?: Readonly<Record<string, string>>; body?: string };

export type Answer = {
  status: number;
  /** `1.1`. */
  version: string;
  headers: IncomingHttpHeaders;
  text: string;
  /** The body, where it is a JSON object; else null. */
  json: Record<string, unknown> | null;
};

/** No answer within the limit. */
const timedOut = (milliseconds: number): Error =>
  Object.assign(new Error(`no answer came within ${milliseconds / 1000} s`), { code: 'ETIMEDOUT' });

/**
 * The answer's head, its body not yet read. An upgrade that succeeds is answered with its 101, its socket closed.
 *
 * @throws the error of DNS, TCP, TLS or HTTP, with its code; the signal's reason
 */
export function open(url: string | URL, access: Access, ask: Ask = {}): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const { protocol, origin } = new URL(url);
  const key = access.key?.origin === origin && ask.headers?.['upgrade'] === undefined ? access.key.value : null;
  const body = ask.body ?? '';
  const options: RequestOptions = {
    method: ask.method ?? 'GET',
    headers: { 'user-agent': 'tabreel-doctor', ...(key === null ? {} : { authorization: `Bearer ${key}` }), ...(body === '' ? {} : { 'content-length': String(Buffer.byteLength(body)) }), ...ask.headers },
    agent: false,
    signal: access.signal,
  };
  const tls = { ca: [...access.ca], rejectUnauthorized: access.verify, ALPNProtocols: ['http/1.1'] };
  const request = protocol === 'https:' ? httpsRequest(url, { ...options, ...tls }) : httpRequest(url, options);
  const limit = setTimeout(() => request.destroy(timedOut(access.timeout)), access.timeout);
  request.on('response', resolve);
  request.on('upgrade', (response, socket) => {
    socket.destroy();
    resolve(response);
  });
  request.on('error', (error) => reject(access.signal.aborted ? (access.signal.reason as Error) : error));
  request.end(body);
  return promise.finally(() => clearTimeout(limit));
}

/** As `open`, and where it is sent on from there, as an edge does whose media goes to another deployment. */
export async function openFollowing(url: string | URL, access: Access, what: Ask = {}): Promise<IncomingMessage> {
  let at = new URL(url);
  for (let left = MAX_REDIRECTS; ; left -= 1) {
    const response = await open(at, access, what);
    const to = response.headers.location;
    if (left === 0 || ![307, 308].includes(response.statusCode ?? 0) || to === undefined || !URL.canParse(to, at)) return response;
    response.destroy();
    at = new URL(to, at);
  }
}

/** @throws as `open`; where the body is too long or doesn't end in time, with a code too */
export async function ask(url: string | URL, access: Access, what: Ask = {}): Promise<Answer> {
  const response = await open(url, access, what);
  const bytes = await readBody(response, access, MAX_TEXT_BYTES);
  const text = bytes.toString('utf8');
  return { status: response.statusCode ?? 0, version: response.httpVersion, headers: response.headers, text, json: asObject(text) };
}

/**
 * @param max bytes; a longer body is an error
 * @param milliseconds for all of it
 */
export async function readBody(response: IncomingMessage, access: Access, max: number, milliseconds = access.timeout): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  // a 101 has no body: its socket is gone
  if (response.statusCode === 101) return Buffer.alloc(0);
  const limit = setTimeout(() => response.destroy(timedOut(milliseconds)), milliseconds);
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > max) throw new Error(`the answer has more than ${max} bytes`);
    }
  } finally {
    clearTimeout(limit);
    response.destroy();
  }
  return Buffer.concat(chunks);
}

function asObject(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

/** The `code` of a problem of ours; null for any other answer, a proxy's own say. */
export const problemCode = ({ headers, json }: Answer): string | null =>
  /^application\/problem\+json\b/i.test(headers['content-type'] ?? '') && typeof json?.['code'] === 'string' ? json['code'] : null;

/** Who answered, as far as they say: `nginx/1.22.1`. */
export const serverOf = ({ headers }: Pick<Answer, 'headers'>): string | null => {
  const said = headers.server ?? headers.via;
  return said === undefined ? null : String(said);
};
