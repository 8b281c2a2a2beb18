/**
 * The house's rules, checked on the code's own imports: edge and worker never meet but in shared/, nothing goes round in
 * circles, only composition roots know the process they run in, and what runs on every runtime imports nothing of one. Run by
 * `npm run check`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What each folder may import of the others; tests may import all. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  shared: ['shared'],
  edge: ['edge', 'shared'],
  worker: ['worker', 'shared'],
  bin: ['bin', 'edge', 'worker', 'shared'],
};

/** Entry files: they read the environment, hear signals and exit, so that nothing else has to. */
const compositionRoots = new Set([
  'edge/node.ts',
  'edge/bun.ts',
  'edge/deno.ts',
  'edge/lambda.ts',
  'edge/cloudflare.ts',
  'edge/finaliser.ts',
  'worker/main.ts',
  'worker/recording-process.ts',
  'bin/tabreel.ts',
]);

/** What Workers, Lambda, Bun and Deno run, and all that it imports, is for every runtime. */
const portable = 'edge/serverless.ts';
const ofOneRuntime = /^(node:|ws$|@hono\/node-server|@bull-board\/|puppeteer|hono\/(bun|deno|aws-lambda|cloudflare-workers))/;

const sources = Object.keys(allowed).flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name)),
);

const problems: string[] = [];
const imports = new Map<string, string[]>();
const packages = new Map<string, string[]>();
for (const file of sources) {
  const text = readFileSync(join(root, file), 'utf8');
  const targets = [...text.matchAll(/^(?:import|export)\s(?:[^'"]*?\sfrom\s)?['"](\.[^'"]+)['"]/gm)].map((match) => ({
    path: relative(root, normalize(join(root, dirname(file), match[1] as string))),
    // types leave nothing behind at run time, so they close no circle
    typeOnly: /^(?:import|export)\s+type\s/.test(match[0]),
  }));
  imports.set(
    file,
    targets.filter(({ typeOnly }) => !typeOnly).map(({ path }) => path),
  );
  packages.set(
    file,
    [...text.matchAll(/^(?:import|export)\s(?!type\s)(?:[^'"]*?\sfrom\s)?['"]([^.'"][^'"]*)['"]/gm)].map((match) => match[1] as string),
  );
  const [folder = ''] = file.split('/');
  for (const { path } of targets) {
    const [target = ''] = path.split('/');
    if (!allowed[folder]?.includes(target)) problems.push(`${file} imports ${path}: ${folder}/ may import ${allowed[folder]?.join(', ')} only`);
  }
  // `process` as the global, not as a word in a comment, a string, a property or a module's name
  const code = text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`/gm, '');
  if (!compositionRoots.has(file) && /(?<![.\w])process\.\w|(?<![.\w])process\s*[,)]/.test(code)) {
    problems.push(`${file} touches process: only ${[...compositionRoots].join(', ')} may`);
  }
}

/** Depth first; a file met again while it is still open closes a circle. */
const state = new Map<string, 'open' | 'done'>();
function visit(file: string, path: readonly string[]): void {
  if (state.get(file) === 'done') return;
  if (state.get(file) === 'open') {
    problems.push(`circle: ${[...path.slice(path.indexOf(file)), file].join(' -> ')}`);
    return;
  }
  state.set(file, 'open');
  for (const target of imports.get(file) ?? []) visit(target, [...path, file]);
  state.set(file, 'done');
}
for (const file of sources) visit(file, []);

const reached = new Set([portable]);
for (const file of reached) {
  for (const target of imports.get(file) ?? []) reached.add(target);
  const bound = (packages.get(file) ?? []).filter((name) => ofOneRuntime.test(name));
  if (bound.length > 0) problems.push(`${file} imports ${bound.join(', ')}: what ${portable} reaches has to run everywhere`);
}

for (const problem of problems) console.error(problem);
console.log(`structure: ${sources.length} files, ${problems.length} problems`);
process.exit(problems.length === 0 ? 0 : 1);
