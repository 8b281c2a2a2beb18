/** Which header lines the rule reads. */
import type { HeaderLine } from './facts.ts';

/** Say the scheme where no X-Forwarded-Proto does; read by these names, in this order. */
export const aliasNames = [
  'x-forwarded-protocol',
  'x-forwarded-scheme',
  'x-forwarded-ssl',
  'x-scheme',
  'x-url-scheme',
  'front-end-https',
  'cloudfront-forwarded-proto',
  'cf-visitor',
  'x-arr-ssl',
  'x-appengine-https',
] as const;
export type AliasName = (typeof aliasNames)[number];

/** Of the two families. */
const families = ['forwarded', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-port', 'x-forwarded-prefix'] as const;
const forwardingNames = [...families, ...aliasNames] as const;
export type ForwardingName = (typeof forwardingNames)[number];
export const familyNames: ReadonlySet<ForwardingName> = new Set(families);

/** Whether a header of this name, in lower case, is one that proxies add, or could be taken for one. */
export const isForwarding = (name: string): boolean => (readNames.has(name) && name !== 'host') || isLookalike(name);

const readNames: ReadonlySet<string> = new Set(['host', ...forwardingNames]);

/** As they are known; others are shown as they came. */
const properNames: Readonly<Record<string, string>> = {
  'x-forwarded-ssl': 'X-Forwarded-Ssl',
  'cloudfront-forwarded-proto': 'CloudFront-Forwarded-Proto',
  'cf-visitor': 'CF-Visitor',
  'x-arr-ssl': 'X-ARR-SSL',
  'x-appengine-https': 'X-AppEngine-Https',
};

export const properName = (name: string): string =>
  properNames[name] ?? name.replaceAll(/(^|-)[a-z]/g, (letter) => letter.toUpperCase());

export type SeenHeaders = {
  hosts: number;
  host: string | null;
  /** By lower-case name; several lines of one name joined by a line feed. */
  forwarding: Partial<Record<ForwardingName, string>>;
};

export function readHeaders(lines: readonly HeaderLine[]): SeenHeaders {
  const seen: SeenHeaders = { hosts: 0, host: null, forwarding: {} };
  for (const [sent, value] of lines) {
    const name = sent.toLowerCase();
    if (!readNames.has(name)) continue;
    if (name === 'host') {
      seen.hosts += 1;
      seen.host ??= value.trim();
    } else {
      const before = seen.forwarding[name as ForwardingName];
      seen.forwarding[name as ForwardingName] = before === undefined ? value : `${before}\n${value}`;
    }
  }
  return seen;
}

/** Items of a list that may have several lines; empty ones do not count (RFC 9110, 5.6.1). */
export function listItems(text: string | undefined): string[] {
  if (text === undefined) return [];
  if (!text.includes(',') && !text.includes('\n')) {
    const only = text.trim();
    return only === '' ? [] : [only];
  }
  return text
    .split(/[,\n]/)
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** Look as if they told the origin, and are not read; by which spelling a proxy merges or keeps them is nobody's to know. */
export const isLookalike = (name: string): boolean => {
  const lower = name.toLowerCase();
  if (readNames.has(lower)) return false;
  return readNames.has(lower.replaceAll(/[_.]/g, '-')) || /^x[-_.]original[-_.](proto|host|port|scheme)$/.test(lower);
};
