/** The `Forwarded` header (RFC 7239). */

/** What one proxy said; null where it said nothing. Quotes and escapes are gone. */
export type ForwardedElement = { for: string | null; proto: string | null; host: string | null };

/** Where and why a text is no `Forwarded` header. The text itself is not repeated: it may hold a secret of the proxies'. */
export class ForwardedSyntaxError extends Error {}

/** RFC 9110, 5.6.2; also `:`, `[` and `]`, since OpenShift's router sends `host=name:port` without quotes. */
const token = /[!#$%&'*+\-.^_`|~0-9A-Za-z:[\]]/;
const isToken = Array.from({ length: 128 }, (_, code) => token.test(String.fromCharCode(code)));
const isName = Array.from({ length: 128 }, (_, code) => isToken[code] === true && !':[]'.includes(String.fromCharCode(code)));

const TAB = 9;
const LINE = 10;
const SPACE = 32;
const QUOTE = 34;
const COMMA = 44;
const SEMICOLON = 59;
const EQUALS = 61;
const BACKSLASH = 92;

/**
 * @param text the header's lines, joined by `\n`: a quoted string never reaches beyond its line
 * @returns the elements, nearest proxy last
 * @throws {ForwardedSyntaxError}
 */
export function parseForwarded(text: string): ForwardedElement[] {
  const elements: ForwardedElement[] = [];
  const { length } = text;
  let at = 0;
  const fail = (what: string): never => {
    throw new ForwardedSyntaxError(`${what} at character ${at + 1}`);
  };
  const blanks = () => {
    while (at < length && (text.charCodeAt(at) === SPACE || text.charCodeAt(at) === TAB)) at += 1;
  };
  const run = (allowed: readonly boolean[]): string => {
    const from = at;
    while (at < length && allowed[text.charCodeAt(at)] === true) at += 1;
    return text.slice(from, at);
  };
  const quoted = (): string => {
    at += 1;
    let from = at;
    let value = '';
    for (; at < length; at += 1) {
      const code = text.charCodeAt(at);
      if (code === QUOTE) {
        value += text.slice(from, at);
        at += 1;
        return value;
      }
      if (code === BACKSLASH) {
        value += text.slice(from, at);
        at += 1;
        from = at;
        if (at === length) break;
      }
      const character = text.charCodeAt(at);
      if ((character < SPACE && character !== TAB) || character === 127) fail('a character that may not be in quotes');
    }
    return fail('a quoted string without an end');
  };

  while (at < length) {
    const element: ForwardedElement = { for: null, proto: null, host: null };
    const names: string[] = [];
    for (;;) {
      blanks();
      const name = run(isName).toLowerCase();
      if (name !== '') {
        if (text.charCodeAt(at) !== EQUALS) fail(`no = after ${name.slice(0, 20)}`);
        at += 1;
        const inQuotes = text.charCodeAt(at) === QUOTE;
        const value = inQuotes ? quoted() : run(isToken);
        if (value === '' && !inQuotes) fail(`no value of ${name.slice(0, 20)}`);
        // RFC 7239, 4: each parameter at most once
        if (names.includes(name)) fail(`a second ${name.slice(0, 20)} in one element`);
        names.push(name);
        if (name === 'for' || name === 'proto' || name === 'host') element[name] = value;
        blanks();
      }
      if (text.charCodeAt(at) !== SEMICOLON) break;
      at += 1;
    }
    if (names.length > 0) elements.push(element);
    if (at === length) break;
    const separator = text.charCodeAt(at);
    if (separator !== COMMA && separator !== LINE) fail('a character out of place');
    at += 1;
  }
  return elements;
}

/**
 * The address of a node (`192.0.2.1`, `192.0.2.1:4711`, `[2001:db8::1]:4711`, and bare IPv6 as in X-Forwarded-For).
 * @returns null where it is no address: `unknown` and obfuscated nodes are nobody's that could be trusted
 */
export function nodeAddress(node: string): string | null {
  const bracketed = /^\[([0-9a-f:.]+)\](?::[\w.-]{1,32})?$/i.exec(node);
  if (bracketed) return bracketed[1] ?? null;
  const colon = node.indexOf(':');
  if (colon === -1 || node.includes(':', colon + 1)) return /^[0-9a-f.:%]+$/i.test(node) ? node : null;
  return /^[\d.]+$/.test(node.slice(0, colon)) ? node.slice(0, colon) : null;
}
