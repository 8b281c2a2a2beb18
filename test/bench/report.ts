/** The tables of docs/benchmarks.md. */
import { readFile, writeFile } from 'node:fs/promises';
import { summary } from '../helpers/analyse.ts';
import type { Result } from './measure.ts';

export type Results = {
  machine: string;
  /** Measured in each turn. */
  seconds: number;
  /** What each way is, by name. */
  ways: Record<string, string>;
  measured: Result[];
  /** Milliseconds from POST to the first stored segment, by engine. */
  firstSegments: Record<string, number[]>;
};

const BEGIN = '<!-- tables: npm run bench -- --document -->';
const END = '<!-- end of tables -->';

const titles: Record<string, string> = {
  static: 'A static page',
  deck: 'A scrolling slide deck',
  videos: 'Four videos',
  'one-video': 'One video on a page that draws at 60 Hz',
};

type Numbers = { [K in keyof Result]-?: Result[K] extends number | null ? K : never }[keyof Result];

/** Replaces what is between the two marks; the words around them are written by hand. */
export async function writeDocument(path: string, results: Results): Promise<void> {
  const text = await readFile(path, 'utf8');
  const from = text.indexOf(BEGIN);
  const to = text.indexOf(END);
  if (from === -1 || to < from) throw new Error(`${path} has no place for the tables: ${BEGIN} ... ${END}`);
  await writeFile(path, `${text.slice(0, from)}${BEGIN}\n\n${tables(results)}\n\n${text.slice(to)}`);
}

function tables(results: Results): string {
  const names = Object.keys(results.ways);
  const of = (page: string, way: string) => results.measured.filter((result) => result.page === page && result.way === way);
  const middle = (page: string, way: string, key: Numbers) => {
    const values = of(page, way).flatMap((result) => (result[key] === null || Number.isNaN(result[key]) ? [] : [result[key]]));
    return values.length === 0 ? null : { ...summary(values), least: Math.min(...values), most: Math.max(...values) };
  };
  const show = (value: number | null | undefined, digits: number, unit = 1) => (value === null || value === undefined ? '-' : (value / unit).toFixed(digits));
  const perPicture = (page: string, way: string) => {
    const values = of(page, way).flatMap(({ cores, unique }) => (unique === null || unique === 0 ? [] : [(cores / unique) * 1000]));
    return values.length === 0 ? null : summary(values).median;
  };

  const page = (name: string, title: string): string => {
    const rows = names
      .filter((way) => of(name, way).length > 0)
      .map((way) => {
        const cores = middle(name, way, 'cores');
        return [
          way,
          `${show(cores?.median, 2)} (${show(cores?.least, 2)}-${show(cores?.most, 2)})`,
          ...(name === 'static' ? [] : [show(perPicture(name, way), 1), show(middle(name, way, 'unique')?.median, 1), show(middle(name, way, 'longestGap')?.median, 0, 0.001)]),
          ...(name === 'videos' || name === 'one-video' ? [show(middle(name, way, 'soundOffset')?.median, 0)] : []),
          show(middle(name, way, 'peakMemory')?.median, 0, 2 ** 20),
          show(middle(name, way, 'bitrate')?.median, 2, 1e6),
          show(middle(name, way, 'edgeCores')?.median, 3),
        ];
      });
    const head = [
      'way', 'cores (least-most)',
      ...(name === 'static' ? [] : ['CPU ms per new picture', 'new pictures/s', 'longest gap, ms']),
      ...(name === 'videos' || name === 'one-video' ? ['sound after picture, ms'] : []),
      'peak PSS, MiB', 'Mb/s', 'edge, cores',
    ];
    return `### ${title}\n\n${table(head, rows)}`;
  };

  const known = names
    .filter((way) => middle('known', way, 'ssim') !== null)
    .map((way) => [
      way,
      show(middle('known', way, 'ssim')?.median, 3),
      `${show(middle('known', way, 'ssim')?.least, 3)}-${show(middle('known', way, 'ssim')?.most, 3)}`,
      show(middle('known', way, 'bitrate')?.median, 2, 1e6),
    ]);
  const firsts = Object.entries(results.firstSegments).map(([engine, times]) => {
    const { median, p95 } = summary(times);
    return [engine, String(times.length), show(median, 2, 1000), show(p95, 2, 1000)];
  });
  const stolen = summary(results.measured.map((result) => result.stolen));
  return [
    `Machine: ${results.machine}. Neighbours took ${show(stolen.median, 0, 0.01)} % of its time (median of all turns; 95th percentile ${show(stolen.p95, 0, 0.01)} %).`,
    ...Object.entries(titles).filter(([name]) => results.measured.some((result) => result.page === name)).map(([name, title]) => page(name, title)),
    ...(known.length > 0 ? [`### Likeness to the page (SSIM)\n\n${table(['way', 'SSIM', 'least-most', 'Mb/s'], known)}`] : []),
    ...(firsts.length > 0 ? [`### From POST to the first stored segment, warm worker\n\n${table(['engine', 'runs', 'median, s', '95th percentile, s'], firsts)}`] : []),
    `### What the ways are\n\n${names.map((way) => `- **${way}**: ${results.ways[way]}`).join('\n')}`,
  ].join('\n\n');
}

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
