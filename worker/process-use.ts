/** What processes with all that they started take of the machine: a recording's own process and its browser. On Linux; elsewhere nothing. */
import { readdir, readFile } from 'node:fs/promises';
import { privateMemory } from './browser/memory.ts';

/** Linux tells times to programs in hundredths of a second, whatever the kernel's own tick is (USER_HZ). */
const TICKS = 100;

export type TreeUse = {
  /** Seconds of the processor that it took since it was first looked at; those of processes that ended between two looks are missing. */
  seconds: number;
  /** Bytes that its processes have for themselves (browser/memory.ts). */
  memory: number;
};

type Stat = { pid: number; parent: number; ticks: number; name: string };

/** @returns what looks at the trees below some processes; one that isn't asked for any more is forgotten */
export function createTreeMeter(): (roots: readonly number[]) => Promise<Map<number, TreeUse>> {
  /** By root: what was spent so far, and what each of its processes had spent at the last look. */
  let known = new Map<number, { seconds: number; ticks: Map<string, number> }>();
  return async (roots) => {
    const found = new Map<number, TreeUse>();
    if (roots.length === 0) {
      known = new Map();
      return found;
    }
    const stats = await readStats();
    const children = Map.groupBy(stats, ({ parent }) => parent);
    const byPid = new Map(stats.map((stat) => [stat.pid, stat]));
    const next: typeof known = new Map();
    for (const root of roots) {
      const first = byPid.get(root);
      if (first === undefined) continue;
      const tree = [first];
      for (let i = 0; i < tree.length; i += 1) tree.push(...(children.get((tree[i] as Stat).pid) ?? []));
      const before = known.get(root);
      // it may have run for long before the first look; what comes later began with it
      const spent = before === undefined ? 0 : tree.reduce((sum, { name, ticks }) => sum + Math.max(0, ticks - (before.ticks.get(name) ?? 0)), 0);
      const seconds = (before?.seconds ?? 0) + spent / TICKS;
      next.set(root, { seconds, ticks: new Map(tree.map(({ name, ticks }) => [name, ticks])) });
      const sizes = await Promise.all(tree.map(({ pid }) => privateMemory(pid)));
      found.set(root, { seconds, memory: sizes.reduce((sum, size) => sum + size, 0) });
    }
    known = next;
    return found;
  };
}

async function readStats(): Promise<Stat[]> {
  const names = await readdir('/proc').catch(() => []);
  const stats = await Promise.all(
    names.filter((name) => /^\d+$/.test(name)).map(async (pid): Promise<Stat[]> => {
      const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
      // proc_pid_stat(5), from the third field on: the second is a name in parentheses, which may hold anything
      const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
      if (fields.length < 20) return [];
      // a number is given again: with the time of its start it is one process
      return [{ pid: Number(pid), parent: Number(fields[1]), ticks: Number(fields[11]) + Number(fields[12]), name: `${pid} ${fields[19]}` }];
    }),
  );
  return stats.flat();
}
