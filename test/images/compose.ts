/**
 * `npm run test:compose`, as root, after `npm run test:images`: docker-compose.yml brought up without a container engine. Compose itself
 * reads it (`docker compose config`); its services are run by runc from our images and from Debian's Redis and Caddy, in its order,
 * with its users, capabilities, volumes and networks, each network a bridge of its own. Then the lines of docs/compose.md: one request
 * with the key that was made, through the proxy, and `doctor`.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { composeConfig, type ComposeService } from '../deploy/compose.ts';
import { guard } from '../helpers/guard.ts';
import { once, repository, runWithin, workDirectory, type BuiltImage } from './build.ts';
import { startContainer, type Container } from './container.ts';

const built = JSON.parse(readFileSync(join(workDirectory, 'built.json'), 'utf8')) as Record<'edge' | 'worker', BuiltImage>;

function debianImage(name: string, packages: string, after = 'true'): BuiltImage {
  const root = once(join(workDirectory, `debian-${name}`), (directory) => {
    spawnSync('cp', ['-a', join(workDirectory, 'debian'), directory]);
    runWithin(directory, `apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${packages} && ${after}`, {});
  });
  return { root, config: { env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }, user: '0:0', workdir: '/', entrypoint: [], command: [], healthcheck: [] } };
}

const images: Readonly<Record<string, BuiltImage>> = {
  'tabreel/edge': built.edge,
  'tabreel/worker': built.worker,
  redis: debianImage('redis', 'redis-server'),
  // as in Caddy's own image, with what it says of its data
  caddy: {
    ...debianImage('caddy', 'caddy libcap2-bin', 'setcap cap_net_bind_service=+ep /usr/bin/caddy'),
    config: { env: { PATH: '/usr/bin:/bin', XDG_DATA_HOME: '/data', XDG_CONFIG_HOME: '/config' }, user: '0:0', workdir: '/', entrypoint: [], command: [], healthcheck: [] },
  },
};

const { services, networks } = composeConfig(repository);
const named = (name: string) => services[name] as ComposeService;

await using stack = new AsyncDisposableStack();
const directory = mkdtempSync(join(tmpdir(), 'tabreel-compose-'));
chmodSync(directory, 0o755);
stack.defer(() => rmSync(directory, { recursive: true, force: true }));

const id = randomBytes(2).toString('hex');
const namespaceOf = (name: string) => `tabreel-${id}-${name}`;
const members = [...Object.keys(services), 'caller'];
const namespaces = ['switch', ...members].map(namespaceOf);
function ip(...args: string[]): void {
  const { status, stderr } = spawnSync('ip', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`);
}
const unguard = guard('for name; do ip netns pids "$name" | xargs -r kill -KILL; ip netns del "$name"; done', ...namespaces);
stack.defer(() => {
  for (const name of namespaces) spawnSync('ip', ['netns', 'del', name]);
  unguard();
});

/** Whoever calls is where the published port leads: beside the proxy. */
const networksOf = (name: string): string[] => (name === 'caller' ? ['web'] : Object.keys(named(name).networks));
const address = (network: string, name: string) => `10.204.${Object.keys(networks).indexOf(network)}.${members.indexOf(name) + 2}`;
for (const name of namespaces) {
  ip('netns', 'add', name);
  ip('-n', name, 'link', 'set', 'lo', 'up');
}
for (const [n, network] of Object.keys(networks).entries()) {
  ip('-n', namespaceOf('switch'), 'link', 'add', `bridge${n}`, 'type', 'bridge');
  ip('-n', namespaceOf('switch'), 'link', 'set', `bridge${n}`, 'up');
  for (const [m, name] of members.entries()) {
    if (!networksOf(name).includes(network)) continue;
    ip('link', 'add', `net${n}`, 'netns', namespaceOf(name), 'type', 'veth', 'peer', 'name', `port${n}x${m}`, 'netns', namespaceOf('switch'));
    ip('-n', namespaceOf('switch'), 'link', 'set', `port${n}x${m}`, 'master', `bridge${n}`, 'up');
    ip('-n', namespaceOf(name), 'address', 'add', `${address(network, name)}/24`, 'dev', `net${n}`);
    ip('-n', namespaceOf(name), 'link', 'set', `net${n}`, 'up');
  }
}
/** What an engine's name server answers: services of the same networks, by name and alias. */
function hostsOf(name: string): string {
  const path = join(directory, `hosts-${name}`);
  const lines = networksOf(name).flatMap((network) =>
    Object.keys(services).flatMap((other) => (networksOf(other).includes(network) ? [`${address(network, other)} ${other} ${named(other).networks[network]?.aliases?.join(' ') ?? ''}`] : [])),
  );
  writeFileSync(path, `127.0.0.1 localhost\n${lines.join('\n')}\n`);
  return path;
}
/** Made as an engine makes them: root's. */
const volume = (name: string) => {
  const path = join(directory, `volume-${name}`);
  if (!existsSync(path)) mkdirSync(path, { mode: 0o755 });
  return path;
};

