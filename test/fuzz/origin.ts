/** `npm run fuzz -- --runs 200000 --seed 1`: requests against the origin's rule, and how often each answer came. */
import { parseArgs } from 'node:util';
import { fuzzOrigin } from './run.ts';

const { values } = parseArgs({ options: { runs: { type: 'string', default: '200000' }, seed: { type: 'string', default: String(Date.now() % 2 ** 31) } } });
const runs = Number(values.runs);
const seed = Number(values.seed);
console.log(`${runs} requests, seed ${seed}`);
const begin = performance.now();
const counts = await fuzzOrigin(runs, seed);
for (const [outcome, count] of [...counts].toSorted(([one], [two]) => (one < two ? -1 : 1))) console.log(`${String(count).padStart(8)}  ${outcome}`);
console.log(`no promise was broken, in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
