/** Two machines on one: network namespaces, each with a loopback of its own, joined by a cable (veth). Needs root and iproute2. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { guard } from './guard.ts';

export type Namespace = {
  /** On the cable. */
  address: string;
  /** A command line that runs there. */
  within(...command: readonly [string, ...string[]]): [string, ...string[]];
};

export type Namespaces = AsyncDisposable & { a: Namespace; b: Namespace };

function ip(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('ip', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** @returns disposed of, both are gone with all that still ran there */
export async function createNamespaces(): Promise<Namespaces> {
  const id = randomBytes(3).toString('hex');
  const ends = [
    { name: `tabreel-${id}-a`, device: `tr${id}a`, address: '10.203.7.1' },
    { name: `tabreel-${id}-b`, device: `tr${id}b`, address: '10.203.7.2' },
  ] as const;
  const pids = () => ends.flatMap(({ name }) => (spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8' }).stdout ?? '').split('\n').filter(Boolean).map(Number));
  const remove = () => {
    for (const pid of pids()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // it is gone
      }
    }
    // the cable goes with its ends
    for (const { name } of ends) spawnSync('ip', ['netns', 'del', name]);
  };
  const done = guard(
    'for name; do ip netns pids "$name" | xargs -r kill -KILL; ip netns del "$name"; done',
    ...ends.map(({ name }) => name),
  );
  const dispose = async () => {
    for (const until = Date.now() + 2000; pids().length > 0 && Date.now() < until; ) await sleep(50);
    remove();
    done();
  };
  try {
    for (const { name } of ends) ip('netns', 'add', name);
    ip('link', 'add', ends[0].device, 'netns', ends[0].name, 'type', 'veth', 'peer', 'name', ends[1].device, 'netns', ends[1].name);
    for (const { name, device, address } of ends) {
      ip('-n', name, 'address', 'add', `${address}/30`, 'dev', device);
      ip('-n', name, 'link', 'set', device, 'up');
      ip('-n', name, 'link', 'set', 'lo', 'up');
    }
  } catch (error) {
    await dispose();
    throw error;
  }
  const [a, b] = ends.map(({ name, address }) => ({
    address,
    within: (...command: readonly [string, ...string[]]): [string, ...string[]] => ['ip', 'netns', 'exec', name, ...command],
  })) as [Namespace, Namespace];
  return { a, b, [Symbol.asyncDispose]: dispose };
}
