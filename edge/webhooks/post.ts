/** One POST to an address that a caller gave. */
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';

/**
 * Sends the body once, and answers the status; redirects are not followed.
 *
 * @throws what the connection failed of, or the signal's reason
 */
export type Post = (url: string, headers: Readonly<Record<string, string>>, body: string, signal: AbortSignal) => Promise<number>;

/** The answer's body is of no interest; a sender who finds nobody reading may log an error, so a little is read. */
const MAX_IGNORED_BYTES = 64 * 1024;

/**
 * Every connection is dialled anew: none that was allowed for one address serves another, and none turns out to be closed.
 * The address is not looked at here. A filter of what callers may have dialled belongs into the request's `lookup`, which
 * sees every address before it is connected to; addresses given as numbers pass it by and have to be looked at before.
 */
export const postOnce: Post = (url, headers, body, signal) =>
  new Promise((resolve, reject) => {
    const send = url.startsWith('https:') ? requestHttps : requestHttp;
    const options = { method: 'POST', agent: false, headers: { ...headers, 'content-length': Buffer.byteLength(body) }, signal };
    const request = send(new URL(url), options, (response) => {
      let read = 0;
      response.on('error', () => undefined);
      response.on('data', (chunk: Buffer) => {
        read += chunk.length;
        if (read > MAX_IGNORED_BYTES) response.destroy();
      });
      resolve(response.statusCode ?? 0);
    });
    request.on('error', (error) => reject(signal.aborted ? (signal.reason as Error) : error));
    // also where the other side ends it without an answer, by an upgrade for example
    request.on('close', () => reject(new Error('the connection was closed without an answer')));
    request.end(body);
  });
