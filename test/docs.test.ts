/** What the documentation says can be looked up: links lead somewhere, and metrics are those that there are. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const under = (directory: string, ending: string) =>
  readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending) && !name.includes('node_modules'))
    .map((name) => join(directory, name));
const pages = [...readdirSync(root).filter((name) => name.endsWith('.md')), ...under('docs', '.md'), ...under('deploy', '.md')];

/** As GitHub makes them of headings. */
const anchors = (text: string) =>
  [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => heading.toLowerCase().replaceAll(/[^\p{L}\p{N}_\- ]/gu, '').trim().replaceAll(' ', '-'));

test.each(pages)('%s has no link that leads nowhere', (page) => {
  const broken = [...read(page).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target).filter((target) => {
    if (/^[a-z]+:/.test(target)) return false;
    const [path = '', fragment = ''] = target.split('#');
    const file = path === '' ? page : join(dirname(page), path);
    if (!existsSync(join(root, file))) return true;
    return fragment !== '' && file.endsWith('.md') && !anchors(read(file)).includes(fragment);
  });
  expect(broken).toEqual([]);
});

test('docs/metrics.md and docs/doctor.md have every metric, and no other', () => {
  const sources = ['edge', 'worker', 'bin', 'shared'].flatMap((directory) => under(directory, '.ts')).map(read).join('\n');
  const there = [...sources.matchAll(/metricText\(\s*'(tabreel_\w+)'/g)].map(([, name]) => name);
  there.push(...[...read('worker/health.ts').matchAll(/\bmetric\('(\w+)'/g)].map(([, name]) => `tabreel_worker_${name}`));
  const told = ['metrics', 'doctor'].flatMap((name) => [...read(`docs/${name}.md`).matchAll(/`(tabreel_\w+)(?:\{[^}]*\})?`/g)].map(([, metric]) => metric));
  expect(new Set(told)).toEqual(new Set(there));
});
