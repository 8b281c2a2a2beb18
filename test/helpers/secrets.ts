/** Where a secret is, in whatever form: what is looked for is in no text of ours, and in all secrets that a test makes. */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** Of letters and digits, which JSON, URLs and HTML leave as they are. */
const MARK = `Q${randomBytes(9).toString('hex')}`;

/** A secret of its own, 40 characters or more. */
export const markedSecret = (name: string): string => `${MARK}${name.replaceAll(/\W/g, '')}${randomBytes(10).toString('hex')}`;

/** The part of base64 that any text around it leaves as it is, for each way that three bytes can be cut. */
const inBase64 = (text: string): string[] =>
  [0, 1, 2].map((before) => {
    const encoded = Buffer.from(`${' '.repeat(before)}${text}`).toString('base64');
    return encoded.slice(before === 0 ? 0 : before + 1, Math.floor(((before + text.length) * 8) / 6));
  });

const formsOf = (text: string): readonly (readonly [form: string, sought: Buffer])[] => [
  ['in the clear', Buffer.from(text)],
  ['in UTF-16', Buffer.from(text, 'utf16le')],
  ['in hex', Buffer.from(Buffer.from(text).toString('hex'))],
  ['in capital hex', Buffer.from(Buffer.from(text).toString('hex').toUpperCase())],
  ...inBase64(text).flatMap((each) => [...new Set([each, each.replaceAll('+', '-').replaceAll('/', '_')])].map((form) => ['in base64', Buffer.from(form)] as const)),
];

const jwt = /eyJ[\w-]+\.(eyJ[\w-]+)\.[\w-]+/g;

export type Finder = {
  /**
   * What is in a text that should not be: marked secrets but for `but`, further ones, tokens that we sign.
   * @param links whether tokens for looking at a recording may be there, as in answers
   */
  in(text: string | Buffer, options?: { but?: readonly string[]; links?: boolean }): string[];
  /** Also looks for this one, which could not be marked. */
  add(name: string, secret: string): void;
};

export function createFinder(): Finder {
  const sought: { name: string; forms: ReturnType<typeof formsOf> }[] = [];
  const marks = formsOf(MARK);
  return {
    add: (name, secret) => void sought.push({ name, forms: formsOf(secret) }),
    in(text, { but = [], links = false } = {}) {
      const given = typeof text === 'string' ? Buffer.from(text) : text;
      const without = (rest: string, each: string) => rest.replaceAll(each, '').replaceAll(Buffer.from(each, 'utf16le').toString('latin1'), '');
      const bytes = but.length === 0 ? given : Buffer.from(but.reduce(without, given.toString('latin1')), 'latin1');
      const found = marks.flatMap(([form, needle]) => {
        const at = bytes.indexOf(needle);
        return at < 0 ? [] : [`${form}: ${bytes.subarray(Math.max(0, at - 60), at + 70).toString('latin1')}`];
      });
      for (const { name, forms } of sought) for (const [form, needle] of forms) if (bytes.includes(needle)) found.push(`${name} ${form}`);
      for (const [, claims = ''] of bytes.toString('latin1').matchAll(jwt)) {
        const { use } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { use?: string };
        if (!links || use !== 'view') found.push(`a token for ${use}`);
      }
      return [...new Set(found)];
    },
  };
}

/** What is in the files below a directory, by their paths; those that go meanwhile are left out. */
export function filesBelow(directory: string): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    try {
      const path = join(directory, name);
      if (statSync(path).isFile()) found.set(name, readFileSync(path));
    } catch {
      // it is gone
    }
  }
  return found;
}
