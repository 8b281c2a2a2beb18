/** Settings from an environment, checked at once: a wrong value stops the process, naming variable, value and what is allowed. */
import { z } from 'zod';
import { logLevels } from './log.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** A setting that is wrong. Its message is for the operator and is complete. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** @throws {ConfigError} with one line for each wrong variable. Values of `secret` variables, and passwords in URLs, are not printed. */
export function readConfig<S extends z.ZodObject>(schema: S, environment: Environment, secret: readonly string[] = []): z.infer<S> {
  // an empty variable is an unset one, as manifests that fill it from nothing mean it
  const values = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== undefined && value !== ''));
  const parsed = schema.safeParse(values);
  if (parsed.success) return parsed.data;
  const lines = parsed.error.issues.map((issue) => {
    const name = String(issue.path[0]);
    const value = values[name];
    if (value === undefined) return `${name} is not set: ${issue.message}`;
    return `${name}=${secret.includes(name) ? '(hidden)' : JSON.stringify(withoutPassword(value))}: ${issue.message}`;
  });
  throw new ConfigError(lines.join('\n'));
}

/** A URL carries a password before its last @, also where it is no valid URL. */
const withoutPassword = (value: string): string => value.replace(/^([a-z][a-z0-9+.-]*:\/\/)?.*@/is, '$1(hidden)@');

export const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d+$/, { error: `must be a whole number from ${min} to ${max}` })
    .transform(Number)
    .pipe(z.number().min(min, { error: `must be at least ${min}` }).max(max, { error: `must be at most ${max}` }));

const unitBytes = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 } as const;
/** Bytes; units are powers of 1024. */
export const bytes = z
  .string()
  .regex(/^\d{1,15}[KMGT]?$/i, { error: 'must be a number of bytes, or with a unit: 500M, 2G' })
  .transform((text) => Number.parseInt(text, 10) * unitBytes[(/[KMGT]$/.exec(text.toUpperCase())?.[0] ?? '') as keyof typeof unitBytes]);

export const flag = z
  .enum(['true', 'false', 'on', 'off', '1', '0'], { error: 'must be true or false (also on, off, 1, 0)' })
  .transform((value) => value === 'true' || value === 'on' || value === '1');

export const list = z.string().transform((value) => value.split(',').map((item) => item.trim()).filter((item) => item !== ''));

/** Several secrets, comma separated, the first in force; each long enough not to be guessed. */
export const secrets = list.refine((items) => items.length > 0 && items.every((item) => item.length >= 16), {
  error: 'must be one or more secrets, comma separated, each of at least 16 characters (openssl rand -hex 32)',
});

/** What every process reads. */
export const commonSettings = {
  REDIS_URL: z.url({ protocol: /^rediss?$/, error: 'must be a redis:// or rediss:// URL' }),
  QUEUE_PREFIX: z.string().regex(/^[A-Za-z0-9_{}-]{1,64}$/, { error: 'must be 1 to 64 of A-Z a-z 0-9 _ - { }' }).default('tabreel'),
  LOG_LEVEL: z.enum(logLevels, { error: `must be one of ${logLevels.join(', ')}` }).default('info'),
};
