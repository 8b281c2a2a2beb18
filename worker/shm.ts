/**
 * Shared memory, /dev/shm: where Chromium's processes exchange pictures. Containers get 64 MiB of it unless told otherwise, and a
 * browser that finds it full dies with its page. docs/shared-memory.md
 */
import { lstat, readdir, readFile, readlink, rm, statfs } from 'node:fs/promises';
import { platform, userInfo } from 'node:os';
import { join } from 'node:path';
import { ConfigError } from '../shared/config.ts';
import type { Log } from '../shared/log.ts';
import { metricText } from '../shared/metrics.ts';

const PATH = '/dev/shm';

/** Shares of the size: warned of above one, and anew once it was below the other. */
const WARN_ABOVE = 0.8;
const CALM_BELOW = 0.6;
/** Milliseconds between two looks; it costs microseconds. */
const EVERY_MS = 2000;
/** Milliseconds for which a file may be there before anybody has it open: Chromium takes its name away as soon as it has made it. */
const YOUNG_MS = 60_000;

export type SharedMemory = {
  /** Bytes. */
  size: number;
  used: number;
};

/** @returns null where there is none */
export async function sharedMemory(path = PATH): Promise<SharedMemory | null> {
  if (platform() !== 'linux') return null;
  const found = await statfs(path).catch(() => null);
  // one without a size takes what the machine has
  if (found === null || found.blocks === 0) return null;
  return { size: found.blocks * found.bsize, used: (found.blocks - found.bfree) * found.bsize };
}

const mebibytes = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)} MiB`;

/**
 * @param size of /dev/shm, in bytes. @param needed by each of `slots`
 * @throws {ConfigError} with what mends it, where it is too small
 */
export function requireSharedMemory(size: number, slots: number, needed: number): void {
  if (size >= slots * needed) return;
  const wanted = Math.ceil((slots * needed) / 2 ** 20);
  throw new ConfigError(
    [
      `SHM="require": /dev/shm has ${mebibytes(size)}, and ${slots === 1 ? 'a recording needs' : `${slots} recordings at once (SLOTS) need`} ${wanted} MiB: browsers that find it full die with their pages.`,
      'In Kubernetes give the pod a volume of memory, which counts against the container\'s memory limit:',
      `    volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: ${wanted}Mi}}]`,
      '    volumeMounts: [{name: shm, mountPath: /dev/shm}]',
      `With compose: shm_size: ${wanted}m. With docker run: --shm-size=${wanted}m.`,
      'The kernel.shmmax sysctl does not matter: it is about System V segments, which browsers do not use.',
      ...(slots > 1 ? [`Or let it record less at once: SLOTS=${Math.max(1, Math.floor(size / needed))}.`] : []),
      'Or set SHM=disk: browsers then exchange pictures through files in the temporary directory, which is slower where that is a disk.',
    ].join('\n'),
  );
}

export type SharedMemoryWatch = Disposable & {
  /** As Prometheus reads it; nothing where there is no shared memory. */
  text(): string;
  /** Bytes, as of the last look; null where there is no shared memory. */
  free(): number | null;
};

/** Warns early, as browsers that find it full die; and frees what killed ones left. */
export function watchSharedMemory(log: Log, path = PATH, every = EVERY_MS): SharedMemoryWatch {
  let last: SharedMemory | null = null;
  let warned = false;
  const look = async () => {
    last = await sharedMemory(path);
    if (last === null) return;
    const share = last.used / last.size;
    if (share > WARN_ABOVE && !warned) log.warn('shared memory is nearly full: recordings may lose their browsers', { path, ...last });
    warned = share > WARN_ABOVE || (warned && share > CALM_BELOW);
  };
  const clear = () => void clearSharedMemory(log, path);
  void look();
  clear();
  const timer = setInterval(() => void look(), every).unref();
  const again = setTimeout(clear, 2 * YOUNG_MS).unref();
  return {
    text() {
      if (last === null) return '';
      const samples = [{ labels: { state: 'size' }, value: last.size }, { labels: { state: 'used' }, value: last.used }];
      return metricText('tabreel_worker_shm_bytes', 'gauge', 'Shared memory of this container, /dev/shm.', samples);
    },
    free: () => last && last.size - last.used,
    [Symbol.dispose]() {
      clearInterval(timer);
      clearTimeout(again);
    },
  };
}

/** What Chromium and Chrome call their temporary files; with and without a dot, by version. */
const browserFile = /^\.?(?:org\.chromium\.Chromium|com\.google\.Chrome)\./;

/**
 * Removes what browsers of this user left when they were killed: a volume outlives its container's restart. What somebody has open or
 * mapped stays, and so does what is young: other containers of a pod share the volume, and not their processes. Never throws.
 * @returns how many were removed
 */
export async function clearSharedMemory(log: Log, path = PATH, young = YOUNG_MS): Promise<number> {
  try {
    const names = (await readdir(path)).filter((name) => browserFile.test(name));
    if (names.length === 0) return 0;
    const inUse = await openFiles();
    const own = userInfo().uid;
    let removed = 0;
    for (const file of names.map((name) => join(path, name))) {
      const { uid, mtimeMs, size } = await lstat(file);
      if (uid !== own || Date.now() - mtimeMs < young || inUse.has(file)) continue;
      await rm(file, { recursive: true, force: true });
      log.info('shared memory of a browser that was killed is freed', { file, size });
      removed += 1;
    }
    return removed;
  } catch (error) {
    log.debug('shared memory of earlier browsers may stay', { error });
    return 0;
  }
}

/** What this user's processes have open or mapped. */
async function openFiles(): Promise<Set<string>> {
  const found = new Set<string>();
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const target of await Promise.all(descriptors.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')))) found.add(target);
    const maps = await readFile(`/proc/${pid}/maps`, 'utf8').catch(() => '');
    for (const line of maps.split('\n')) found.add(line.slice(line.indexOf('/')));
  }
  return found;
}
