/** One POST to an address that a caller gave. */
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { assertLiteral, judgedLookup } from '../../shared/outbound/judge.ts';
import type { Judge } from '../../shared/outbound/policy.ts';

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
 *
 * @param judge asked for all addresses of the host before one of them is dialled; where it denies, OutboundDenied is thrown
 */
export const createPost = (judge: Judge): Post => async (url, headers, body, signal) => {
  const { hostname, port: given, protocol } = new URL(url);
  const port = Number(given || (protocol === 'https:' ? 443 : 80));
  await assertLiteral(judge, hostname, port);
  return new Promise((resolve, reject) => {
    const send = protocol === 'https:' ? requestHttps : requestHttp;
    const lookup = judgedLookup(judge, hostname, port);
    const options = { method: 'POST', agent: false, lookup, headers: { ...headers, 'content-length': Buffer.byteLength(body) }, signal };
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
};
