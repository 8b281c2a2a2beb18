import { sign } from 'hono/jwt';
import { describe, expect, test } from 'vitest';
import { newRecordingId } from '../../shared/recording.ts';
import { seal, signAttemptToken, signToken, unseal, verifyAttemptToken, verifyToken } from '../../shared/token.ts';

const id = newRecordingId();
const other = newRecordingId();
const secret = 'a-secret-of-at-least-16';
const older = 'the-secret-before-this-one';
const inAMinute = Date.now() + 60_000;

/** The same text with one character of its nth dot-separated part changed. */
const tampered = (text: string, part: number): string =>
  text
    .split('.')
    .map((piece, i) => (i === part ? `${piece.slice(0, 4)}${piece[4] === 'A' ? 'B' : 'A'}${piece.slice(5)}` : piece))
    .join('.');

describe('a credential', () => {
  test('opens its own recording, for its own use', async () => {
    for (const use of ['media', 'view'] as const) {
      const token = await signToken([secret], id, use, inAMinute);
      expect(await verifyToken([secret], token, id, use)).toBe(true);
      expect(await verifyToken([secret], token, other, use)).toBe(false);
      expect(await verifyToken([secret], token, id, use === 'media' ? 'view' : 'media')).toBe(false);
      // it travels in a header, and for players in a query
      expect(encodeURIComponent(token)).toBe(token);
    }
  });

  test('ends when it says', async () => {
    expect(await verifyToken([secret], await signToken([secret], id, 'view', Date.now() - 1000), id, 'view')).toBe(false);
    expect(await verifyToken([secret], await signToken([secret], id, 'view', Date.now() + 2000), id, 'view')).toBe(true);
  });

  test('lives through a change of secrets, until the old one is taken out', async () => {
    const before = await signToken([older], id, 'media', inAMinute);
    expect(await verifyToken([secret, older], before, id, 'media')).toBe(true);
    expect(await verifyToken([secret], before, id, 'media')).toBe(false);
    const after = await signToken([secret, older], id, 'media', inAMinute);
    expect(await verifyToken([secret], after, id, 'media')).toBe(true);
    expect(await verifyToken([older], after, id, 'media')).toBe(false);
  });

  test('made up or changed is refused, without an exception', async () => {
    const token = await signToken([secret], id, 'view', inAMinute);
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const claims = { sub: id, use: 'view', exp: Math.floor(inAMinute / 1000) };
    for (const forged of [
      '',
      'x',
      'a.b.c',
      tampered(token, 0),
      tampered(token, 1),
      tampered(token, 2),
      token.slice(0, -1),
      `${part({ alg: 'none', typ: 'JWT' })}.${part(claims)}.`,
      await sign(claims, 'somebody-elses-secret', 'HS256'),
      await sign(claims, secret, 'HS512'),
    ]) {
      expect(await verifyToken([secret], forged, id, 'view'), forged).toBe(false);
    }
    expect(await verifyToken([], token, id, 'view')).toBe(false);
    await expect(async () => signToken([], id, 'view', inAMinute)).rejects.toThrow(TypeError);
  });
});

test('an attempt token is good for its attempt alone, and is no credential', async () => {
  const token = await signAttemptToken([secret], id, 2, inAMinute);
  expect(await verifyAttemptToken([older, secret], token, id, 2)).toBe(true);
  expect(await verifyAttemptToken([secret], token, id, 3)).toBe(false);
  expect(await verifyAttemptToken([secret], token, other, 2)).toBe(false);
  expect(await verifyAttemptToken([older], token, id, 2)).toBe(false);
  expect(await verifyAttemptToken([secret], await signAttemptToken([secret], id, 2, Date.now() - 1000), id, 2)).toBe(false);
  expect(await verifyAttemptToken([secret], await signToken([secret], id, 'media', inAMinute), id, 2)).toBe(false);
  expect(await verifyToken([secret], token, id, 'media')).toBe(false);
});

describe('what is sealed', () => {
  const plain = { headers: { authorization: 'Bearer tops3cret' }, cookies: [{ name: 'n', value: 'café 日本 🎥' }] };

  test('can be read with the key only, and never looks the same twice', async () => {
    const sealed = await seal([secret], id, plain);
    expect(await unseal([secret], id, sealed)).toEqual(plain);
    expect(Buffer.from(sealed.split('.')[2] ?? '', 'base64url').toString('latin1')).not.toContain('tops3cret');
    expect(await seal([secret], id, plain)).not.toBe(sealed);
    await expect(unseal([older], id, sealed)).rejects.toThrow('no key in SECRETS_KEY opens it');
  });

  test("is of no use in another recording's job", async () => {
    await expect(unseal([secret], other, await seal([secret], id, plain))).rejects.toThrow(TypeError);
  });

  test('lives through a change of keys, until the old one is taken out', async () => {
    const before = await seal([older], id, plain);
    expect(await unseal([secret, older], id, before)).toEqual(plain);
    await expect(unseal([secret], id, before)).rejects.toThrow(TypeError);
    expect(await unseal([secret], id, await seal([secret, older], id, plain))).toEqual(plain);
  });

  test('and changed is refused', async () => {
    const sealed = await seal([secret], id, plain);
    const [version, iv, cipher = ''] = sealed.split('.');
    for (const changed of [
      tampered(sealed, 1),
      tampered(sealed, 2),
      `${version}.${iv}.${cipher.slice(0, -8)}`,
      `${version}.${iv}.`,
      `${version}.${iv}`,
      `v2.${iv}.${cipher}`,
      `${version}.${iv}.!!not base64!!`,
      '',
    ]) {
      await expect(unseal([secret], id, changed), changed).rejects.toThrow(TypeError);
    }
    await expect(seal([], id, plain)).rejects.toThrow(TypeError);
  });

  test('may be as large as fifty long headers', async () => {
    const large = { headers: Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`x-${i}`, 'v'.repeat(8192)])) };
    const sealed = await seal([secret], id, large);
    // as much as the job's schema takes
    expect(sealed.length).toBeLessThan(1_000_000);
    expect(await unseal([secret], id, sealed)).toEqual(large);
  });
});
