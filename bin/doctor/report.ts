/** What doctor prints: a line for each link, below it what is worth knowing and what to do. */
import { styleText } from 'node:util';
import type { Link, Mark } from './link.ts';

const marks: Readonly<Record<Mark, { word: string; style: Parameters<typeof styleText>[0] }>> = {
  ok: { word: 'ok', style: 'green' },
  warn: { word: 'warn', style: 'yellow' },
  fail: { word: 'FAIL', style: 'red' },
  skipped: { word: '-', style: 'dim' },
};
const INDENT = ' '.repeat(17);

/** Several lines, none at the end. Colours only where the stream is a terminal that wants them. */
export function renderLink({ name, mark, detail, notes, advice }: Link, stream: NodeJS.WriteStream): string {
  const { word, style } = marks[mark];
  return [
    `${styleText(style, word.padEnd(5), { stream })} ${name.padEnd(10)} ${detail}`,
    ...notes.map((line) => `${INDENT}${line}`),
    ...advice.map((line) => `${INDENT}${line.startsWith(' ') ? `  ${line}` : `> ${line}`}`),
  ].join('\n');
}

/** The last line. */
export function summarise(links: readonly Link[]): string {
  const named = (mark: Mark) => links.filter((link) => link.mark === mark).map(({ name }) => name);
  const [broken, doubtful] = [named('fail'), named('warn')];
  const warned = doubtful.length === 0 ? '' : `, to be looked at: ${doubtful.join(', ')}`;
  if (broken.length > 0) return `Broken: ${broken.join(', ')}${warned}`;
  return `All links hold${warned}`;
}
