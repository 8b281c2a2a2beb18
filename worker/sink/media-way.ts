/**
 * Which URL the next dial goes to: the job's own, always over TLS where it says so; and the same host without TLS only where
 * the operator allows it, TLS has never worked in this recording, and nobody speaks it there.
 *
 * A certificate that can't be verified never leads there: it says that TLS is spoken, perhaps by somebody in between, and
 * MEDIA_CA is what mends it.
 */
import type { MediaCause } from './media-socket-causes.ts';
import type { ConnectionEnd } from './media-connection.ts';

export type Way = { url: string; insecure: boolean };

export type MediaWays = {
  next(): Way;
  /** @returns what the end means: a dial without TLS that came to nothing is told beside why there was no TLS */
  ended(way: Way, end: WayEnd): Pick<ConnectionEnd, 'cause' | 'refusal'>;
};

type WayEnd = Pick<ConnectionEnd, 'cause' | 'refusal' | 'opened' | 'secured'>;

/** @param after milliseconds for which every dial over TLS has to fail so before one goes without: an ingress may be starting */
export function mediaWays(url: string, options: { allowInsecure: boolean; after: number }): MediaWays {
  const secure: Way = { url, insecure: false };
  let allowed = options.allowInsecure && url.startsWith('wss:');
  let insecure: Way | null = null;
  /** When dials over TLS began to fail in the way that allows one without. */
  let since: number | null = null;
  let worked = false;
  let last: Way = secure;
  let secureCause: MediaCause | null = null;
  /** What came of the last dial without TLS, where nothing came of it. */
  let beside: string | null = null;

  return {
    next() {
      const due = allowed && insecure !== null && since !== null && (worked || performance.now() - since >= options.after);
      // turn and turn about, so that TLS is taken as soon as it is there
      last = due && insecure !== null && !last.insecure ? insecure : secure;
      return last;
    },
    ended(way, { cause, refusal, opened, secured }) {
      if (way.insecure) {
        worked ||= opened;
        beside = opened ? null : cause.what;
        // whoever answers there may be anyone: his refusal is not the ingest's
        return opened || secureCause === null ? { cause, refusal } : { cause: told(secureCause, beside), refusal: null };
      }
      secureCause = cause;
      if (secured) allowed = false;
      const instead = insecureUrl(url, cause);
      insecure = instead === null ? null : { url: instead, insecure: true };
      since = instead === null ? null : (since ?? performance.now());
      if (instead === null) beside = null;
      return { cause: told(cause, beside), refusal };
    },
  };
}

const told = (cause: MediaCause, beside: string | null): MediaCause =>
  beside === null ? cause : { ...cause, what: `${cause.what}; without TLS, ${beside}` };

/**
 * Without TLS: the same host and port where something answers there that doesn't speak it, port 80 where nothing listens on
 * 443. Null for whatever else went wrong.
 */
function insecureUrl(url: string, { code, speaksNoTls }: MediaCause): string | null {
  const { hostname, port, pathname, search } = new URL(url);
  if (speaksNoTls === true) return `ws://${hostname}:${port === '' ? 443 : port}${pathname}${search}`;
  return code === 'media_connection_refused' && port === '' ? `ws://${hostname}${pathname}${search}` : null;
}

/** Told in the recording before the first dial without TLS. @param url the job's own */
export const insecureWarning = (url: string): string =>
  `No TLS is spoken at ${new URL(url).host}, and ALLOW_INSECURE_WS=true allows to go without: the media and its credential cross ` +
  'the network in the clear, where anyone on the way can read and change them';
