/** The file of API keys, read again whenever it changes. For runtimes that have files. */
import { watch, type FSWatcher } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ConfigError } from '../../shared/config.ts';
import type { Log } from '../../shared/log.ts';
import type { ApiKeysSetting } from '../config.ts';
import { parseKeys, type KeyRing, type KeySource } from './keys.ts';

/** An editor writes in several steps: what is read between two of them is no list. */
const SETTLE_MS = 100;
/** A watch sees one directory; where a link leads elsewhere, or the kernel has no watches left, this finds the change. */
const POLL_MS = 5000;

export type KeyFile = KeySource & { close(): void };

/** @returns null where none are set */
export async function openKeys(setting: ApiKeysSetting | null, log: Log, onReload?: (listener: () => void) => void): Promise<KeyFile | null> {
  if (setting === null) return null;
  if ('file' in setting) return openKeyFile(setting.file, log, onReload);
  return { current: () => setting.ring, close: () => undefined };
}

/**
 * Watches the directory rather than the file: Kubernetes mounts a Secret as a link to a link, `..data`, and swaps that.
 *
 * @param onReload hears whoever asks for it to be read at once (SIGHUP)
 * @throws {ConfigError} where it can't be read, or is wrong; later on the keys before it stay in force, and the log says so
 */
export async function openKeyFile(path: string, log: Log, onReload: (listener: () => void) => void = () => undefined): Promise<KeyFile> {
  let { text, ring } = await read(path);
  /** What was last found wrong, so that it is logged once. */
  let wrong: string | null = null;
  let closed = false;
  log.info('API keys read', { file: path, keys: ring.size });

  const again = async (): Promise<void> => {
    try {
      const now = await read(path);
      wrong = null;
      if (closed || now.text === text) return;
      ({ text, ring } = now);
      log.info('API keys read', { file: path, keys: ring.size });
    } catch (error) {
      const message = (error as Error).message;
      if (closed || message === wrong) return;
      wrong = message;
      log.error('the API keys can not be read: those before stay in force', { file: path, keys: ring.size, detail: message });
    }
  };
  let settling: NodeJS.Timeout | undefined;
  const soon = () => {
    clearTimeout(settling);
    settling = setTimeout(() => void again(), SETTLE_MS).unref();
  };
  let watcher: FSWatcher | null = null;
  try {
    watcher = watch(dirname(path), { persistent: false }, soon);
    watcher.on('error', (error) => log.warn('the API keys are not watched: changes are found within seconds', { file: path, error }));
  } catch (error) {
    log.warn('the API keys are not watched: changes are found within seconds', { file: path, error });
  }
  const poll = setInterval(() => void again(), POLL_MS).unref();
  onReload(() => void again());
  return {
    current: () => ring,
    close() {
      closed = true;
      clearTimeout(settling);
      clearInterval(poll);
      watcher?.close();
    },
  };
}

async function read(path: string): Promise<{ text: string; ring: KeyRing }> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new ConfigError(`API_KEYS=${JSON.stringify(path)}: must be a file that can be read (${(error as Error).message}), or the JSON itself`);
  });
  return { text, ring: parseKeys(text, `API_KEYS=${JSON.stringify(path)}`) };
}
