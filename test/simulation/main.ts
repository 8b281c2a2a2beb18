/**
 * `npm run simulate -- [scenario ...] [--seed N] [--document]`: what the scaling rule does to fleets of 10 to 10,000 recordings at
 * once, beside other rules and other values of it. The rule is the chart's (deploy/chart/values.yaml) where that is there.
 * `--document` writes the tables into docs/scale.md and the plots beside it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { plot } from './plot.ts';
import { readRule, type Rule } from './rule.ts';
import { ways } from './rules.ts';
import { run, runOnce, type Figures, type Run } from './run.ts';
import { scenarioNames, told, type ScenarioName } from './scenarios.ts';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { seed: { type: 'string', default: '1' }, document: { type: 'boolean', default: false } } });
const unknown = positionals.filter((name) => !scenarioNames.includes(name as ScenarioName));
if (unknown.length > 0) {
  console.error(`There is no ${unknown.join(', ')}: only ${scenarioNames.join(', ')}`);
  process.exit(2);
}
const chosen = positionals.length > 0 ? (positionals as ScenarioName[]) : scenarioNames;
const seed = Number(values.seed);
const seeds = [seed, seed + 1, seed + 2];
const rule = readRule();
const began = performance.now();

const whole = (value: number) => Math.round(value).toLocaleString('en');
const share = (value: number) => `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} %`;
const columns = {
  recordings: ({ recordings }: Figures) => whole(recordings),
  p50: ({ p50 }: Figures) => whole(p50),
  p95: ({ p95 }: Figures) => whole(p95),
  p99: ({ p99 }: Figures) => whole(p99),
  most: ({ most }: Figures) => whole(most),
  'waited > 5 s': ({ waited }: Figures) => share(waited),
  'announced, p99': ({ announced }: Figures) => whole(announced.p99),
  'pods, mean': ({ podsMean }: Figures) => whole(podsMean),
  'pods, most': ({ podsMost }: Figures) => whole(podsMost),
  'pod hours': ({ podHours }: Figures) => whole(podHours),
  least: ({ leastPodHours }: Figures) => whole(leastPodHours),
  efficiency: ({ efficiency }: Figures) => share(efficiency),
  'pods started': ({ started }: Figures) => whole(started),
  missed: ({ missed }: Figures) => whole(missed),
  killed: ({ killed }: Figures) => whole(killed),
  'handed over': ({ handedOver }: Figures) => whole(handedOver),
  interrupted: ({ interrupted }: Figures) => whole(interrupted),
} satisfies Record<string, (figures: Figures) => string>;
type Column = keyof typeof columns;
const waits: Column[] = ['p50', 'p95', 'p99', 'most', 'waited > 5 s'];

const out: string[] = [];
const say = (text: string) => {
  console.log(text);
  out.push(text);
};
function table(title: string, heads: readonly string[], which: readonly Column[], rows: readonly { name: readonly string[]; options: Run }[]): void {
  say(`\n### ${title}\n`);
  const lines = rows.map(({ name, options }) => {
    const figures = run(options);
    return [...name, ...which.map((column) => columns[column](figures))];
  });
  const all = [[...heads, ...which], ...lines];
  const widths = all[0]?.map((_, i) => Math.max(...all.map((line) => (line[i] ?? '').length))) ?? [];
  const row = (line: readonly string[]) => `| ${line.map((cell, i) => (i < heads.length ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join(' | ')} |`;
  say(row(all[0] ?? []));
  say(`|${widths.map((width, i) => (i < heads.length ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`);
  for (const line of lines) say(row(line));
}

console.log(`Rule of deploy/chart/values.yaml: ${JSON.stringify(rule)}; seed ${seed}`);
for (const name of chosen) {
  const extra: Column[] = name === 'burst' || name === 'day' ? ['announced, p99'] : [];
  const rows = [10, 100, 1000, 10_000].flatMap((size) =>
    [1, 2, 4].map((slots) => ({ name: [whole(size), String(slots)], options: { name, size, slots, rule, seeds: size < 1000 ? seeds : [seed] } })),
  );
  const shown: Column[] = ['recordings', ...waits, ...extra, 'pods, mean', 'pods, most', 'pod hours', 'least', 'efficiency', 'missed', 'killed', 'handed over', ...(name === 'spot' ? (['interrupted'] as const) : [])];
  table(`${name}: ${told[name]}`, ['at once', 'slots'], shown, rows);
}

if (positionals.length === 0) {
  const day = (of: Rule, more: Partial<Run> = {}): Run => ({ name: 'day', size: 1000, slots: 2, rule: of, seeds, ...more });
  const cost: Column[] = ['efficiency', 'pods started'];
  const compared: ScenarioName[] = ['day', 'burst', 'webinar', 'steady'];
  table(
    'Other rules, 100 at once, two slots',
    ['rule', 'scenario'],
    [...waits, 'pods, mean', 'efficiency', 'missed', 'killed'],
    Object.entries(ways).flatMap(([way, { told: what }]) => compared.map((name) => ({ name: [what, name], options: { name, size: 100, slots: 2, rule, way: way as keyof typeof ways, seeds } }))),
  );
  table(
    "The headroom's share",
    ['share', 'scenario'],
    [...waits, ...cost],
    [0, 0.05, 0.1, 0.15, 0.2, 0.3].flatMap((each) =>
      (['steady', 'day'] as const).map((name) => ({ name: [String(each), name], options: day({ ...rule, headroom: { ...rule.headroom, share: each } }, { name }) })),
    ),
  );
  table(
    "The headroom's slots, 10 at once",
    ['slots', 'scenario'],
    [...waits, ...cost],
    [0, 1, 2, 4, 8].flatMap((slots) =>
      (['steady', 'day'] as const).map((name) => ({ name: [String(slots), name], options: day({ ...rule, headroom: { ...rule.headroom, slots } }, { name, size: 10, seeds: [...seeds, ...seeds.map((each) => each + 10), ...seeds.map((each) => each + 20)] }) })),
    ),
  );
  table(
    'Scale-down a minute: pods, or a share of them',
    ['a minute', 'at once'],
    [...waits, ...cost],
    [0, 2, 5, 10, 100].flatMap((percent) =>
      [1000, 10_000].map((size) => ({
        name: [percent === 0 ? '1 pod' : `${percent} %`, whole(size)],
        options: day({ ...rule, scaleDown: { ...rule.scaleDown, percent, pods: 1 } }, { size, seeds: size > 1000 ? [seed] : seeds }),
      })),
    ),
  );
  table(
    'Stabilization before scale-down',
    ['seconds'],
    [...waits, ...cost],
    [0, 60, 300, 600, 900, 1800].map((each) => ({ name: [String(each)], options: day({ ...rule, scaleDown: { ...rule.scaleDown, stabilizationSeconds: each } }) })),
  );
  table(
    'Which pods go first',
    ['first', 'slots'],
    [...waits, ...cost],
    [false, true].flatMap((idleFirst) =>
      [1, 2, 4].map((slots) => ({ name: [idleFirst ? 'those that record nothing (pod-deletion-cost)' : 'as a ReplicaSet ranks them', String(slots)], options: day(rule, { slots, more: { idleFirst } }) })),
    ),
  );
  table(
    'Slots that admission keeps closed',
    ['closed', 'in the demand'],
    [...waits, ...cost],
    [0, 0.1, 0.25, 0.4].flatMap((closed) =>
      (closed === 0 ? [true] : [false, true]).map((countFull) => ({ name: [share(closed), countFull ? 'yes' : 'no'], options: day(rule, { more: { closed, countFull } }) })),
    ),
  );
}
console.log(`\ntook ${((performance.now() - began) / 1000).toFixed(0)} s`);

if (values.document && positionals.length === 0) {
  const docs = fileURLToPath(new URL('../../docs/', import.meta.url));
  const page = readFileSync(`${docs}scale.md`, 'utf8');
  const mark = '<!-- tables: npm run simulate -- --document -->\n';
  writeFileSync(`${docs}scale.md`, `${page.slice(0, page.indexOf(mark) + mark.length)}${out.join('\n')}\n`);
  const draw = (file: string, title: string, options: Omit<Run, 'seeds'>) => writeFileSync(`${docs}img/scale-${file}.svg`, plot(title, runOnce(options, seed).points, options.slots));
  const two = { size: 1000, slots: 2, rule };
  draw('day', 'A working day, 1,000 at once, two slots a pod', { ...two, name: 'day' });
  draw('burst', 'Nine o’clock, 1,000 at once, two slots a pod', { ...two, name: 'burst' });
  draw('webinar', 'Webinars of four hours, the rest over after one; 100 at once, two slots', { ...two, size: 100, name: 'webinar' });
  draw('queue', 'The same day by the queue’s length alone, 30 s to leave', { ...two, name: 'day', way: 'queue' });
  draw('cpu', 'The same day by a fifth of the processor, 30 s to leave', { ...two, name: 'day', way: 'cpu 20 %' });
}
