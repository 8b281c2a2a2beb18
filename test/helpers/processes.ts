/** What Linux tells of the processes that run. */
import { readdirSync, readFileSync } from 'node:fs';

export type RunningProcess = {
  pid: number;
  parent: number;
  /** With the pid, tells a process from a later one of the same number. */
  started: string;
  /** One that has ended and was not waited for. */
  dead: boolean;
};

const read = (path: string): string => {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return ''; // it has ended meanwhile
  }
};

/** By pid. */
export function processTable(): Map<number, RunningProcess> {
  const table = new Map<number, RunningProcess>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    // the name before it is in parentheses and may hold anything
    const fields = read(`/proc/${name}/stat`).replace(/^.*\) /s, '').split(' ');
    if (fields.length < 20) continue;
    table.set(Number(name), { pid: Number(name), parent: Number(fields[1]), started: fields[19] as string, dead: fields[0] === 'Z' });
  }
  return table;
}

/** Those that descend from one, nearest first. */
export function below(table: ReadonlyMap<number, RunningProcess>, root: number): RunningProcess[] {
  const children = Map.groupBy(table.values(), ({ parent }) => parent);
  const found: RunningProcess[] = [];
  for (let next = children.get(root) ?? []; next.length > 0; next = next.flatMap(({ pid }) => children.get(pid) ?? [])) found.push(...next);
  return found;
}

/** Arguments, separated by spaces. */
export const commandOf = (pid: number): string => read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim();

/** A variable of the environment that it was started with; null for none. */
export function variableOf(pid: number, name: string): string | null {
  const line = read(`/proc/${pid}/environ`).split('\0').find((entry) => entry.startsWith(`${name}=`));
  return line === undefined ? null : line.slice(name.length + 1);
}

/** Those that were started with something in their environment. */
export const withEnvironment = (table: ReadonlyMap<number, RunningProcess>, text: string): RunningProcess[] =>
  [...table.values()].filter(({ pid }) => read(`/proc/${pid}/environ`).includes(text));

/** @returns whether it was there */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}
