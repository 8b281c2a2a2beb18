/** `tabreel key NAME`: makes an API key. The key is on the terminal alone; what is kept is its hash. */
import { entryOf, keyEntry, newApiKey } from '../edge/access/keys.ts';
import { ConfigError } from '../shared/config.ts';

export type KeyArguments = {
  name: string;
  scopes: readonly string[];
  /** As they were typed; missing for no limit. */
  limits: Readonly<Record<'concurrent' | 'perMinute' | 'maxDuration', string | undefined>>;
};

const options: Readonly<Record<string, string>> = { name: 'NAME', scopes: '--scope', concurrent: '--concurrent', perMinute: '--per-minute', maxDuration: '--max-duration' };

/** @returns the exit code @throws {ConfigError} naming the option that is wrong */
export async function keyCommand({ name, scopes, limits }: KeyArguments, terminal: { write(text: string): unknown }): Promise<number> {
  const numbers = Object.fromEntries(Object.entries(limits).flatMap(([limit, text]) => (text === undefined ? [] : [[limit, Number(text)]])));
  const parsed = keyEntry.omit({ sha256: true }).safeParse({ name, scopes, limits: numbers });
  if (!parsed.success) {
    throw new ConfigError(parsed.error.issues.map(({ path, message }) => `${options[String(path[0] === 'limits' ? path[1] : path[0])] ?? path.join('.')}: ${message}`).join('; '));
  }
  const key = newApiKey();
  terminal.write(`${key}

That is the key: it is shown this once. Callers send it as Authorization: Bearer <key>.
In the file that API_KEYS names, {"keys":[...]}, its entry is:

${JSON.stringify(await entryOf(key, parsed.data))}
`);
  return 0;
}
