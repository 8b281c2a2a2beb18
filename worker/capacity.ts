/** How many recordings this machine, or this container's share of it, can bear at once. */
import { availableParallelism, totalmem } from 'node:os';
import { cpuQuota } from './control-groups.ts';
import { sharedMemory } from './shm.ts';

/** What a worker has at hand. */
export type Machine = {
  /** Processors, less what a quota takes; may be a fraction. */
  cores: number;
  /** Bytes. */
  memory: number;
  /** Bytes of /dev/shm; null where there is none, as on other systems than Linux, or where it is not to be used. */
  shm: number | null;
};

/** A moving page of 1280x720 takes 0.6 to 0.9 cores (docs/benchmarks.md); twice that is room for what else a page does. */
const CORES_PER_SLOT = 2;
/** Bytes: such a page's browser and process peak at 0.4 to 0.6 GiB; pages that hold a meeting have more. */
const MEMORY_PER_SLOT = 2 ** 30;
/** Bytes of the worker itself, and of what the system keeps for it. */
const MEMORY_OWN = 2 ** 28;
/**
 * Bytes of /dev/shm for one recording. Peaks that were measured (docs/shared-memory.md): 40 MiB at 1280x720, 89 at 1920x1080, 299
 * at 3840x2160. Almost three times the second, for what pages open beside.
 */
export const SHM_PER_SLOT = 2 ** 28;

export type Capacity = {
  slots: number;
  /** What it is that would not bear one more. */
  bound: 'cores' | 'memory' | 'shm';
};

/** At least one slot, as a machine that is too small for one still records short and plain pages. */
export function capacityOf({ cores, memory, shm }: Machine): Capacity {
  const bounds = [
    { bound: 'cores', slots: cores / CORES_PER_SLOT },
    { bound: 'memory', slots: (memory - MEMORY_OWN) / MEMORY_PER_SLOT },
    { bound: 'shm', slots: shm === null ? Infinity : shm / SHM_PER_SLOT },
  ] as const;
  const { bound, slots } = bounds.reduce((least, one) => (one.slots < least.slots ? one : least));
  return { bound, slots: Math.max(1, Math.floor(slots)) };
}

/** @param memoryLimit bytes, `process.constrainedMemory()`: 0 or an enormous number where nothing limits it */
export async function readMachine(memoryLimit: number): Promise<Machine> {
  return {
    cores: Math.min(availableParallelism(), await cpuQuota()),
    memory: Math.min(totalmem(), memoryLimit > 0 ? memoryLimit : Infinity),
    shm: (await sharedMemory())?.size ?? null,
  };
}
