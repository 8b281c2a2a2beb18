/**
 * `npm run bench:outbound`: what the outbound filter costs a recording of four videos, against the same proxy with everything open. In turns,
 * the first by turns too; CPU of the recording's process and its browser, from their start to their end.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { OutboundRules } from '../../shared/outbound/policy.ts';
import { startPages } from '../helpers/pages.ts';
import { createGroup } from './group.ts';

const ROUNDS = Number(process.argv[2] ?? 5);
const SECONDS = 10;

await using pages = await startPages();
const { port } = new URL(pages.origin);
const rules: Readonly<Record<string, OutboundRules>> = {
  // as a worker has them: one address opened, Redis and the health port its own, named and not
  filtered: { allow: ['10.20.0.0/16', '*.intranet.example', 'grafana.monitoring:3000', `127.0.0.1:${port}`], own: [{ host: 'redis.internal', port: 6379 }, { host: null, port: 9090 }] },
  open: { allow: ['*'], own: [] },
};
const directory = mkdtempSync(join(tmpdir(), 'tabreel-bench-'));
const seconds: Record<string, number[]> = { filtered: [], open: [] };
const frames: Record<string, number[]> = { filtered: [], open: [] };
const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

for (let round = 0; round < ROUNDS; round += 1) {
  for (const name of round % 2 === 0 ? ['filtered', 'open'] : ['open', 'filtered']) {
    await using group = createGroup(`outbound-${name}`, directory);
    const options = { engine: 'self', request: { url: pages.url('/videos.html'), width: 1280, height: 720, maxDuration: SECONDS }, settings: { outbound: rules[name], logLevel: 'error' } };
    const child = spawn(group.wrap(process.execPath), [fileURLToPath(new URL('../helpers/recorder-process.ts', import.meta.url)), JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'inherit'] });
    let said = '';
    child.stdout.on('data', (data: Buffer) => (said += data.toString()));
    await once(child, 'close');
    const ended = JSON.parse(said.trim().split('\n').at(-1) ?? '{}') as { error: unknown; frames: number };
    if (ended.error !== null) throw new Error(said);
    seconds[name]?.push(group.cpu());
    frames[name]?.push(ended.frames);
    console.log(`${name.padEnd(10)} ${group.cpu().toFixed(2)} s of CPU, ${ended.frames} frames (${group.means})`);
  }
}
rmSync(directory, { recursive: true, force: true });
const [filtered, open] = [median(seconds['filtered'] ?? []), median(seconds['open'] ?? [])];
console.log(`median of ${ROUNDS}: filtered ${filtered.toFixed(2)} s (${median(frames['filtered'] ?? [])} frames), open ${open.toFixed(2)} s (${median(frames['open'] ?? [])} frames): ${((filtered / open - 1) * 100).toFixed(1)} %`);
process.exit(0);
