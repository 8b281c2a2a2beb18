/** What an end of a media socket means: in words for whoever has to mend it, and whether dialling again can help. */
import type { IncomingMessage } from 'node:http';
import { TabreelError, type ErrorCode } from '../../shared/errors.ts';
import { closeCodes, MEDIA_SUBPROTOCOL } from '../../shared/media-protocol.ts';

/** What mends each cause, as a sentence without its full stop. Whoever explains a code of these takes its words from here. */
export const mediaRemedies = {
  media_dns: 'Let the name resolve where the worker runs, or set PUBLIC_URL of the edge (MEDIA_URL, where another deployment takes the media) to a name that does',
  media_connection_refused: 'Start what should listen there, or set PUBLIC_URL or MEDIA_URL of the edge to where it listens',
  media_timeout:
    "Let the worker's network reach this host and port (firewall, NetworkPolicy), or set PUBLIC_URL of the edge to an address that it reaches",
  media_tls_expired: 'Renew the certificate that is served there',
  media_tls_name: 'Serve a certificate for this name, or set PUBLIC_URL or MEDIA_URL of the edge to a name that the certificate has',
  media_tls_authority: 'Serve the whole chain of an authority that is trusted, or set MEDIA_CA of the worker to a PEM file of that authority',
  media_tls:
    'Let this port speak TLS 1.2 or newer, or set PUBLIC_URL or MEDIA_URL of the edge to the one that does; ' +
    'where plain http is meant, make that URL http:// or ws:// and set ALLOW_INSECURE_WS=true',
  media_http_status: "Let the proxies before the edge pass /v1/recordings/ on to it; the proxy's log tells why it answered so",
  media_upgrade_cut:
    'Let each proxy on the way pass WebSockets on: it must forward the headers Upgrade and Connection ' +
    '(nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade")',
  media_subprotocol: `Let each proxy on the way forward the header Sec-WebSocket-Protocol (${MEDIA_SUBPROTOCOL}), both ways`,
  media_unreachable: 'The logs of the edge and of the proxies before it tell what happened there at that time',
} as const satisfies Partial<Record<ErrorCode, string>>;

export type MediaCode = keyof typeof mediaRemedies;

/** Why a dial or a connection came to its end. */
export type MediaCause = {
  code: MediaCode;
  /** The host and what happened there, with the system's or the library's own code. */
  what: string;
  /** Whether what answered speaks no TLS at all. */
  speaksNoTls?: boolean;
};

/** The cause in words and what mends it. */
export const explain = ({ code, what }: MediaCause): string => `${what}. ${mediaRemedies[code]}`;

/** How far a dial came: each stage is where it is waiting. */
export type DialStage = 'name' | 'connection' | 'tls' | 'upgrade' | 'welcome';

const waitedFor: Readonly<Record<DialStage, { code: MediaCode; words: string }>> = {
  name: { code: 'media_dns', words: 'its name was not resolved' },
  connection: { code: 'media_timeout', words: 'nothing answered the connection' },
  tls: { code: 'media_timeout', words: 'it was connected, and nothing answered in TLS' },
  upgrade: { code: 'media_timeout', words: 'it was connected, and nothing answered the WebSocket upgrade' },
  welcome: { code: 'media_timeout', words: 'the media socket was opened, and the ingest sent no welcome' },
};

/** A dial that took too long. @param milliseconds that it had */
export function timeoutCause(stage: DialStage, host: string, milliseconds: number): MediaCause {
  const { code, words } = waitedFor[stage];
  return { code, what: `${host}: ${words} within ${milliseconds / 1000} s` };
}

const known: Readonly<Record<string, readonly [MediaCode, string]>> = {
  ENOTFOUND: ['media_dns', 'the name does not resolve'],
  EAI_AGAIN: ['media_dns', 'the name could not be resolved just now'],
  ECONNREFUSED: ['media_connection_refused', 'nothing listens there'],
  ETIMEDOUT: ['media_timeout', 'no answer came'],
  EHOSTUNREACH: ['media_unreachable', 'the network has no way there'],
  ENETUNREACH: ['media_unreachable', 'the network has no way there'],
  CERT_HAS_EXPIRED: ['media_tls_expired', 'its certificate has expired'],
  ERR_TLS_CERT_ALTNAME_INVALID: ['media_tls_name', 'its certificate is for another name'],
  HOSTNAME_MISMATCH: ['media_tls_name', 'its certificate is for another name'],
  DEPTH_ZERO_SELF_SIGNED_CERT: ['media_tls_authority', 'its certificate is self-signed'],
  SELF_SIGNED_CERT_IN_CHAIN: ['media_tls_authority', 'the authority of its certificate is not trusted'],
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: ['media_tls_authority', 'the authority of its certificate is not trusted, or is missing in its chain'],
  UNABLE_TO_GET_ISSUER_CERT: ['media_tls_authority', 'the authority of its certificate is not trusted, or is missing in its chain'],
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: ['media_tls_authority', 'the authority of its certificate is not trusted, or is missing in its chain'],
  CERT_UNTRUSTED: ['media_tls_authority', 'the authority of its certificate is not trusted'],
  CERT_SIGNATURE_FAILURE: ['media_tls_authority', 'its certificate was not signed by the authority that it names'],
  CERT_NOT_YET_VALID: ['media_tls', 'its certificate is not valid yet, by the clock of the worker'],
};

