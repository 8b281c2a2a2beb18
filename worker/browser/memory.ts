/**
 * The memory of one recording's browser, on Linux: what its processes have for themselves (resident pages less those that are
 * mapped from files or shared with others; proc_pid_statm(5)). That leaves out the browser's program, which all of them share,
 * and pictures on their way between them; a page that grows, grows in what is counted. Reading it costs microseconds, where the
 * kernel walks all page tables for the proportional size of smaps_rollup.
 */
import { readFile } from 'node:fs/promises';
import { descendants } from '../kill-tree.ts';

const PAGE_BYTES = 4096;
const EVERY_MS = 1000;
/** Processes come and go with navigations and frames: so many looks until they are listed again. */
const LOOKS = 5;

/** @returns bytes; 0 where the process is gone, or the system tells nothing. */
export async function privateMemory(pid: number): Promise<number> {
  const [, resident, shared] = (await readFile(`/proc/${pid}/statm`, 'utf8').catch(() => '')).split(' ').map(Number);
  return Math.max(0, (resident ?? 0) - (shared ?? 0)) * PAGE_BYTES;
}

/**
 * @param limit bytes. @param exceeded called once, with the bytes that were found.
 * @returns what ends it.
 */
export function watchMemory(pid: number, limit: number, exceeded: (bytes: number) => void): () => void {
  let below: number[] = [];
  let looks = 0;
  let looking = false;
  const look = async () => {
    if (looks % LOOKS === 0) below = await descendants(pid);
    looks += 1;
    const sizes = await Promise.all([pid, ...below].map(privateMemory));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    if (bytes <= limit) return;
    clearInterval(timer);
    exceeded(bytes);
  };
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    void look().finally(() => (looking = false));
  }, EVERY_MS);
  return () => clearInterval(timer);
}
