/** A browser's profile: made for one recording, and wiped with what its browser keeps beside it. */
import { mkdir, mkdtemp, readdir, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const PREFIX = 'tabreel-profile-';
const thoroughly = { recursive: true, force: true, maxRetries: 10, retryDelay: 200 } as const;

/**
 * @param webrtc `proxied`: WebRTC has no UDP. Chrome is told so here, as its own settings go before the flag of that name, which
 * headless shell heeds (measured: Chromium 156 sent STUN requests past the proxy with the flag alone).
 * @returns its path, in the temporary directory of this process
 */
export async function makeProfile(webrtc: 'proxied' | 'direct'): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), PREFIX));
  if (webrtc === 'proxied') {
    await mkdir(join(directory, 'Default'));
    await writeFile(join(directory, 'Default/Preferences'), JSON.stringify({ webrtc: { ip_handling_policy: 'disable_non_proxied_udp', multiple_routes_enabled: false, nonproxied_udp_enabled: false } }));
  }
  return directory;
}

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