/** What the server's own `subject` and `issuer` say, for the message: an ingress without a certificate for a host shows a default one. */
export type ShownCertificate = { subject: string; issuer: string };

/** Why a dial failed: DNS, TCP, TLS or the upgrade. */
export function dialCause(thrown: Error, host: string, stage: DialStage, shown: ShownCertificate | null = null): MediaCause {
  const error = worthTelling(thrown);
  const code = codeOf(error);
  const message = firstLine(error.message) || 'it failed without a word';
  const [kind, words] = (code === null ? undefined : known[code]) ?? byStage(error, code, message, stage);
  const suffix = code === null ? '' : ` (${code})`;
  const certificate = shown !== null && kind.startsWith('media_tls') ? `; it is of ${shown.subject}, by ${shown.issuer}` : '';
  const speaksNoTls = kind === 'media_tls' && isPlainAnswer(error);
  return { code: kind, what: `${host}: ${words}${suffix}${certificate}`, ...(speaksNoTls ? { speaksNoTls } : {}) };
}

function byStage(error: Error, code: string | null, message: string, stage: DialStage): readonly [MediaCode, string] {
  if ((error as { syscall?: unknown }).syscall === 'getaddrinfo') return ['media_dns', message];
  // with TLS 1.3 a server that wants a certificate of the client says so after the handshake
  if (stage === 'tls' || code?.startsWith('ERR_SSL_')) {
    if (isPlainAnswer(error)) return ['media_tls', 'what answers speaks no TLS, as a port of plain http'];
    return ['media_tls', code === 'ECONNRESET' ? 'the connection was closed in the midst of the TLS handshake' : `TLS failed: ${message}`];
  }
  if (/subprotocol/.test(message)) return ['media_subprotocol', `the subprotocol was not agreed on: ${message}`];
  if (stage === 'upgrade') {
    if (code === 'ECONNRESET' || code === 'EPIPE') return ['media_upgrade_cut', 'the connection was closed before the WebSocket upgrade was answered'];
    if (code?.startsWith('HPE_')) return ['media_upgrade_cut', 'what answers the WebSocket upgrade does not speak HTTP'];
    return ['media_upgrade_cut', `the answer to the WebSocket upgrade is no good: ${message}`];
  }
  return ['media_unreachable', message];
}

/** OpenSSL's word for a first record that isn't one; Node gives it as EPROTO like any other trouble. */
const isPlainAnswer = (error: Error): boolean => /wrong version number/.test(error.message);

/** Node tries all addresses of a name and wraps what each of them said: an address family that isn't there says least. */
function worthTelling(error: Error): Error {
  if (!(error instanceof AggregateError)) return error;
  const errors = error.errors as Error[];
  return errors.find((each) => known[codeOf(each) ?? '']?.[0] !== 'media_unreachable') ?? errors[0] ?? error;
}

const codeOf = (error: Error): string | null => {
  const { code } = error as { code?: unknown };
  return typeof code === 'string' ? code : null;
};

const firstLine = (text: string): string => text.split('\n', 1)[0]?.trim().slice(0, 200) ?? '';

/** The handshake was answered, but not by an upgrade. @property refusal where no further dial will change it */
export type StatusAnswer = { cause: MediaCause; refusal: TabreelError | null };

/** Statuses that no further dial will change, and what mends them. */
const finalStatuses: Readonly<Record<number, string>> = {
  401: 'Edges that share the queue need the same TOKEN_SECRET, a new one beside the old one until its recordings are over; and a proxy must not ask for a credential of its own',
  403: 'A proxy or firewall on the way forbids it: let it pass /v1/recordings/ on to the edge',
  404: 'The recording was deleted, or PUBLIC_URL or MEDIA_URL of the edge lead to a deployment with another Redis or QUEUE_PREFIX',
  409: 'Something on the way takes it for a conflict: its log tells why',
  410: 'The recording is over',
};

/** Reads the answer's body as far as it tells why. */
export async function statusAnswer(response: IncomingMessage, host: string): Promise<StatusAnswer> {
  const status = response.statusCode ?? 0;
  const isProblem = /^application\/problem\+json\b/i.test(response.headers['content-type'] ?? '');
  const { location } = response.headers;
  const told = location === undefined || status < 300 || status > 399 ? await detailOf(response) : ` (to ${location.split('?')[0]?.slice(0, 300)})`;
  const cut = status < 300 || status === 426;
  const what = `${host} answered ${cut ? 'the WebSocket upgrade with ' : ''}HTTP status ${status}${told}`;
  // an ingress that starts answers 404 for a host that it doesn't know yet; the ingest itself always sends a problem
  const remedy = status === 404 && !isProblem ? undefined : finalStatuses[status];
  const refusal = remedy === undefined ? null : new TabreelError('media_refused', `${what}. ${remedy}`);
  return { cause: { code: cut ? 'media_upgrade_cut' : 'media_http_status', what }, refusal };
}

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

/** What an answer's body says: a problem's detail or title, shortened; "" where there is none. */
async function detailOf(response: IncomingMessage): Promise<string> {
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
