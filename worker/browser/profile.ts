/** A browser's profile: made for one recording, and wiped with what its browser keeps beside it. */
import { mkdtemp, readdir, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const PREFIX = 'tabreel-profile-';
const thoroughly = { recursive: true, force: true, maxRetries: 10, retryDelay: 200 } as const;

/** @returns its path, in the temporary directory of this process */
export const makeProfile = (): Promise<string> => mkdtemp(join(tmpdir(), PREFIX));

/** With the directory of Chrome's socket, which is in /tmp as its path would be too long in here (108 characters, unix(7)). Idempotent. */
export async function wipeProfile(directory: string): Promise<void> {
  const socket = await readlink(join(directory, 'SingletonSocket')).catch(() => '');
  if (/\/org\.chromium\.[^/]+\/SingletonSocket$/.test(socket)) await rm(dirname(socket), thoroughly);
  await rm(directory, thoroughly);
}

/** Those in the temporary directory of a process that is gone, and that directory. Idempotent. */
export async function wipeProcessDirectory(directory: string): Promise<void> {
  const names = await readdir(directory).catch(() => []);
  for (const name of names.filter((each) => each.startsWith(PREFIX))) await wipeProfile(join(directory, name));
  await rm(directory, thoroughly);
}
