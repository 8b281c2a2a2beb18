/**
 * `npm run test:images`, as root: builds both images from their Dockerfiles without a container engine (build.ts), and records with
 * them, hardened as compose and the chart have it: read-only root, user 10001, no capabilities, our seccomp profile, Chromium's
 * sandbox on. What comes out is compared with the same page recorded outside. Minutes; needs `apt install debootstrap runc ffmpeg
 * redis-server`. `--built` takes the images of the last run, `--out DIR` keeps a picture of all scripts.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../bin/local-redis.ts';
import type { CaptureEngineName } from '../../shared/recording.ts';
import { inherited } from '../helpers/environment.ts';
import { startPages } from '../helpers/pages.ts';
import { operator, keyList } from '../helpers/keys.ts';
import { startRedis } from '../helpers/redis.ts';
import { runProcess } from '../proxies/proxy.ts';
import { figuresOf, type Figures } from '../system/figures.ts';
import { buildImage, repository, sizeOf, workDirectory as work, type BuiltImage } from './build.ts';
import { client } from './client.ts';
import { processesOf, startContainer, type Container, type ContainerOptions } from './container.ts';
import { samples, startFontPage } from './fonts.ts';

const out = process.argv.includes('--out') ? (process.argv[process.argv.indexOf('--out') + 1] ?? null) : null;
const MIB = 2 ** 20;
const MAX_DURATION = 10;

for (const program of ['debootstrap', 'runc', 'ffmpeg', 'redis-server']) {
  if (spawnSync('which', [program]).status !== 0) throw new Error(`${program} is missing: apt-get install ${program}`);
}
if (process.getuid?.() !== 0) throw new Error('only root can make roots');

let failures = 0;
function check(what: string, good: boolean, detail = ''): void {
  if (!good) failures += 1;
  console.log(`${good ? 'ok  ' : 'FAIL'}  ${what}${detail === '' ? '' : `: ${detail}`}`);
}

function images(): { worker: BuiltImage; edge: BuiltImage } {
  const kept = join(work, 'built.json');
  if (process.argv.includes('--built') && existsSync(kept)) return JSON.parse(readFileSync(kept, 'utf8')) as ReturnType<typeof images>;
  const built = { worker: buildImage('deploy/docker/worker.Dockerfile', work), edge: buildImage('deploy/docker/edge.Dockerfile', work) };
  writeFileSync(kept, JSON.stringify(built));
  return built;
}

const { worker: workerImage, edge: edgeImage } = images();
const seccomp = JSON.parse(readFileSync(join(repository, 'deploy/seccomp/chromium.json'), 'utf8')) as { syscalls: { names: string[] }[] };
const sized = (image: BuiltImage, paths: string[]) => [`all ${sizeOf(image.root)} MiB`, ...paths.map((path) => `${path} ${sizeOf(join(image.root, path))}`)].join(', ');
console.log(`worker image: ${sized(workerImage, ['usr/lib/chromium', 'usr/share/fonts', 'usr/local/bin/node', 'app/node_modules'])}`);
console.log(`edge image: ${sized(edgeImage, ['usr/local/bin/node', 'app/node_modules'])}`);
console.log(`Debian alone: ${sizeOf(join(work, 'debian'))} MiB`);

await using stack = new AsyncDisposableStack();
const directory = mkdtempSync(join(tmpdir(), 'tabreel-images-'));
chmodSync(directory, 0o755);
stack.defer(() => rmSync(directory, { recursive: true, force: true }));
const mine = (name: string) => {
  const path = join(directory, name);
  mkdirSync(path);
  spawnSync('chown', ['10001:10001', path]);
  return path;
};
const redis = stack.use(await startRedis());
const pages = await startPages();
stack.defer(() => pages.close());

const common = { REDIS_URL: redis.url, TOKEN_SECRET: 'images-test-token-secret', SECRETS_KEY: 'images-test-secrets-key', OUTBOUND_ALLOW: '127.0.0.1' };
const storage = mine('storage');
const binds = { '/recordings': `${storage}:rw` };
/** This machine's network is the containers', so each process has ports of its own. */
const edgePort = await freePort();
const ports = { edge: await freePort(), finaliser: await freePort(), inside: await freePort(), outside: await freePort() };
const edge = await startContainer(edgeImage, {
  environment: { ...common, PORT: String(edgePort), HOST: '127.0.0.1', HEALTH_PORT: String(ports.edge), API_KEYS: keyList(operator) },
  seccomp,
  binds,
});
stack.use(edge);
const finaliser = stack.use(await startContainer(edgeImage, { environment: { ...common, HEALTH_PORT: String(ports.finaliser) }, command: ['edge/finaliser.ts'], seccomp, binds }));
const api = client(`http://127.0.0.1:${edgePort}`, operator.headers, directory);

