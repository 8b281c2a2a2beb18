/**
 * API keys: the list of them, as JSON, and whose key a request brings. Hashes alone are kept.
 *
 * One SHA-256 is enough: a key is 32 letters and digits drawn at random, 190 bits, so that whoever has the list can't find a
 * key by guessing, however fast the hash. A slow hash makes up for what people choose as passwords, and would cost a request
 * its milliseconds.
 */
import { z } from 'zod';
import { ConfigError } from '../../shared/config.ts';

export const scopes = ['record', 'read', 'admin'] as const;
/** record: make recordings and control them; read: see them; admin: all of everybody's, the dashboard and the metrics. */
export type Scope = (typeof scopes)[number];

/** Starts with a letter or digit, so that no name can be taken for what else owns recordings. */
export const keyName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, { error: 'must have 1 to 64 of A-Z a-z 0-9 . _ -, a letter or digit first' });

const count = z.int().min(1).max(1_000_000);
/** All optional: what is missing is not bounded. */
export const keyLimits = z.strictObject({
  /** Recordings that are queued or under way at once, of all keys of this name. */
  concurrent: count.optional(),
  /** Recordings made in any 60 seconds. */
  perMinute: count.optional(),
  /** Seconds a recording may last; default and cap, below MAX_DURATION. */
  maxDuration: count.optional(),
});
export type KeyLimits = z.infer<typeof keyLimits>;

export const keyEntry = z.strictObject({
  name: keyName,
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/i, { error: 'must be the SHA-256 of the key, 64 hexadecimal digits (tabreel key NAME prints it)' })
    .transform((hex) => hex.toLowerCase()),
  scopes: z.array(z.enum(scopes)).min(1),
  limits: keyLimits.default({}),
});
/** A key without the key. Several may have one name: they share its recordings, as an old and a new one must. */
export type ApiKey = z.infer<typeof keyEntry>;

const keyList = z.strictObject({ keys: z.array(keyEntry).max(1000) }).superRefine(({ keys }, context) => {
  const seen = new Set<string>();
  keys.forEach(({ sha256 }, i) => {
    if (seen.has(sha256)) context.addIssue({ code: 'custom', path: ['keys', i, 'sha256'], message: 'is there twice' });
    seen.add(sha256);
  });
});

export type KeyRing = {
  readonly size: number;
  /** Whose key it is; null for nobody's. Takes as long for each of them, and for none. */
  find(key: string): Promise<ApiKey | null>;
  /** The key with this hash, while it is in the list. */
  withHash(sha256: string): ApiKey | null;
};

/** Where the keys in force are; they may be others with each call. */
export type KeySource = { current(): KeyRing };

/**
 * @param text JSON: `{"keys":[{"name","sha256","scopes","limits"}]}`
 * @param from what to call it in an error
 * @throws {ConfigError} one line for each field that is wrong; no value is repeated, since it may be a key by mistake
 */
export function parseKeys(text: string, from: string): KeyRing {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ConfigError(`${from}: must be JSON, {"keys":[{"name":"...","sha256":"...","scopes":["record","read"]}]}`);
  }
  const parsed = keyList.safeParse(value);
  if (!parsed.success) {
    const lines = parsed.error.issues.map(({ path, message }) => `${from}: ${path.length === 0 ? '' : `${path.join('.')}: `}${message}`);
    throw new ConfigError(lines.join('\n'));
  }
  return keyRing(parsed.data.keys);
}

export function keyRing(keys: readonly ApiKey[]): KeyRing {
  const digests = keys.map(({ sha256 }) => Uint8Array.from(sha256.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16)));
  return {
    size: keys.length,
    async find(key) {
      const digest = await sha256Of(key);
      let found = -1;
      // all of each, whether or not one matches: no branch depends on what is compared
      for (let i = 0; i < digests.length; i += 1) {
        const other = digests[i] as Uint8Array;
        let difference = 0;
        for (let j = 0; j < 32; j += 1) difference |= (digest[j] as number) ^ (other[j] as number);
        const isSame = (difference - 1) >> 31;
        found = (found & ~isSame) | (i & isSame);
      }
      return keys[found] ?? null;
    },
    withHash: (sha256) => keys.find((key) => key.sha256 === sha256) ?? null,
  };
}

const sha256Of = async (text: string): Promise<Uint8Array> => new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)));

/** `tbr_`, so that scanners of code and logs can tell one, and 32 of 62 characters: 190 bits. */
export function newApiKey(): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
  let random = '';
  // 248 is the largest multiple of 62 in a byte: no character is likelier than another
  while (random.length < 32) {
    for (const byte of crypto.getRandomValues(new Uint8Array(40))) if (byte < 248 && random.length < 32) random += alphabet[byte % 62];
  }
  return `tbr_${random}`;
}

/** As it stands in the list. */
export async function entryOf(key: string, entry: Omit<ApiKey, 'sha256'>): Promise<ApiKey> {
  const sha256 = Array.from(await sha256Of(key), (byte) => byte.toString(16).padStart(2, '0')).join('');
  return { name: entry.name, sha256, scopes: entry.scopes, limits: entry.limits };
}
