/**
 * What a way of recording costs: its processes form a group, whose CPU time and memory are asked from outside.
 *
 * A control group counts every process, those that have ended too, to the nanosecond. Where none can be made (not root, no
 * delegation), /proc is read over the tree of processes instead, four times a second, keeping the last value of those that ended.
 */
import { mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export type Group = AsyncDisposable & {
  /** How it is measured. */
  means: 'cgroup' | 'proc';
  /** Path of a program that runs `executable` within the group, with the arguments that it is given. */
  wrap(executable: string): string;
  /** Seconds of CPU that its processes have used so far. */
  cpu(): number;
  pids(): number[];
};

/** Proportional set size of all processes together, in bytes: a page that several share is counted once. */
export async function proportionalSetSize(pids: readonly number[]): Promise<number> {
  const sizes = await Promise.all(
    pids.map(async (pid) => {
      const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
      return Number(/^Pss: *(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024;
    }),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** @param directory of our own, for the programs that `wrap` makes. */
export function createGroup(name: string, directory: string): Group {
  return controlGroup(name, directory) ?? processTree(name, directory);
}

const script = (directory: string, name: string, enter: string, executable: string): string => {
  const path = join(directory, `${name}-${Math.random().toString(36).slice(2)}`);
  writeFileSync(path, `#!/bin/sh\necho $$ ${enter}\nexec '${executable}' "$@"\n`, { mode: 0o755 });
  return path;
};

/** Everything that is left in the group is ours, and is ended with it. */
async function endAll(pids: () => number[]): Promise<void> {
  for (let tries = 0; tries < 50; tries += 1) {
    const left = pids();
    if (left.length === 0) return;
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // it has ended meanwhile
      }
    }
    await sleep(100);
  }
}

function controlGroup(name: string, directory: string): Group | null {
  const text = (path: string) => readFileSync(path, 'utf8');
  const lines = text('/proc/self/cgroup').split('\n');
  const pathOf = (pattern: RegExp) => lines.map((line) => pattern.exec(line)?.[1]).find((path) => path !== undefined) ?? '/';
  const kinds = [
    { root: join('/sys/fs/cgroup', pathOf(/^0::(.*)$/)), seconds: (at: string) => Number(/^usage_usec (\d+)/m.exec(text(`${at}/cpu.stat`))?.[1]) / 1e6 },
    { root: join('/sys/fs/cgroup/cpuacct', pathOf(/:(?:\w+,)*cpuacct(?:,\w+)*:(.*)$/)), seconds: (at: string) => Number(text(`${at}/cpuacct.usage`)) / 1e9 },
  ];
  for (const { root, seconds } of kinds) {
    const at = join(root, `tabreel-bench-${process.pid}-${name}`);
    try {
      mkdirSync(at);
    } catch {
      continue;
    }
    try {
      if (Number.isNaN(seconds(at))) throw new Error('no count');
    } catch {
      rmdirSync(at);
      continue;
    }
    const pids = () => text(`${at}/cgroup.procs`).split('\n').filter(Boolean).map(Number);
    return {
      means: 'cgroup',
      wrap: (executable) => script(directory, name, `> '${at}/cgroup.procs'`, executable),
      cpu: () => seconds(at),
      pids,
      async [Symbol.asyncDispose]() {
        await endAll(pids);
        rmdirSync(at);
      },
    };
  }
  return null;
}

function processTree(name: string, directory: string): Group {
  const roots = join(directory, `${name}.pids`);
  writeFileSync(roots, '');
  const ticks = 100; // of a second, as Linux has told user space for decades
  const used = new Map<number, number>();
  let members: number[] = [];
  const sample = () => {
    const parents = new Map<number, number>();
    const times = new Map<number, number>();
    for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry)).map(Number)) {
      try {
        // after the name, which may hold anything: state, parent ... utime, stime
        const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ').map(Number);
        parents.set(pid, fields[1] ?? 0);
        times.set(pid, ((fields[11] ?? 0) + (fields[12] ?? 0)) / ticks);
      } catch {
        // it has ended meanwhile
      }
    }
    const known = new Set([...readFileSync(roots, 'utf8').split('\n').filter(Boolean).map(Number), ...used.keys()]);
    const belongs = (pid: number | undefined): boolean => pid !== undefined && pid > 1 && (known.has(pid) || belongs(parents.get(pid)));
    members = [...parents.keys()].filter(belongs);
    for (const pid of members) used.set(pid, times.get(pid) ?? 0);
  };
  const timer = setInterval(sample, 250);
  timer.unref();
  const pids = () => {
    sample();
    return members;
  };
  return {
    means: 'proc',
    wrap: (executable) => script(directory, name, `>> '${roots}'`, executable),
    cpu() {
      sample();
      return [...used.values()].reduce((sum, seconds) => sum + seconds, 0);
    },
    pids,
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await endAll(pids);
    },
  };
}