async function ready(port: number, lines: () => readonly string[], path = '/readyz'): Promise<void> {
  for (const until = Date.now() + 60_000; ; await sleep(100)) {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`).catch(() => null);
    if (answer?.ok === true) return;
    if (Date.now() > until) throw new Error(`port ${port} is not ready (${(await answer?.text()) ?? 'no answer'}):\n${lines().slice(-20).join('\n')}`);
  }
}
await ready(ports.edge, () => edge.lines);
await ready(ports.finaliser, () => finaliser.lines);

/** As Docker runs it, at the port that the container has here. */
const probe = (container: Container, image: BuiltImage, port: number) => container.execute(image.config.healthcheck.map((word) => word.replace('9090', String(port))));

const workerOptions = (engine: CaptureEngineName, more: Record<string, string> = {}): ContainerOptions => ({
  environment: { ...common, HEALTH_PORT: String(ports.inside), SLOTS: '2', CAPTURE_ENGINE: engine, ...more },
  shm: 1024 * MIB,
  seccomp,
  binds: { '/spool': `${mine(`spool-${engine}-${Date.now()}`)}:rw` },
});

async function record(url: string, duration = MAX_DURATION) {
  const recording = await api.record({ url, maxDuration: duration });
  return { ...recording, path: await api.download(recording.id) };
}

const moving = () => pages.url('/animated.html?report=1&video=1');
const both: Record<string, { outside: Figures; inside: Figures }> = {};
for (const engine of ['tab', 'self'] as const) {
  let outside: Figures;
  {
    await using worker = runProcess([process.execPath, join(repository, 'worker/main.ts')], {
      environment: { ...inherited, ...common, HEALTH_PORT: String(ports.outside), SLOTS: '2', CAPTURE_ENGINE: engine, CHROMIUM_SANDBOX: 'off', SPOOL_DIR: directory },
    });
    await ready(ports.outside, () => worker.output().split('\n'));
    outside = await figuresOf(await record(moving()), pages);
  }
  await using worker = await startContainer(workerImage, workerOptions(engine));
  const began = Date.now();
  await ready(ports.inside, () => worker.lines);
  console.log(`the worker was ready ${((Date.now() - began) / 1000).toFixed(1)} s after its start`);
  const recording = record(moving());
  const renderer = await eventually(() => processesOf(worker).find(({ command }) => command.includes('--type=renderer')));
  const namespaceOf = (pid: number) => readlinkSync(`/proc/${pid}/ns/user`);
  const statusOf = (pid: number, field: string) => new RegExp(`^${field}:\\s+(.*)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '';
  check(`${engine}: the renderer has a user namespace of its own, so Chromium's sandbox is on`, namespaceOf(renderer.pid) !== namespaceOf(worker.pid), `uid ${statusOf(renderer.pid, 'Uid').split('\t')[0]}, ${statusOf(renderer.pid, 'Seccomp_filters')} seccomp filters against ${statusOf(worker.pid, 'Seccomp_filters')} of process 1`);
  check(`${engine}: process 1 is ${workerImage.config.entrypoint[0]}, uid 10001, without capabilities`, statusOf(worker.pid, 'Uid').startsWith('10001') && /^0+$/.test(statusOf(worker.pid, 'CapBnd')) && statusOf(worker.pid, 'NoNewPrivs') === '1');
  const inside = await figuresOf(await recording, pages);
  both[engine] = { outside, inside };
  check(`${engine}: ${MAX_DURATION} s of H.264 and AAC`, Math.abs((inside.probe.video?.duration ?? 0) - MAX_DURATION) <= 0.3 && inside.probe.video?.codec === 'h264' && inside.probe.audio?.codec === 'aac');
  check(`${engine}: as many new frames as outside`, inside.share >= 0.9 && inside.perSecond >= 0.9 * outside.perSecond, `${inside.perSecond.toFixed(1)} a second, ${outside.perSecond.toFixed(1)} outside`);
  check(`${engine}: every beep, with its picture`, inside.beeps >= 9 && Math.abs(inside.offset.median) <= 60, `${inside.beeps} (${outside.beeps} outside), ${inside.offset.median.toFixed(0)} ms after the flash (${outside.offset.median.toFixed(0)} outside)`);
  check(`${engine}: HEALTHCHECK`, probe(worker, workerImage, ports.inside).status === 0, probe(worker, workerImage, ports.inside).output.trim());

  await using fonts = await startFontPage();
  const written = await record(fonts.url, 2);
  const report = fonts.reports.at(-1);
  check(`${engine}: every letter of ${Object.keys(samples).length} scripts has a font`, report !== undefined && Object.keys(report.missing).length === 0, JSON.stringify(report?.missing));
  check(`${engine}: emoji are coloured`, (report?.coloured ?? 0) > 50, `${report?.coloured} pixels`);
  if (out !== null) {
    mkdirSync(out, { recursive: true });
    spawnSync('ffmpeg', ['-v', 'error', '-y', '-ss', '1', '-i', written.path, '-frames:v', '1', join(out, `fonts-${engine}.png`)]);
  }

  await sleep(1000);
  const zombies = processesOf(worker).filter(({ state }) => state === 'Z');
  check(`${engine}: no zombies after two recordings`, zombies.length === 0, `${zombies.length}`);
  const code = await worker.stop();
  check(`${engine}: SIGTERM is heard, exit code 0`, code === 0, `${code}`);
}

// what a reaper is for
for (const [name, entrypoint] of [['the image as it is', workerImage.config.entrypoint], ['Node as process 1', ['/usr/local/bin/node']]] as const) {
  await using worker = await startContainer(workerImage, { ...workerOptions('tab', { SELF_TEST: 'false' }), entrypoint });
  await ready(ports.inside, () => worker.lines);
  for (let i = 0; i < 3; i += 1) await record(moving(), 2);
  const crashing = api.record({ url: moving(), maxDuration: 8 });
  const browser = await eventually(() => processesOf(worker).find(({ command }) => /\/chromium\/chromium .*--remote-debugging-pipe/.test(command) && !command.includes('--type=')));
  process.kill(browser.pid, 'SIGKILL');
  await crashing;
  await sleep(1000);
  const zombies = processesOf(worker).filter(({ state }) => state === 'Z');
  const line = `${zombies.length} zombies after 4 recordings and a killed browser (${[...new Set(zombies.map(({ name: of }) => of))].join(', ')})`;
  if (name === 'the image as it is') check(`${name}: none is left dead`, zombies.length === 0, line);
  else console.log(`      ${name}: ${line}; SIGTERM: exit code ${await worker.stop()}`);
}

// the profile is what lets the sandbox start
{
  const strict = { ...seccomp, syscalls: seccomp.syscalls.map((rule) => ({ ...rule, names: rule.names.filter((name) => !['clone3', 'unshare', 'chroot'].includes(name)) })) };
  const masked = { names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 0x7e020000, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }] };
  strict.syscalls = [...strict.syscalls.map((rule) => ({ ...rule, names: rule.names.filter((name) => name !== 'clone') })).filter(({ names }) => names.length > 0), { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 } as never, masked as never];
  await using worker = await startContainer(workerImage, { ...workerOptions('self'), seccomp: strict });
  const said = await eventually(() => worker.lines.find((line) => line.includes('sandbox')), 40_000).catch(() => worker.lines.slice(-3).join('\n'));
  check("with an engine's usual profile the worker says what Chromium's sandbox needs", said.includes('user namespaces'), said.slice(0, 400));
}
{
  await using worker = await startContainer(workerImage, { ...workerOptions('self'), shm: 64 * MIB });
  await Promise.race([new Promise((resolve) => worker.child.once('exit', resolve)), sleep(15_000)]);
  check('with 64 MiB of /dev/shm it refuses to start', worker.child.exitCode === 1 && worker.lines.join('\n').includes('shm_size'), worker.lines[0] ?? '');
}

