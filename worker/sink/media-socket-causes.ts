/** What an end of a media socket means: in words for whoever has to mend it, and whether dialling again can help. */
import type { IncomingMessage } from 'node:http';
import { TabreelError } from '../../shared/errors.ts';
import { closeCodes } from '../../shared/media-protocol.ts';

/** Statuses of the handshake that no further dial will change. */
export const statusRefuses = (status: number): boolean => [401, 403, 404, 409, 410].includes(status);

/** Our own codes as the protocol has them; of the rest, those that say that this very message is refused (RFC 6455). */
export function closeRefuses(code: number, reason: string): TabreelError | null {
  const said = reason === '' ? '' : `: ${reason}`;
  if (code === closeCodes.fenced.code) return new TabreelError('media_refused', `a newer attempt owns the recording${said}`, { cause: { code } });
  if (code === closeCodes.over.code) return new TabreelError('media_refused', `the recording is over or deleted${said}`, { cause: { code } });
  // 1000 too early may be a proxy that drains: the ingest itself closes so only after the end is stored
  const retry =
    Object.values(closeCodes).find((known) => known.code === code && known !== closeCodes.done)?.retry ??
    !([1003, 1007, 1009].includes(code) || (code >= 4400 && code < 4500));
  return retry ? null : new TabreelError('media_refused', `the ingest closed the media socket with ${code}${said}`, { cause: { code } });
}

/** Whether the sink failed because another attempt took over, or because nobody wants the recording any more. */
export const isSuperseded = (error: TabreelError): boolean => {
  const code = (error.cause as { code?: unknown } | undefined)?.code;
  return error.code === 'media_refused' && (code === closeCodes.fenced.code || code === closeCodes.over.code);
};

const words: Readonly<Record<string, string>> = {
  ENOTFOUND: 'the name does not resolve',
  EAI_AGAIN: 'the name could not be resolved just now',
  ECONNREFUSED: 'nothing listens there',
  ECONNRESET: 'the connection was reset',
  ETIMEDOUT: 'no answer came',
  EHOSTUNREACH: 'the network has no way there',
  ENETUNREACH: 'the network has no way there',
  CERT_HAS_EXPIRED: 'TLS: its certificate has expired',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'TLS: its certificate is self-signed (MEDIA_CA can name its authority)',
  SELF_SIGNED_CERT_IN_CHAIN: 'TLS: its authority is not trusted (MEDIA_CA can name it)',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'TLS: its authority is not trusted (MEDIA_CA can name it)',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'TLS: its authority is not trusted (MEDIA_CA can name it)',
  ERR_TLS_CERT_ALTNAME_INVALID: 'TLS: its certificate is for another name',
  EPROTO: 'TLS: the other side does not speak it',
};

/** Why a dial failed: DNS, TCP, TLS or the handshake. */
export function dialCause(error: Error, host: string): string {
  // Node tries all addresses of a name and wraps what each of them said
  const first = error instanceof AggregateError ? (error.errors[0] as Error | undefined) : undefined;
  const code = (error as { code?: unknown }).code ?? (first as { code?: unknown } | undefined)?.code;
  const message = error.message || first?.message || 'unknown';
  if (typeof code !== 'string') return `${host}: ${message}`;
  const known = words[code];
  return known === undefined ? `${host}: ${message} (${code})` : `${host}: ${known} (${code})`;
}

/** What a refused handshake's body says, for the message: a problem's detail or title, shortened; "" where there is none. */
export async function refusalOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  const cut = setTimeout(() => response.destroy(), 1000);
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > 8192) break;
    }
  } catch {
    // cut off: what came will do
  }
  clearTimeout(cut);
  try {
    const problem = JSON.parse(Buffer.concat(chunks).toString()) as { detail?: unknown; title?: unknown };
    const said = problem.detail ?? problem.title;
    return typeof said === 'string' && said !== '' ? ` (${said.slice(0, 300)})` : '';
  } catch {
    return '';
  }
}
