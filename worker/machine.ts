/**
 * What of the machine may be used, and what of that is: by the tightest limit that holds for this process. On Linux; elsewhere
 * nothing is known.
 */
import { controlGroups, quotaOf, readAt, type ControlGroups } from './control-groups.ts';

export type Amount = { limit: number; used: number };

/** Null where it can't be told. Of the processor, that holds for the very first look too, which has nothing to compare with. */
export type MachineUse = {
  /** Cores. Of a limit of one's own, what counts against it; else all that runs on the machine. */
  cpu: Amount | null;
  /** Bytes, without file caches, which the kernel gives back. */
  memory: Amount | null;
};

/** A counter of the processor's time at a moment, both in seconds. */
type Mark = { spent: number; at: number };

/** @param root of the file system, where `proc` and `sys/fs/cgroup` are. @returns what looks: a use is that since the look before */
export function createMachineReader(root = '/', now: () => number = () => performance.now() / 1000): () => Promise<MachineUse> {
  const read = (...path: string[]) => readAt(root, ...path);
  const marks = new Map<string, Mark>();
  /** Of a counter of the processor's time, in cores. */
  const rate = (name: string, spent: number, at = now()): number | null => {
    const before = marks.get(name);
    marks.set(name, { spent, at });
    return before === undefined || at <= before.at ? null : Math.max(0, (spent - before.spent) / (at - before.at));
  };

  const machineCpu = async (): Promise<Amount | null> => {
    const [stat, status] = await Promise.all([read('proc/stat'), read('proc/self/status')]);
    const allowed = parseList(/^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? '');
    let [cores, busy, total] = [0, 0, 0];
    for (const [, number, times = ''] of stat.matchAll(/^cpu(\d+) (.*)$/gm)) {
      if (allowed.length > 0 && !allowed.some(([from, to]) => Number(number) >= from && Number(number) <= to)) continue;
      // proc_stat(5): user nice system idle iowait irq softirq steal; what guests took is within user
      const [user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0, steal = 0] = times.trim().split(/\s+/).map(Number);
      cores += 1;
      busy += user + nice + system + irq + soft + steal;
      total += user + nice + system + irq + soft + steal + idle + wait;
    }
    // a share of all ticks, whatever a tick is
    const share = cores === 0 ? null : rate('machine', busy, total);
    return share === null ? null : { limit: cores, used: share * cores };
  };

  /** The tightest of the limits of all groups that this process is in; null where there is none. */
  const groupCpu = async (groups: ControlGroups): Promise<Amount | null> => {
    const amounts = await Promise.all(
      groups.cpu.map(async (group, i): Promise<Amount | null> => {
        const limit = await quotaOf(root, groups.version, group);
        if (limit === null) return null;
        const spent = groups.version === 2 ? numberIn(await read(group, 'cpu.stat'), 'usage_usec') : toNumber(await read(groups.cpuAccount[i] ?? '', 'cpuacct.usage'));
        const used = spent === null ? null : rate(group, spent / (groups.version === 2 ? 1e6 : 1e9));
        return used === null ? null : { limit, used };
      }),
    );
    return tightest(amounts);
  };

  const machineMemory = async (): Promise<Amount | null> => {
    const text = await read('proc/meminfo');
    const [limit, free] = [numberIn(text, 'MemTotal:'), numberIn(text, 'MemAvailable:')];
    return limit === null || free === null ? null : { limit: limit * 1024, used: (limit - free) * 1024 };
  };

  const groupMemory = async (groups: ControlGroups): Promise<Amount | null> => {
    const [limitFile, useFile, cacheName] = groups.version === 2 ? ['memory.max', 'memory.current', 'inactive_file'] : ['memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'];
    const amounts = await Promise.all(
      groups.memory.map(async (group): Promise<Amount | null> => {
        const [limit, used, stat] = await Promise.all([read(group, limitFile), read(group, useFile), read(group, 'memory.stat')]);
        const [bytes, taken] = [toNumber(limit), toNumber(used)];
        if (bytes === null || taken === null || bytes > NO_LIMIT) return null;
        return { limit: bytes, used: Math.max(0, taken - (numberIn(stat, cacheName) ?? 0)) };
      }),
    );
    return tightest(amounts);
  };

  return async () => {
    const groups = await controlGroups(root);
    const [own, all, ownMemory, allMemory] = await Promise.all([groupCpu(groups), machineCpu(), groupMemory(groups), machineMemory()]);
    // what a group of its own is promised is not taken away by what else runs there; memory may be, by whoever comes first
    return { cpu: groups.cpu.length > 0 && own !== null ? own : all, memory: tightest([ownMemory, allMemory]) };
  };
}

/** Bytes; what version 1 says where there is no limit is a little less than 2^63. */
const NO_LIMIT = 2 ** 60;

const tightest = (amounts: readonly (Amount | null)[]): Amount | null =>
  amounts.filter((amount) => amount !== null).toSorted((a, b) => a.limit - a.used - (b.limit - b.used))[0] ?? null;

const toNumber = (text: string): number | null => (/^\d+$/.test(text.trim()) ? Number(text) : null);
const numberIn = (text: string, name: string): number | null => {
  const line = text.split('\n').find((each) => each.startsWith(`${name} `) || each.startsWith(`${name}\t`));
  return line === undefined ? null : toNumber(line.slice(name.length).trim().split(' ')[0] ?? '');
};
/** `0-3,7` */
const parseList = (text: string): [from: number, to: number][] =>
  [...text.matchAll(/(\d+)(?:-(\d+))?/g)].map(([, from, to]) => [Number(from), Number(to ?? from)]);
