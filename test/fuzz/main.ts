/**
 * `npm run fuzz -- [origin] [api] [media] [--count N] [--seed N]`: prints what was answered; exits with 1 at the first answer that is wrong.
 */
import { parseArgs } from 'node:util';
import { newSeed } from '../soak/outcome.ts';
import { fuzzApi } from './api.ts';
import { startFuzzedEdge } from './api-edge.ts';
import { fuzzMedia } from './media.ts';
import { fuzzOrigin } from './run.ts';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { seed: { type: 'string' }, count: { type: 'string' } } });
const seed = values.seed === undefined ? newSeed() : Number(values.seed);
const count = (usual: number) => Number(values.count ?? usual);
const table = (counts: ReadonlyMap<string, number>) => [...counts].sort(([a], [b]) => a.localeCompare(b)).map(([what, number]) => `  ${String(number).padStart(9)}  ${what}`).join('\n');

const kinds: Readonly<Record<string, () => Promise<void>>> = {
  async origin() {
    console.log(table(await fuzzOrigin(count(500_000), seed)));
  },
  async api() {
    await using edge = await startFuzzedEdge();
    const before = edge.memory();
    const counts = await fuzzApi(edge.target, { seed, count: count(1_000_000), told: (done) => done % 100_000 === 0 && console.log(`  ${done} requests, ${edge.memory()} MiB`) });
    console.log(`${table(counts)}\n  memory of the edge ${before} MiB before, ${edge.memory()} MiB after`);
  },
  async media() {
    await using edge = await startFuzzedEdge();
    const { deployment, caller, secretsKey } = edge;
    const before = edge.memory();
    const { ends, good } = await fuzzMedia({ deployment, caller, secretsKey, seed, count: count(100_000), told: (done) => console.log(`  ${done} messages, ${edge.memory()} MiB`) });
    console.log(`${table(ends)}\n  beside them ${JSON.stringify(good)}\n  memory of the edge ${before} MiB before, ${edge.memory()} MiB after`);
    if (!good.whole) throw new Error('the recording beside is not whole');
  },
};
const unknown = positionals.filter((name) => kinds[name] === undefined);
if (unknown.length > 0) {
  console.error(`There is no ${unknown.join(', ')}: only ${Object.keys(kinds).join(', ')}`);
  process.exit(2);
}
for (const name of positionals.length > 0 ? positionals : Object.keys(kinds)) {
  console.log(`${name}, seed ${seed}`);
  const began = performance.now();
  await kinds[name]?.();
  console.log(`  took ${((performance.now() - began) / 1000).toFixed(0)} s`);
}
process.exit(0);
