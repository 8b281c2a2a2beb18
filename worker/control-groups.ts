/** The control groups that this process is in, whichever version the kernel has: limits hold for whoever is in a group. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Directories below the root, the innermost first. What is not there is a group without a limit. */
export type ControlGroups = { version: 1 | 2; cpu: readonly string[]; cpuAccount: readonly string[]; memory: readonly string[] };

/** @param root of the file system, where `proc` and `sys/fs/cgroup` are */
export async function controlGroups(root = '/'): Promise<ControlGroups> {
  const lines = (await readAt(root, 'proc/self/cgroup')).split('\n').map((line) => line.split(':'));
  if ((await readAt(root, 'sys/fs/cgroup/cgroup.controllers')) !== '') {
    const path = lines.find(([, controllers]) => controllers === '')?.[2] ?? '/';
    const all = upwards('sys/fs/cgroup', path);
    return { version: 2, cpu: all, cpuAccount: all, memory: all };
  }
  const groupsOf = (controller: string) => {
    const [, controllers = controller, path = '/'] = lines.find(([, names]) => names?.split(',').includes(controller)) ?? [];
    // mounted by all their names, and mostly by each as well
    return [...new Set([controllers, controller])].flatMap((name) => upwards(join('sys/fs/cgroup', name), path));
  };
  return { version: 1, cpu: groupsOf('cpu'), cpuAccount: groupsOf('cpuacct'), memory: groupsOf('memory') };
}

/** The group itself and those it lies in. In a container its own path may not be there, and the root is its own. */
function upwards(base: string, path: string): string[] {
  const names = path.split('/').filter((name) => name !== '' && name !== '..');
  return [...names.keys(), names.length].toReversed().map((count) => join(base, ...names.slice(0, count)));
}

/** Cores that one of the groups leaves; null where it has no limit. `cpu.max` is "max 100000", `cpu.cfs_quota_us` -1 where none is. */
export async function quotaOf(root: string, version: 1 | 2, group: string): Promise<number | null> {
  const text = version === 2 ? await readAt(root, group, 'cpu.max') : `${await readAt(root, group, 'cpu.cfs_quota_us')} ${await readAt(root, group, 'cpu.cfs_period_us')}`;
  const [quota, period] = text.trim().split(/\s+/).map(Number);
  return quota !== undefined && period !== undefined && quota > 0 && period > 0 ? quota / period : null;
}

/** Cores that all groups together leave to this process; Infinity where none has a limit. */
export async function cpuQuota(root = '/'): Promise<number> {
  const { version, cpu } = await controlGroups(root);
  const quotas = await Promise.all(cpu.map((group) => quotaOf(root, version, group)));
  return Math.min(Infinity, ...quotas.filter((quota) => quota !== null));
}

/** @returns '' where it can't be read */
export const readAt = (...path: string[]): Promise<string> => readFile(join(...path), 'utf8').catch(() => '');
