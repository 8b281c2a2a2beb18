/** Keeps docs/proxies.md what the tests ran with and what came out. */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import type { Proxy } from './proxy.ts';

/** By row, then by proxy. */
export type Results = Map<string, Map<string, string>>;

const path = fileURLToPath(new URL('../../docs/proxies.md', import.meta.url));

/**
 * Each part between `<!-- NAME -->` and `<!-- /NAME -->` is as given here; with UPDATE_DOCS=1 it becomes so.
 * @throws where a part is missing or differs
 */
export async function checkDocs(parts: Readonly<Record<string, string>>): Promise<void> {
  const old = await readFile(path, 'utf8');
  let now = old;
  for (const [name, text] of Object.entries(parts)) {
    const part = new RegExp(`(<!-- ${name} -->\n)[\\s\\S]*?(<!-- /${name} -->)`);
    if (!part.test(now)) throw new Error(`docs/proxies.md has no part <!-- ${name} -->`);
    now = now.replace(part, (_all, start: string, end: string) => `${start}${text}\n${end}`);
  }
  if (process.env['UPDATE_DOCS'] === '1') await writeFile(path, now);
  else expect(old, 'docs/proxies.md is behind: UPDATE_DOCS=1 npx vitest run test/proxies').toBe(now);
}

const fenced = (language: string, text: string) => `\`\`\`${language}\n${text}\n\`\`\``;

export async function docsAreCurrent(proxies: readonly Proxy[], results: Results): Promise<void> {
  const table = markdownTable(['', ...proxies.map(({ name }) => name)], [...results].map(([row, by]) => [row, ...proxies.map(({ name }) => by.get(name) ?? '')]));
  console.log(table);
  const configurations = proxies.flatMap(({ name, lines }) => [
    [name, fenced(lines.language, lines.recommended)],
    [`${name}, prefix`, fenced(lines.language, lines.prefix)],
    [`${name}, second`, fenced(lines.language, lines.inner)],
  ]);
  await checkDocs({ ...Object.fromEntries(configurations), results: table });
}

export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}
