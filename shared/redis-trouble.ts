/** What Redis refuses, or the way there, in words for whoever has to mend it; and a log that says it once. */
import type { Redis, RedisOptions } from 'ioredis';
import type { Log } from './log.ts';

/** What is used of ioredis' own. */
type Command = { name: string; args: readonly unknown[]; getKeys(): readonly (string | Uint8Array)[]; reject(error: Error): void };

/** Redis itself says no, and will until somebody changes its users or our REDIS_URL. */
export const isRefusal = (message: string): boolean =>
  /^(NOAUTH|WRONGPASS|NOPERM) |^EXECABORT .*The Redis user|ACL failure in script|^ERR The user executing the script can't/.test(message);

const RULES = 'docs/redis.md has the rules that it needs';
const isUntrusted = /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT(_LOCALLY)?|CERT_UNTRUSTED)$/;

/**
 * What mends an error of a client, as a sentence; null where its own words will do.
 * @param command that failed with it, if one did
 * @param served whether the client was ever connected
 */
export function remedyOf(error: Error, options: Pick<RedisOptions, 'host' | 'port' | 'username' | 'tls'>, command: Command | null, served: boolean): string | null {
  const { message } = error;
  const code = String((error as { code?: unknown }).code ?? '');
  const server = `${options.host}:${options.port}`;
  const user = options.username ?? 'default';
  if (isUntrusted.test(code)) return `The authority of the certificate at ${server} is not trusted: set REDIS_CA to a PEM file of that authority`;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return 'Let REDIS_URL name Redis as its certificate does';
  if (code === 'CERT_HAS_EXPIRED') return `Renew the certificate that ${server} shows`;
  if (/wrong version number/.test(message)) return `What listens at ${server} speaks no TLS: its URL is redis://, or it has another port for TLS`;
  if (/alert (.*certificate|unknown ca|handshake failure)/.test(message)) {
    return `${server} wants a certificate of this process, for clients and of an authority that it trusts: REDIS_CERT and REDIS_KEY`;
  }
  if (code === 'ETIMEDOUT' && options.tls && !served) return `Nothing answered in TLS at ${server}: a port without it says nothing either, and its URL is redis://`;
  if (code === 'ECONNRESET' && !served && !options.tls) return `${server} hung up at the first word: where it speaks TLS, REDIS_URL has to begin with rediss://`;
  if (message.startsWith('WRONGPASS ')) return `Redis refuses the password of REDIS_URL, or has no user ${user}`;
  if (message.startsWith('NOAUTH ')) return 'Redis wants a password: REDIS_URL has none (rediss://USER:PASSWORD@HOST:PORT)';
  return isRefusal(message) ? missingRule(message, user, command) : null;
}

function missingRule(message: string, user: string, command: Command | null): string {
  const lacks = (what: string, rule: string) => `The Redis user ${user} may not ${what}: it lacks ${rule}; ${RULES}`;
  const denied = /the '([^']+)' command/.exec(message)?.[1]?.toLowerCase();
  if (denied !== undefined) return lacks(`run ${denied.replace('|', ' ').toUpperCase()}`, `+${denied}`);
  const first = /channel/.test(message) ? command?.args.flat()[0] : /\bkeys?\b/.test(message) ? command?.getKeys()[0] : undefined;
  if (first === undefined) return `The Redis user ${user} lacks a right (ACL LOG names it to an administrator); ${RULES}`;
  const name = String(first);
  const ofPrefix = `${name.split(':', 1)[0]}:*`;
  return /channel/.test(message) ? lacks(`use the channel ${name}`, `&${ofPrefix}`) : lacks(`touch the key ${name}`, `~${ofPrefix}`);
}

/**
 * Has each error of the client, and of those that are duplicated from it, say what mends it, after its own words: whoever
 * looks at how these begin finds them there still.
 */
export function explainErrors(redis: Redis): Redis {
  let served = false;
  /** Why a transaction will be told that it is discarded, and no more. */
  let refused = '';
  const explained = new WeakSet<Error>();
  const explain = (error: Error, command: Command | null): void => {
    if (explained.has(error)) return;
    explained.add(error);
    const remedy = remedyOf(error, redis.options, command, served);
    if (command !== null && isRefusal(error.message)) refused = remedy ?? '';
    const told = remedy ?? (error.message.startsWith('EXECABORT ') ? refused : '');
    if (told !== '') error.message = `${error.message.trim().replace(/\.$/, '')}. ${told}`;
  };
  redis.once('ready', () => (served = true));
  // before any other listener
  redis.on('error', (error: Error) => explain(error, null));
  const send = redis.sendCommand.bind(redis);
  redis.sendCommand = (command, stream) => {
    const reject = command.reject.bind(command);
    command.reject = (error) => {
      explain(error, command);
      reject(error);
    };
    return send(command, stream);
  };
  const duplicate = redis.duplicate.bind(redis);
  redis.duplicate = (override) => explainErrors(duplicate(override));
  return redis;
}

const SILENCE_MS = 60_000;

/**
 * For clients of one process, which say the same several times a second: each trouble once a minute.
 * @param event of what Redis itself does not refuse
 */
export function redisTroubleLog(log: Log, event = 'no connection to Redis'): (error: Error) => void {
  const last = new Map<string, number>();
  return (error) => {
    // where it happens is the same, and a code says more than words that have a moment's port in them
    const kind = String((error as { code?: unknown }).code ?? error.message);
    const now = performance.now();
    if (now - (last.get(kind) ?? Number.NEGATIVE_INFINITY) < SILENCE_MS) return;
    // what is long past is forgotten
    for (const [other, at] of last) if (now - at >= SILENCE_MS) last.delete(other);
    last.set(kind, now);
    if (isRefusal(error.message)) log.error('Redis refuses this process', { error });
    else log.warn(event, { error });
  };
}
