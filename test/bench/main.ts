/**
 * `npm run bench`: each engine beside what people use now, in the same run.
 *
 *   --quick            one round of 5 s, a few ways and pages: does the bench itself still work?
 *   --rounds N         default 3; in each, every way has its turn on every page, so that a busy neighbour hits all alike
 *   --seconds S        measured in each turn, default 12
 *   --pages a,b        static, deck, videos, one-video, known
 *   --ways a,b         by name; default all
 *   --first N          POST to first stored segment, N times for each engine, default 20; 0 for none
 *   --append           adds to the results of earlier calls instead of starting anew
 *   --document         writes the tables into docs/benchmarks.md
 *
 * Needs chromium, ffmpeg, Xvfb and pulseaudio. Results: test-output/bench/results.json.
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { findBrowser } from '../../worker/browser/find.ts';
import { startAntMedia } from '../antmedia/server.ts';
import { startRedis } from '../helpers/redis.ts';
import { createGroup, type Group } from './group.ts';
import { describeMachine } from './machine.ts';
import { measure, type PageKind } from './measure.ts';
import { writeDocument, type Results } from './report.ts';
import { startBenchPages } from './server.ts';
import { createSimilarity } from './similarity.ts';
import type { Way } from './way.ts';
import { alone } from './ways/alone.ts';
import { mediaRecorder, pageScreencast } from './ways/driven.ts';
import { startService } from './ways/service.ts';
import { x11grab } from './ways/x11grab.ts';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '12' },
    pages: { type: 'string' },
    ways: { type: 'string' },
    first: { type: 'string', default: '20' },
    append: { type: 'boolean', default: false },
    document: { type: 'boolean', default: false },
  },
});
const output = fileURLToPath(new URL('../../test-output/bench/', import.meta.url));
const resultsFile = join(output, options.quick ? 'quick.json' : 'results.json');
const say = (line: string) => process.stdout.write(`${line}\n`);
const chosen = (given: string | undefined, quick: readonly string[]) => given?.split(',') ?? (options.quick ? quick : null);

const pages: { name: string; kind: PageKind; path: string }[] = [
  { name: 'static', kind: 'still', path: '/static.html' },
  { name: 'deck', kind: 'moving', path: '/deck.html' },
  { name: 'videos', kind: 'beeping', path: '/videos.html' },
  { name: 'one-video', kind: 'beeping', path: '/animated.html?video=1' },
  { name: 'known', kind: 'known', path: '/known.html' },
];
const wantedPages = chosen(options.pages, ['deck', 'known']);
const wantedWays = chosen(options.ways, ['tab', 'self', 'alone-tab', 'x11grab-veryfast', 'mediarecorder-mp4']);
const rounds = options.quick ? 1 : Number(options.rounds);
const seconds = options.quick ? 5 : Number(options.seconds);
const firsts = options.quick ? 1 : Number(options.first);

await mkdir(output, { recursive: true });
const directory = await mkdtemp(join(tmpdir(), 'tabreel-bench-'));
await using stack = new AsyncDisposableStack();
stack.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 }));

let current: Group | null = null;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    // nothing of ours stays behind
    void Promise.allSettled([current?.[Symbol.asyncDispose](), stack.disposeAsync()]).then(() => process.exit(1));
  });
}

const chrome = await findBrowser({ chromiumPath: null, engine: 'tab' });
const shell = await findBrowser({ chromiumPath: null, engine: 'self' });
const server = stack.use(await startBenchPages());
const redis = stack.use(await startRedis());
say('The services start, and calibrate their sound.');
const services = [];
const isWanted = (way: string) => wantedWays === null || wantedWays.includes(way);
for (const engine of ['tab', 'self'] as const) {
  if (!isWanted(engine) && !isWanted(`${engine}-push`)) continue;
  services.push(stack.use(await startService({ engine, name: engine, redisUrl: redis.url, directory: await mkdtemp(join(directory, 'service-')) })));
}
const others: Way[] = [
  alone('alone-tab', chrome),
  alone('alone-self', shell),
  x11grab('x11grab-ultrafast', 'ultrafast', chrome),
  x11grab('x11grab-veryfast', 'veryfast', chrome),
  mediaRecorder('mediarecorder-mp4', 'mp4', 'video/mp4;codecs="avc1.42001f,opus"', chrome),
  mediaRecorder('mediarecorder-webm', 'webm', 'video/webm;codecs="vp8,opus"', chrome),
  pageScreencast('page-screencast', chrome),
];
const farEnd = services.some(({ engine }) => isWanted(`${engine}-push`)) ? stack.use(await startAntMedia()) : null;
const ours = services.flatMap(({ way, pushing }) => [way, ...(farEnd === null ? [] : [pushing(farEnd.websocketUrl)])]);
const ways = [...ours, ...others].filter(({ name }) => isWanted(name));
const usedPages = pages.filter(({ name }) => wantedPages === null || wantedPages.includes(name));
const similarity = await createSimilarity(
  usedPages.some(({ kind }) => kind === 'known') ? [chrome, shell] : [],
  server.url('/known.html'),
  join(directory, 'drawn'),
);

const results: Results =
  options.append && existsSync(resultsFile)
    ? (JSON.parse(await readFile(resultsFile, 'utf8')) as Results)
    : { machine: await describeMachine(chrome.version, shell.version), seconds, ways: {}, measured: [], firstSegments: {} };
for (const { name, what } of ways) results.ways[name] = what;
const keep = () => writeFile(resultsFile, `${JSON.stringify(results, null, 1)}\n`);
let failures = 0;

for (let round = 1; round <= rounds; round += 1) {
  for (const page of usedPages) {
    for (const way of ways) {
      // with nothing captured there is nothing to compare
      if (page.kind === 'known' && way.draws === null) continue;
      const own = await mkdtemp(join(directory, 'run-'));
      const group = createGroup(way.name, own);
      current = group;
      try {
        const context = { url: server.url(page.path), controllerUrl: server.url('/controller.html'), directory: own, group };
        const result = await measure(way, page, context, seconds, similarity);
        results.measured.push(result);
        const shown = Object.entries(result).map(([key, value]) => `${key}=${typeof value === 'number' ? Number(value.toPrecision(4)) : value}`);
        say(`${round}/${rounds} ${shown.join(' ')}`);
      } catch (error) {
        failures += 1;
        say(`${round}/${rounds} ${page.name} ${way.name} failed: ${(error as Error).stack}`);
      }
      await group[Symbol.asyncDispose]();
      current = null;
      await rm(own, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
      await keep();
    }
  }
}
for (let turn = 0; turn < firsts; turn += 1) {
  for (const service of services) {
    const took = await service.firstSegment(server.url('/static.html'));
    (results.firstSegments[service.engine] ??= []).push(took);
    say(`first segment ${turn + 1}/${firsts} ${service.engine} ${Math.round(took)} ms`);
  }
}
await keep();
if (options.document) await writeDocument(fileURLToPath(new URL('../../docs/benchmarks.md', import.meta.url)), results);
if (failures > 0) process.exitCode = 1;
