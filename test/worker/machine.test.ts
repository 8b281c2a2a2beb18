import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { createMachineReader } from '../../worker/machine.ts';
import { createTreeMeter } from '../../worker/process-use.ts';

let roots: string[] = [];
afterEach(async () => {
  for (const root of roots.splice(0)) await rm(root, { recursive: true });
});

async function tree(files: Record<string, string>): Promise<{ root: string; write(files: Record<string, string>): Promise<void> }> {
  const root = await mkdtemp(join(tmpdir(), 'tabreel-machine-'));
  roots.push(root);
  const write = async (more: Record<string, string>) => {
    for (const [path, text] of Object.entries(more)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), text);
    }
  };
  await write(files);
  return { root, write };
}

const meminfo = (total: number, available: number) => `MemTotal:       ${total} kB\nMemFree: 1 kB\nMemAvailable:   ${available} kB\n`;

describe('the machine', () => {
  it('is the tightest group of version 2, less file caches', async () => {
    const { root, write } = await tree({
      'proc/self/cgroup': '0::/pod/worker\n',
      'proc/meminfo': meminfo(64 * 2 ** 20, 60 * 2 ** 20),
      'proc/stat': 'cpu  0 0 0 0\ncpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\n',
      'sys/fs/cgroup/cgroup.controllers': 'cpu memory\n',
      'sys/fs/cgroup/cpu.stat': 'usage_usec 5\n',
      'sys/fs/cgroup/pod/cpu.max': '400000 100000\n',
      'sys/fs/cgroup/pod/cpu.stat': 'usage_usec 1000000\nuser_usec 1\n',
      'sys/fs/cgroup/pod/memory.max': '4294967296\n',
      'sys/fs/cgroup/pod/memory.current': '3221225472\n',
      'sys/fs/cgroup/pod/memory.stat': 'anon 1\ninactive_file 1073741824\n',
      'sys/fs/cgroup/pod/worker/cpu.max': 'max 100000\n',
      'sys/fs/cgroup/pod/worker/memory.max': 'max\n',
    });
    let now = 100;
    const read = createMachineReader(root, () => now);
    expect(await read()).toEqual({ cpu: null, memory: { limit: 4 * 2 ** 30, used: 2 * 2 ** 30 } });
    now += 2;
    await write({ 'sys/fs/cgroup/pod/cpu.stat': 'usage_usec 4000000\n' });
    expect((await read()).cpu).toEqual({ limit: 4, used: 1.5 });
  });

  it('is that of version 1, also where the path of the group is of the host', async () => {
    const { root, write } = await tree({
      'proc/self/cgroup': '4:memory:/kubepods/pod1\n2:cpu,cpuacct:/kubepods/pod1\n',
      'proc/meminfo': meminfo(64 * 2 ** 20, 60 * 2 ** 20),
      'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '150000\n',
      'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
      'sys/fs/cgroup/cpuacct/cpuacct.usage': '1000000000\n',
      'sys/fs/cgroup/memory/memory.limit_in_bytes': '2147483648\n',
      'sys/fs/cgroup/memory/memory.usage_in_bytes': '1073741824\n',
      'sys/fs/cgroup/memory/memory.stat': 'inactive_file 5\ntotal_inactive_file 73741824\n',
    });
    let now = 0;
    const read = createMachineReader(root, () => now);
    expect((await read()).memory).toEqual({ limit: 2 ** 31, used: 1_000_000_000 });
    now += 1;
    await write({ 'sys/fs/cgroup/cpuacct/cpuacct.usage': '2200000000\n' });
    expect((await read()).cpu).toEqual({ limit: 1.5, used: expect.closeTo(1.2) as number });
  });

  it('is all of it where there is no limit, of the processors that may be used', async () => {
    const { root, write } = await tree({
      'proc/self/cgroup': '4:memory:/\n2:cpu:/\n',
      'proc/self/status': 'Name:\tnode\nCpus_allowed_list:\t0,2-3\n',
      'proc/meminfo': meminfo(1000, 400),
      'sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
      'sys/fs/cgroup/memory/memory.usage_in_bytes': '1\n',
      'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n',
      'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
      'proc/stat': [0, 1, 2, 3].map((cpu) => `cpu${cpu} 0 0 0 0 0 0 0 0 0 0`).join('\n'),
    });
    const read = createMachineReader(root);
    expect(await read()).toEqual({ cpu: null, memory: { limit: 1_024_000, used: 614_400 } });
    // the second is busy, and not ours; of ours one is busy, by others' and low priority too
    await write({ 'proc/stat': ['cpu0 20 60 10 0 0 0 0 10 0 0', 'cpu1 100 0 0 0 0', 'cpu2 0 0 0 90 10 0 0 0 0 0', 'cpu3 0 0 0 100 0 0 0 0 0 0'].join('\n') });
    expect((await read()).cpu).toEqual({ limit: 3, used: 1 });
  });

  it('is told of this very one', async () => {
    const read = createMachineReader();
    await read();
    await sleep(300);
    const { cpu, memory } = await read();
    expect(cpu?.limit).toBeGreaterThan(0);
    expect(cpu?.limit).toBeLessThanOrEqual(Math.max(availableParallelism(), 1));
    expect(cpu?.used).toBeGreaterThanOrEqual(0);
    expect(memory?.limit).toBeLessThanOrEqual(totalmem());
    expect(memory?.used).toBeGreaterThan(0);
  });
});

describe('what a process takes', () => {
  it('is told with all that it started, from the first look on, and no more once it is gone', async () => {
    // a parent that only waits, whose child computes for a while and holds 60 MB
    const work = 'const held = Buffer.alloc(60e6, 1); for (const end = Date.now() + 20_000; Date.now() < end; ); process.exit(held[0])';
    const parent = spawn(process.execPath, ['-e', `require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(work)}], { stdio: 'ignore' }); setInterval(() => {}, 1000); process.on('SIGTERM', () => process.kill(-process.pid, 'SIGKILL'))`], { detached: true, stdio: 'ignore' });
    const pid = parent.pid as number;
    try {
      const look = createTreeMeter();
      expect([...(await look([pid, 2 ** 22 - 1])).keys()]).toEqual([pid]);
      let [seconds, memory] = [0, 0];
      for (const end = Date.now() + 10_000; Date.now() < end && (seconds < 0.3 || memory < 60e6); await sleep(100)) ({ seconds = 0, memory = 0 } = (await look([pid])).get(pid) ?? {});
      expect(seconds).toBeGreaterThan(0.25);
      expect(memory).toBeGreaterThan(60e6);
      expect(memory).toBeLessThan(600e6);
    } finally {
      process.kill(-pid, 'SIGKILL');
    }
    const look = createTreeMeter();
    for (const end = Date.now() + 5000; Date.now() < end && (await look([pid])).size > 0; ) await sleep(50);
    expect((await look([pid])).get(pid)?.memory ?? 0).toBe(0);
  });
});
