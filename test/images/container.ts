/** Runs a built image as a container engine would, by the OCI runtime that Docker and containerd use (`apt install runc`), with this machine's network. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { guard } from '../helpers/guard.ts';
import type { BuiltImage } from './build.ts';

export type ContainerOptions = {
  environment: Readonly<Record<string, string>>;
  /** Bytes of /dev/shm; an engine's own 64 MiB by default. */
  shm?: number;
  /** An OCI seccomp profile; null for none. */
  seccomp: object | null;
  /** Instead of the image's own. */
  entrypoint?: readonly string[];
  command?: readonly string[];
  /** Instead of the image's own, and of none. */
  user?: string;
  capabilities?: readonly string[];
  /** A network namespace's name; this machine's by default. */
  network?: string;
  /** Where a further tmpfs is, beside /tmp. */
  tmpfs?: readonly string[];
  /** Directories or files of this machine, by where they are mounted; those that end in `:rw` can be written to. */
  binds?: Readonly<Record<string, string>>;
};

export type Container = AsyncDisposable & {
  /** As this machine sees it. */
  pid: number;
  child: ChildProcess;
  /** What it printed, line by line. */
  lines: readonly string[];
  /** Runs a further process in it, as HEALTHCHECK is. */
  execute(command: readonly string[]): { status: number | null; output: string };
  /** Tells process 1 to end. @returns the exit code */
  stop(): Promise<number | null>;
};

const masked = ['/proc/acpi', '/proc/asound', '/proc/interrupts', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/sched_debug', '/proc/scsi', '/proc/timer_list', '/proc/timer_stats', '/sys/devices/virtual/powercap', '/sys/firmware'];

/** Read-only root, no capabilities, no new privileges, tmpfs on /tmp: as the chart and compose have it. */
export async function startContainer(image: BuiltImage, options: ContainerOptions): Promise<Container> {
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-container-'));
  const id = basename(directory);
  const runc = ['runc', '--root', join(directory, 'state')] as const;
  const [uid, gid] = (options.user ?? image.config.user).split(':').map(Number) as [number, number];
  const binds = { '/etc/resolv.conf': '/etc/resolv.conf', '/etc/hosts': '/etc/hosts', ...options.binds };
  const capabilities = (options.capabilities ?? []).map((name) => `CAP_${name}`);
  const size = options.shm ?? 64 * 2 ** 20;
  mkdirSync(join(directory, 'bundle'));
  writeFileSync(
    join(directory, 'bundle/config.json'),
    JSON.stringify({
      ociVersion: '1.0.2',
      hostname: id.slice(-12),
      process: {
        user: { uid, gid },
        args: [...(options.entrypoint ?? image.config.entrypoint), ...(options.command ?? image.config.command)],
        env: Object.entries({ ...image.config.env, ...options.environment }).map(([name, value]) => `${name}=${value}`),
        cwd: image.config.workdir,
        // as an engine has it: bounding for all, in force for root alone
        capabilities: { bounding: capabilities, effective: uid === 0 ? capabilities : [], permitted: uid === 0 ? capabilities : [], inheritable: [], ambient: [] },
        noNewPrivileges: true,
      },
      root: { path: image.root, readonly: true },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
        { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620'] },
        { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${size}`] },
        { destination: '/sys', type: 'bind', source: '/sys', options: ['rbind', 'nosuid', 'noexec', 'nodev', 'ro'] },
        { destination: '/tmp', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', 'mode=1777'] },
        ...(options.tmpfs ?? []).map((destination) => ({ destination, type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', 'mode=1777'] })),
        ...Object.entries(binds).map(([destination, source]) => ({
          destination,
          type: 'bind',
          source: source.replace(/:rw$/, ''),
          options: ['bind', ...(source.endsWith(':rw') ? [] : ['ro'])],
        })),
      ],
      linux: {
        namespaces: [...['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type })), ...(options.network === undefined ? [] : [{ type: 'network', path: `/run/netns/${options.network}` }])],
        maskedPaths: masked,
        readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
        ...(options.seccomp === null ? {} : { seccomp: options.seccomp }),
      },
    }),
  );
  const lines: string[] = [];
  const child = spawn(runc[0], [...runc.slice(1), 'run', '--bundle', join(directory, 'bundle'), '--pid-file', join(directory, 'pid'), id], { stdio: ['ignore', 'pipe', 'pipe'] });
  for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', (line) => lines.push(line));
  const ended = once(child, 'exit');
  const unguard = guard('[ -e "$1/pid" ] && kill -KILL "$(cat "$1/pid")"; rm -rf "$1"', directory);
  const pidOf = () => {
    try {
      return Number(readFileSync(join(directory, 'pid'), 'utf8'));
    } catch {
      return 0;
    }
  };
  while (pidOf() === 0 && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 20));
  const pid = pidOf();
  const container = (...args: string[]) => spawnSync(runc[0], [...runc.slice(1), ...args], { encoding: 'utf8' });
  return {
    pid,
    child,
    lines,
    execute(command) {
      const { status, stdout, stderr } = container('exec', id, ...command);
      return { status, output: `${stdout}${stderr}` };
    },
    async stop() {
      container('kill', id, 'TERM');
      await ended;
      return child.exitCode;
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null) {
        container('kill', id, 'KILL');
        await ended;
      }
      container('delete', '--force', id);
      unguard();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export type Seen = { pid: number; parent: number; name: string; state: string; command: string };

/** All processes of a container, from outside: those in its PID namespace. */
export function processesOf({ pid }: Pick<Container, 'pid'>): Seen[] {
  const all = new Map<number, Seen>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const [, name = '', state = '', parent = ''] = /^\d+ \((.*)\) (\S) (\d+)/s.exec(readFileSync(`/proc/${entry}/stat`, 'utf8')) ?? [];
      all.set(Number(entry), { pid: Number(entry), parent: Number(parent), name, state, command: readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' ') });
    } catch {
      // it has gone meanwhile
    }
  }
  const isBelow = (seen: Seen | undefined): boolean => seen !== undefined && (seen.pid === pid || isBelow(all.get(seen.parent)));
  return [...all.values()].filter(isBelow);
}
