import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { capacityOf, readMachine } from '../../worker/capacity.ts';
import { cpuQuota } from '../../worker/control-groups.ts';
import { temporaryDirectory } from './media/h264.ts';

const GIB = 2 ** 30;

test.each([
  [{ cores: 2, memory: 8 * GIB, shm: 8 * GIB }, { slots: 1, bound: 'cores' }],
  [{ cores: 7.5, memory: 64 * GIB, shm: null }, { slots: 3, bound: 'cores' }],
  [{ cores: 32, memory: 4.25 * GIB, shm: 8 * GIB }, { slots: 4, bound: 'memory' }],
  [{ cores: 32, memory: 64 * GIB, shm: GIB }, { slots: 4, bound: 'shm' }],
  [{ cores: 1, memory: GIB, shm: GIB / 16 }, { slots: 1, bound: 'shm' }],
])('%j bears %j', (machine, capacity) => {
  expect(capacityOf(machine)).toEqual(capacity);
});

/** Control groups as Linux lays them out. @returns the root of the file system */
function groups(files: Record<string, string>, self: string): string {
  const root = temporaryDirectory(onTestFinished);
  const laidOut = Object.entries(files).map(([name, text]) => [`sys/fs/cgroup/${name}`, text] as const);
  for (const [name, text] of [...laidOut, ['proc/self/cgroup', self] as const]) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
  return root;
}

const two = { 'cgroup.controllers': 'cpu memory\n' };
test.each([
  ['version 2, in a container', { ...two, 'cpu.max': '150000 100000\n' }, '0::/\n', 1.5],
  ['version 2, the least on the way up', { ...two, 'a/cpu.max': '300000 100000\n', 'a/b/cpu.max': 'max 100000\n' }, '0::/a/b\n', 3],
  ['version 2, where its own path is not to be seen', { ...two, 'cpu.max': '400000 100000\n' }, '0::/kubepods/pod1/c\n', 4],
  ['version 2, without a limit', { ...two, 'cpu.max': 'max 100000\n' }, '0::/\n', Infinity],
  ['version 1', { 'cpu,cpuacct/x/cpu.cfs_quota_us': '50000\n', 'cpu,cpuacct/x/cpu.cfs_period_us': '100000\n' }, '4:memory:/x\n3:cpu,cpuacct:/x\n', 0.5],
  ['version 1, in a container', { 'cpu/cpu.cfs_quota_us': '200000', 'cpu/cpu.cfs_period_us': '100000' }, '2:cpuacct:/\n1:cpu:/docker/0a\n0::/\n', 2],
  ['version 1, without a limit', { 'cpu/cpu.cfs_quota_us': '-1', 'cpu/cpu.cfs_period_us': '100000' }, '1:cpu:/\n', Infinity],
  ['no control groups', {}, '', Infinity],
])('a quota of processors is read: %s', async (_name, files, self, cores) => {
  expect(await cpuQuota(groups(files, self))).toBe(cores);
});

test('this machine is told', async () => {
  const machine = await readMachine(process.constrainedMemory());
  expect((await readMachine(GIB)).memory).toBe(GIB);
  expect(machine.cores).toBeLessThanOrEqual(availableParallelism());
  expect(machine.memory).toBeLessThanOrEqual(totalmem());
  expect(machine.cores * machine.memory).toBeGreaterThan(0);
});
