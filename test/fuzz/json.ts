/** Values for a JSON schema as openapi.json has them: some that fit, most that nearly do, and some that are nothing of the kind. */

type Schema = {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  oneOf?: Schema[];
  anyOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: Schema | boolean;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  format?: string;
  pattern?: string;
};

export type Random = () => number;

export const pick = <T>(random: Random, all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;

/** What breaks programs that didn't think of it. */
const texts = [
  '', ' ', '\0', 'a\0b', '\r\nx: y', '../../etc/passwd', '..%2f..%2fetc%2fpasswd', '%00', '%', '%zz', '\u202e\u0000', '\ud800', '𝕏'.repeat(50), 'x'.repeat(9000), '__proto__', 'constructor', 'toString', 'null', 'undefined', 'NaN',
  '-1', '1e999', '0x10', 'true', '[]', '{}', '<script>', "' or 1=1 --", '${7*7}', '{{7*7}}', '*', '\\', '"', 'http://', 'https://example.com/', 'https://user:pass@example.com/', 'file:///etc/passwd', 'javascript:1', 'http://[::1', 'https://example.com:99999/', 'wss://example.com/app/websocket', '1970-01-01T00:00:00Z', '9999-12-31T23:59:59Z',
  'rec_01jd0000000000000000000000', 'KEYS *', '\u0001\u0002', 'İ', 'ﬀ', 'a'.repeat(255), 'é'.normalize('NFD'),
];
const numbers = [0, -0, 1, -1, 2, 16, 30, 59.94, 0.5, 640, 1e308, -1e308, 1e-308, 2 ** 31, 2 ** 53, 2 ** 53 + 2, 4294967296, 1.7976931348623157e308];
const odd: readonly unknown[] = [null, true, false, [], {}, [[]], [null], { a: 1 }, { __proto__x: 1 }, { length: 1e9 }, { toString: 1 }, { toJSON: 'x' }];

export const anyText = (random: Random): string => pick(random, texts);
export const anything = (random: Random): unknown => pick(random, [...texts, ...numbers, ...odd] as unknown[]);

/** @param fit how likely each part is what the schema asks for, 0 to 1; at 1 numbers are in their range too, and nothing is there that has no place */
export function valueFor(schema: Schema | boolean | undefined, random: Random, fit: number, depth = 0): unknown {
  if (schema === undefined || typeof schema === 'boolean' || random() > fit || depth > 8) return anything(random);
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return pick(random, schema.enum);
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices !== undefined) return valueFor(pick(random, choices), random, fit, depth + 1);
  switch (schema.type) {
    case 'object': {
      const found: Record<string, unknown> = {};
      for (const [name, each] of Object.entries(schema.properties ?? {})) {
        if ((schema.required?.includes(name) ?? false) ? random() < fit : random() < 0.25) found[name] = valueFor(each, random, fit, depth + 1);
      }
      const more = fit < 1 && random() < 0.3 ? Math.ceil(random() * 3) : 0;
      for (let i = 0; i < more; i += 1) Object.defineProperty(found, anyText(random), { value: valueFor(schema.additionalProperties, random, fit, depth + 1), enumerable: true, configurable: true, writable: true });
      return found;
    }
    case 'array':
      return Array.from({ length: Math.floor(random() * 4) }, () => valueFor(schema.items, random, fit, depth + 1));
    case 'integer':
    case 'number': {
      const { minimum = 0, maximum = 100 } = schema;
      const value = pick(random, [minimum, maximum, minimum + random() * (maximum - minimum), ...(fit < 1 ? [minimum - 1, maximum + 1] : [])]);
      return schema.type === 'integer' ? Math.round(value / 2) * 2 : value;
    }
    case 'boolean':
      return random() < 0.5;
    default:
      return schema.format === 'date-time' ? '2026-01-01T00:00:00Z' : fit < 1 ? pick(random, ['https://example.com/', 'load', 'a', 'x'.repeat(schema.maxLength ?? 3)]) : schema.maxLength === 8192 ? 'https://example.com/' : 'abc';
  }
}

/** JSON text of a value, now and then broken as JSON. */
export function textOf(value: unknown, random: Random): string {
  const text = JSON.stringify(value) ?? 'undefined';
  const roll = random();
  if (roll < 0.9) return text;
  if (roll < 0.92) return text.slice(0, Math.floor(random() * text.length));
  if (roll < 0.93) return `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
  if (roll < 0.94) return `{"a":`.repeat(20_000);
  if (roll < 0.95) return text.replace('{', '{"url":"https://a.example/","url":"https://b.example/","__proto__":{"x":1},');
  if (roll < 0.96) return `\ufeff${text}`;
  if (roll < 0.97) return '1'.repeat(5000);
  if (roll < 0.98) return `"${'\\u0000'.repeat(1000)}"`;
  if (roll < 0.985) return `{"url":"${'x'.repeat(300_000)}"}`;
  return anyText(random);
}
