/** Ends a process with all that it started. */
import { readdir, readFile } from 'node:fs/promises';
import { kill } from 'node:process';

/**
 * SIGKILL to the group that a running process leads, and on Linux to its descendants: puppeteer gives a browser a group of
 * its own, so the group alone would miss it. Never throws.
 */
export async function killTree(leader: number): Promise<void> {
  const below = await descendants(leader);
  killGroup(leader);
  for (const pid of below) end(pid);
}

/** SIGKILL to what is left of a group whose leader may be gone. Never throws. */
export const killGroup = (leader: number): void => end(-leader);

/**
 * SIGKILL to whoever was started with a directory among its arguments, as a browser with its profile: who started it is gone, and
 * with that the way down to it. Only on Linux. Never throws.
 */
export async function killUsersOf(directory: string): Promise<void> {
  const names = await readdir('/proc').catch(() => []);
  await Promise.all(
    names.filter((name) => /^\d+$/.test(name)).map(async (name) => {
      if ((await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')).includes(`${directory}/`)) end(Number(name));
    }),
  );
}

function end(target: number): void {
  try {
    kill(target, 'SIGKILL');
  } catch {
    // it is gone, which is what was wanted
  }
}

/** The processes below one, as Linux tells them; none elsewhere. Never throws. */
export async function descendants(root: number): Promise<number[]> {
  const children = new Map<number, number[]>();
  const names = await readdir('/proc').catch(() => []);
  await Promise.all(
    names.filter((name) => /^\d+$/.test(name)).map(async (name) => {
      const stat = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '');
      // pid (name, which may hold anything) state parent
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 1).split(' ')[2]);
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    }),
  );
  const found: number[] = [];
  for (const queue = [root]; queue.length > 0; ) {
    const below = children.get(queue.pop() as number) ?? [];
    found.push(...below);
    queue.push(...below);
  }
  return found;
}