async function up(name: string): Promise<Container> {
  const service = named(name);
  const image = images[service.image.replace(/:.*$/, '')] as BuiltImage;
  const seccomp = service.security_opt?.find((option) => option.startsWith('seccomp:'))?.slice('seccomp:'.length);
  // engines have a profile of their own; ours without what Chromium's sandbox needs is as strict
  const profile = JSON.parse(readFileSync(join(repository, seccomp ?? 'deploy/seccomp/chromium.json'), 'utf8')) as object;
  return startContainer(image, {
    environment: Object.fromEntries(Object.entries(service.environment).map(([variable, value]) => [variable, value ?? ''])),
    ...(service.entrypoint ? { entrypoint: service.entrypoint } : {}),
    ...(service.command ? { command: service.command } : {}),
    ...(service.user === undefined ? {} : { user: service.user }),
    ...(service.shm_size === undefined ? {} : { shm: Number(service.shm_size) }),
    capabilities: service.cap_add ?? [],
    network: namespaceOf(name),
    seccomp: profile,
    tmpfs: service.tmpfs.map((text) => text.replace(/:.*$/, '')).filter((path) => path !== '/tmp'),
    binds: {
      '/etc/hosts': hostsOf(name),
      ...Object.fromEntries(service.volumes.map(({ type, source, target, read_only }) => [target, `${type === 'bind' ? source : volume(source)}${read_only === true ? '' : ':rw'}`])),
    },
  });
}

/** Runs to its end. @throws with what it said, where it fails */
async function complete(name: string): Promise<Container> {
  const container = await up(name);
  if (container.child.exitCode === null) await new Promise((resolve) => container.child.once('close', resolve));
  await container[Symbol.asyncDispose]();
  if (container.child.exitCode !== 0) throw new Error(`${name}: exit code ${container.child.exitCode}\n${container.lines.join('\n')}`);
  return container;
}
async function healthy(name: string, command: readonly string[]): Promise<Container> {
  const container = stack.use(await up(name));
  for (const until = Date.now() + 60_000; container.execute(command).status !== 0; await sleep(200)) {
    if (container.child.exitCode !== null || Date.now() > until) throw new Error(`${name} is not healthy:\n${container.lines.slice(-20).join('\n')}\n${container.execute(command).output}`);
  }
  console.log(`ok    ${name}`);
  return container;
}
const ready = ['/usr/local/bin/node', '-e', "fetch('http://127.0.0.1:9090/readyz').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"];
const inside = (name: string, ...command: string[]) => spawnSync('ip', ['netns', 'exec', namespaceOf(name), ...command], { encoding: 'utf8' });

await complete('init');
console.log('ok    init');
await healthy('redis', ['redis-cli', 'PING']);
await healthy('edge', ready);
await healthy('finaliser', ready);
const proxy = stack.use(await up('proxy'));
await complete('authority').catch((error: unknown) => {
  throw new Error(`${String(error)}\n${proxy.lines.slice(-10).join('\n')}`);
});
console.log('ok    proxy, authority');
const worker = await healthy('worker', ready);

// the lines of docs/compose.md
const key = (await complete('key')).lines.join('').trim();
const ca = join(volume('proxy'), 'caddy/pki/authorities/local/root.crt');
const host = named('proxy').networks['web']?.aliases?.[0] as string;
const curl = (path: string, ...more: string[]) => {
  const { stdout, stderr } = inside('caller', 'curl', '-sS', '--cacert', ca, '--resolve', `${host}:8443:${address('web', 'proxy')}`, `https://${host}:8443${path}`, '-H', `authorization: Bearer ${key}`, ...more);
  if (stdout === '') throw new Error(`curl ${path}: ${stderr}\n${proxy.lines.slice(-10).join('\n')}`);
  return JSON.parse(stdout) as { id: string; state: string; error: unknown; links: { file: string }; duration: number };
};
const { id: recording } = curl('/v1/recordings', '-H', 'content-type: application/json', '-d', JSON.stringify({ url: `https://${host}:8443/doctor/page`, maxDuration: 5 }));
for (const until = Date.now() + 60_000; ; await sleep(500)) {
  const found = curl(`/v1/recordings/${recording}`);
  if (found.state === 'completed') {
    const file = join(directory, 'recording.mp4');
    inside('caller', 'curl', '-sS', '--cacert', ca, '--resolve', `${host}:8443:${address('web', 'proxy')}`, '-o', file, found.links.file);
    console.log(`ok    one curl recorded ${found.duration} s, ${statSync(file).size} bytes by ${new URL(found.links.file).origin}`);
    break;
  }
  if (['failed', 'canceled'].includes(found.state) || Date.now() > until) throw new Error(`the recording is ${found.state}: ${JSON.stringify(found.error)}\n${worker.lines.slice(-10).join('\n')}`);
}
const doctor = await complete('doctor');
console.log(doctor.lines.filter((line) => /^(ok|warn|FAIL)|hold/.test(line)).join('\n'));

console.log(`SIGTERM: worker ${await worker.stop()}`);
console.log('All is well');
