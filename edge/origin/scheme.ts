/** The words that headers have for a scheme. */
import type { Scheme } from './authority.ts';
import { aliasNames, listItems, type AliasName, type SeenHeaders } from './headers.ts';

const words: Readonly<Record<string, Scheme>> = { https: 'https', wss: 'https', on: 'https', http: 'http', ws: 'http', off: 'http' };

/** @returns null for a word that is no scheme */
export const schemeOf = (word: string): Scheme | null => Object.hasOwn(words, word.toLowerCase()) ? (words[word.toLowerCase()] ?? null) : null;

/** Of several, TLS wins: a false "https" fails one dial, a false "http" sends media and credential in the clear. */
export const safest = (schemes: readonly (Scheme | null)[]): Scheme | null =>
  schemes.includes('https') ? 'https' : schemes.includes('http') ? 'http' : null;

export type Alias = { name: AliasName; scheme: Scheme };

/** What the headers say that stand in for X-Forwarded-Proto: the first that says https, else the first that says http. */
export function readAliases({ forwarding }: SeenHeaders): Alias | null {
  let insecure: Alias | null = null;
  for (const name of aliasNames) {
    const value = forwarding[name];
    if (value === undefined) continue;
    const scheme = aliasScheme(name, value);
    if (scheme === 'https') return { name, scheme };
    if (scheme === 'http') insecure ??= { name, scheme };
  }
  return insecure;
}

export function aliasScheme(name: AliasName, value: string): Scheme | null {
  if (name === 'cf-visitor') return visitorScheme(value);
  // Azure App Service describes the connection's cipher and certificate, and leaves the header out where there is none
  if (name === 'x-arr-ssl') return value.trim() === '' ? null : 'https';
  return safest(listItems(value).map(schemeOf));
}

/** `{"scheme":"https"}`, Cloudflare's. */
function visitorScheme(value: string): Scheme | null {
  if (value.length > 200) return null;
  try {
    const { scheme } = (JSON.parse(value) ?? {}) as { scheme?: unknown };
    return scheme === 'https' || scheme === 'http' ? scheme : null;
  } catch {
    return null;
  }
}
