/** Asks an Ant Media Server to record a stream that is pushed to it, as its dashboard would: one REST call. */
import { request as httpRequest } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import { z } from 'zod';
import { trusting } from '../../shared/authorities.ts';
import { assertLiteral, judgedLookup } from '../../shared/outbound/judge.ts';
import type { Judge } from '../../shared/outbound/policy.ts';
import type { PushSpec } from '../../shared/recording.ts';

/** Milliseconds for the whole call. */
const TIMEOUT_MS = 10_000;
const ANSWER_BYTES_AT_MOST = 64 * 1024;

const answer = z.object({ success: z.boolean(), message: z.string().nullish() });

/**
 * No redirect is followed.
 *
 * @param ca PEM of an authority that is trusted beside Node's own and the system's; @param timeout milliseconds
 * @param server where the operator says that its REST API is, which may be any address; null for the host of the push, of which
 * `judge` is asked
 * @throws {Error} why it does not record, or did not answer
 */
export async function askToRecord(
  { url, streamId, recordType }: PushSpec,
  options: { ca: string | null; server?: string | null; judge: Judge; timeout?: number },
): Promise<void> {
  const { ca, server = null, timeout = TIMEOUT_MS } = options;
  const { pathname } = new URL(url);
  const [, app] = /(\/[^/]*)\/websocket$/.exec(pathname) ?? [];
  if (app === undefined) throw new Error(`the address of its REST API does not follow from ${pathname}`);
  const base = server === null ? url.replace(/^ws/, 'http').slice(0, -'/websocket'.length) : `${server}${app}`;
  const { protocol, host, hostname } = new URL(base);
  const port = Number(new URL(base).port || (protocol === 'https:' ? 443 : 80));
  const lookup = server === null ? { lookup: judgedLookup(options.judge, hostname, port) } : {};
  if (server === null) await assertLiteral(options.judge, hostname, port);
  const signal = AbortSignal.timeout(timeout);
  const how = { method: 'PUT', ...lookup, signal, headers: { accept: 'application/json', 'content-length': 0 } } as const;
  const path = `${base}/rest/v2/broadcasts/${encodeURIComponent(streamId)}/recording/true?recordType=${recordType ?? 'mp4'}`;
  const text = await new Promise<string>((resolve, reject) => {
    const request = protocol === 'https:' ? httpsRequest(path, { ...how, agent: new Agent({ secureContext: trusting(ca) }) }) : httpRequest(path, { ...how, agent: false });
    request.on('error', reject);
    request.on('response', (response) => {
      const { statusCode } = response;
      let body = '';
      response.setEncoding('utf8').on('error', reject);
      response.on('data', (chunk: string) => {
        body += chunk;
        if (body.length > ANSWER_BYTES_AT_MOST) request.destroy(new Error(`${host} answered at too great length`));
      });
      response.on('end', () => (statusCode === 200 ? resolve(body) : reject(new Error(`${host} answered with HTTP status ${statusCode}`))));
    });
    request.end();
  }).catch((error: unknown) => {
    throw signal.aborted ? new Error(`${host} did not answer within ${timeout / 1000} s`) : error;
  });
  const parsed = answer.safeParse(jsonOf(text));
  if (!parsed.success) throw new Error(`${host} gave an answer that is not understood`);
  if (!parsed.data.success) throw new Error(`${host}: ${(parsed.data.message ?? 'it gave no reason').slice(0, 300)}`);
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
