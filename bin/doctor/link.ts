/** The links of the way to a deployment: what doctor finds at each of them. */

export type Mark = 'ok' | 'warn' | 'fail' | 'skipped';

/** What was found at one link. */
export type Finding = {
  mark: Mark;
  /** One line. */
  detail: string;
  /** What else is worth knowing, a line each. */
  notes?: readonly string[];
  /** What to do about it, a line each; those that begin with blanks belong to the one before. */
  advice?: readonly string[];
};

export type Link = Required<Finding> & {
  name: string;
  /** How long it took. */
  milliseconds: number;
};

export const ok = (detail: string, notes: readonly string[] = []): Finding => ({ mark: 'ok', detail, notes });
export const warn = (detail: string, advice: readonly string[] = [], notes: readonly string[] = []): Finding => ({ mark: 'warn', detail, notes, advice });
export const fail = (detail: string, advice: readonly string[] = [], notes: readonly string[] = []): Finding => ({ mark: 'fail', detail, notes, advice });
export const skipped = (detail: string): Finding => ({ mark: 'skipped', detail });

/** Runs one link and tells what came of it. What it throws is a failure of the link, but for an abort. */
export type TryLink = (name: string, attempt: () => Promise<Finding> | Finding) => Promise<Link>;

/** @param tell called with each link as soon as it is known */
export const linkRunner =
  (tell: (link: Link) => void, signal: AbortSignal): TryLink =>
  async (name, attempt) => {
    const began = performance.now();
    signal.throwIfAborted();
    let finding: Finding;
    try {
      finding = await attempt();
    } catch (error) {
      signal.throwIfAborted();
      finding = fail(because(error));
    }
    const { mark, detail, notes = [], advice = [] } = finding;
    const link: Link = {
      name,
      mark,
      detail: plain(detail),
      notes: notes.map((line) => plain(line)),
      advice: advice.map((line) => `${/^ */.exec(line)?.[0] ?? ''}${plain(line)}`),
      milliseconds: Math.round(performance.now() - began),
    };
    tell(link);
    return link;
  };

/** What came over the network, fit for a terminal: one line, no control characters, no credentials, not endless. */
export function plain(text: string, max = 400): string {
  const line = text
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .replaceAll(/([?&](?:token|access_token|key|code|state|signature)=)[^&\s"']+/gi, '$1(hidden)')
    .replaceAll(/\b(Bearer|Basic) +[\w.~+/=-]+/gi, '$1 (hidden)')
    .replaceAll(/(\/\/)[^/@\s]+@/g, '$1(hidden)@')
    .trim();
  return line.length > max ? `${line.slice(0, max)} …` : line;
}

const words: Readonly<Record<string, string>> = {
  ENOTFOUND: 'the name does not resolve',
  EAI_AGAIN: 'the name server does not answer',
  ECONNREFUSED: 'nothing listens there',
  ECONNRESET: 'the connection was reset',
  EPIPE: 'the connection was closed',
  ETIMEDOUT: 'no answer came in time',
  EHOSTUNREACH: 'the network has no way there',
  ENETUNREACH: 'the network has no way there',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is self-signed',
  SELF_SIGNED_CERT_IN_CHAIN: 'its authority is not trusted here',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its authority is not known here, or a certificate between is not sent',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its authority is not known here, or a certificate between is not sent',
  UNABLE_TO_GET_ISSUER_CERT: 'its authority is not known here, or a certificate between is not sent',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name',
  HPE_INVALID_CONSTANT: 'what answers there does not speak HTTP',
};

/** The code of an error of the network; "" where it has none. Node wraps what each of a name's addresses said. */
export function codeOf(error: unknown): string {
  if (typeof error === 'string') return error;
  const first = error instanceof AggregateError ? (error.errors[0] as unknown) : undefined;
  const code = (error as { code?: unknown } | null)?.code ?? (first as { code?: unknown } | undefined)?.code;
  return typeof code === 'string' ? code : '';
}

/** OpenSSL's words for a first record that isn't one. */
export const speaksNoTls = (error: unknown): boolean => error instanceof Error && /wrong version number|packet length too long/.test(error.message);

/** Why something on the network failed, in words. */
export function because(error: unknown): string {
  const code = codeOf(error);
  const known = speaksNoTls(error) ? 'what answers there does not speak TLS' : words[code];
  if (known !== undefined) return `${known} (${code})`;
  const message = error instanceof Error ? error.message : String(error);
  return message === '' ? code || 'it failed without a reason' : message;
}
