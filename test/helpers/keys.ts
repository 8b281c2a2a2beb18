/** API keys of tests. Where requests come by a proxy, or say so, an edge answers nobody without one. */
import { entryOf, keyRing, newApiKey, type ApiKey, type KeyLimits, type Scope } from '../../edge/access/keys.ts';
import type { EdgeConfig } from '../../edge/config.ts';

export type TestKey = { key: string; entry: ApiKey; headers: { authorization: string } };

export async function testKey(name: string, scopes: Scope[], limits: KeyLimits = {}): Promise<TestKey> {
  const key = newApiKey();
  return { key, entry: await entryOf(key, { name, scopes, limits }), headers: { authorization: `Bearer ${key}` } };
}

/** As API_KEYS has them. */
export const keyList = (...keys: readonly TestKey[]): string => JSON.stringify({ keys: keys.map(({ entry }) => entry) });

/** As an edge's config has them. */
export const keySetting = (...keys: readonly TestKey[]): NonNullable<EdgeConfig['apiKeys']> => ({ ring: keyRing(keys.map(({ entry }) => entry)) });

/** May do all. */
export const operator = await testKey('operator', ['admin']);

/** For curl. */
export const operatorCurl = ['--header', `authorization: ${operator.headers.authorization}`] as const;

/** Of an edge that knows the operator, and listens on loopback all the same. */
export const operatorEnvironment = { API_KEYS: keyList(operator), HOST: '127.0.0.1' };