// the edge's image is a command line too
{
  await using worker = await startContainer(workerImage, workerOptions('tab'));
  await ready(ports.inside, () => worker.lines);
  await using doctor = await startContainer(edgeImage, {
    environment: { TABREEL_KEY: operator.key },
    command: ['bin/tabreel.ts', 'doctor', `http://127.0.0.1:${edgePort}`, '--record'],
    seccomp,
  });
  if (doctor.child.exitCode === null) await new Promise((resolve) => doctor.child.once('exit', resolve));
  check('tabreel doctor --record, from the image', doctor.child.exitCode === 0, doctor.lines.filter((line) => /^(FAIL|ok +recording)/.test(line)).join('; '));
  if (doctor.child.exitCode !== 0) console.log(doctor.lines.join('\n'));
}
check('edge: HEALTHCHECK', probe(edge, edgeImage, ports.edge).status === 0, probe(edge, edgeImage, ports.edge).output.trim());
check('edge: there is no shell', edge.execute(['/bin/sh', '-c', 'true']).status !== 0);
check('edge: SIGTERM is heard, exit code 0', (await edge.stop()) === 0);
check('finaliser: SIGTERM is heard, exit code 0', (await finaliser.stop()) === 0);

const figure = ({ perSecond, share, longestGap, beeps, offset, loudness }: Figures) =>
  `${perSecond.toFixed(1)} | ${share.toFixed(3)} | ${(longestGap * 1000).toFixed(0)} | ${beeps} | ${offset.median.toFixed(0)} | ${loudness?.toFixed(1) ?? '-'}`;
console.log('\n| engine | | new frames/s | of those drawn | longest gap, ms | beeps | beep after flash, ms | dBFS |\n|---|---|---|---|---|---|---|---|');
for (const [engine, { outside, inside }] of Object.entries(both)) {
  console.log(`| ${engine} | outside | ${figure(outside)} |\n| ${engine} | in the image | ${figure(inside)} |`);
}
console.log(`\n${failures === 0 ? 'All is well' : `${failures} failed`}`);
process.exitCode = failures === 0 ? 0 : 1;

async function eventually<T>(find: () => T | undefined, milliseconds = 20_000): Promise<T> {
  for (const until = Date.now() + milliseconds; ; await sleep(50)) {
    const found = find();
    if (found !== undefined) return found;
    if (Date.now() > until) throw new Error(`${find.toString()} found nothing in ${milliseconds} ms`);
  }
}
