/**
 * Credentials and sealed secrets, on WebCrypto alone so that every edge runtime can make them.
 *
 * A credential is a JWT (RFC 7519, HS256) for one recording and one use, signed with TOKEN_SECRET: `media` opens the
 * recording's media socket, `view` its files, playlist and events, read-only. An attempt token is another, for minutes: the
 * ingest gives it on an open media socket, and it says that this attempt was the newest then. Several secrets may be in force:
 * the first signs, all verify, so that a secret can be replaced without downtime.
 */
import { sign, verify } from 'hono/jwt';

export type TokenUse = 'media' | 'view';

/** @param expires milliseconds since the epoch. */
export const signToken = (secrets: readonly string[], recordingId: string, use: TokenUse, expires: number): Promise<string> =>
  signClaims(secrets, { sub: recordingId, use }, expires);

/** Whether the token was made by us for this recording and use, and is still in force. Never throws. */
export const verifyToken = (secrets: readonly string[], token: string, recordingId: string, use: TokenUse): Promise<boolean> =>
  verifyClaims(secrets, token, { sub: recordingId, use });

/** @param expires milliseconds since the epoch. */
export const signAttemptToken = (secrets: readonly string[], recordingId: string, attempt: number, expires: number): Promise<string> =>
  signClaims(secrets, { sub: recordingId, use: 'attempt', attempt }, expires);

/** Whether the token was made by us for this attempt and is still in force. Never throws. */
export const verifyAttemptToken = (secrets: readonly string[], token: string, recordingId: string, attempt: number): Promise<boolean> =>
  verifyClaims(secrets, token, { sub: recordingId, use: 'attempt', attempt });

/** Who is logged in at the dashboard: by which key, told by its hash. @param expires milliseconds since the epoch. */
export const signSession = (secrets: readonly string[], keyHash: string, expires: number): Promise<string> =>
  signClaims(secrets, { sub: keyHash, use: 'dashboard' }, expires);

/** @returns the key's hash; null for a session that is over, or none of ours. Never throws. */
export async function readSession(secrets: readonly string[], token: string): Promise<string | null> {
  for (const secret of secrets) {
    try {
      const { sub, use } = await verify(token, secret, 'HS256');
      return use === 'dashboard' && typeof sub === 'string' ? sub : null;
    } catch {
      // another secret may have signed it
    }
  }
  return null;
}

type Claims = Readonly<Record<string, string | number>>;

function signClaims(secrets: readonly string[], claims: Claims, expires: number): Promise<string> {
  const secret = secrets[0];
  if (secret === undefined) throw new TypeError('signToken: no secret given');
  return sign({ ...claims, exp: Math.floor(expires / 1000) }, secret, 'HS256');
}

async function verifyClaims(secrets: readonly string[], token: string, expected: Claims): Promise<boolean> {
  for (const secret of secrets) {
    try {
      const claims = await verify(token, secret, 'HS256');
      return Object.entries(expected).every(([name, value]) => claims[name] === value);
    } catch {
      // another secret may have signed it
    }
  }
  return false;
}

const sealKey = async (secret: string): Promise<CryptoKey> => {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(`tabreel seal ${secret}`));
  return crypto.subtle.importKey('raw', digest, 'AES-GCM', false, ['encrypt', 'decrypt']);
};

const toBase64Url = (bytes: Uint8Array): string =>
  btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '');
const fromBase64Url = (text: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (char) => char.charCodeAt(0));

/** AES-256-GCM, 96-bit random nonce; bound to the recording, so that it can't be replayed in another one's job. */
export async function seal(keys: readonly string[], recordingId: string, plain: unknown): Promise<string> {
  const secret = keys[0];
  if (secret === undefined) throw new TypeError('seal: no key given');
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const additionalData = new TextEncoder().encode(recordingId);
  const data = new TextEncoder().encode(JSON.stringify(plain));
  const cipher = await crypto.subtle.encrypt({ name: 'AES-GCM', iv, additionalData }, await sealKey(secret), data);
  return `v1.${toBase64Url(iv)}.${toBase64Url(new Uint8Array(cipher))}`;
}

/** @throws {TypeError} where no key opens it. */
export async function unseal(keys: readonly string[], recordingId: string, sealed: string): Promise<unknown> {
  const [version, iv, cipher] = sealed.split('.');
  if (version !== 'v1' || iv === undefined || cipher === undefined) throw new TypeError('unseal: not a sealed value');
  const additionalData = new TextEncoder().encode(recordingId);
  for (const secret of keys) {
    try {
      const plain = await crypto.subtle.decrypt(
        { name: 'AES-GCM', iv: fromBase64Url(iv), additionalData },
        await sealKey(secret),
        fromBase64Url(cipher),
      );
      return JSON.parse(new TextDecoder().decode(plain)) as unknown;
    } catch {
      // another key may have sealed it
    }
  }
  throw new TypeError('unseal: no key in SECRETS_KEY opens it');
}
