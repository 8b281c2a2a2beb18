/** The storage that STORAGE_URL names. */
import { fileURLToPath } from 'node:url';
import { ConfigError } from '../../shared/config.ts';
import { diskStorage } from './disk.ts';
import type { Storage } from './storage.ts';

/** @throws {ConfigError} where there is no storage for the URL's scheme */
export function openStorage(url: string): Storage {
  if (url.startsWith('file:')) return diskStorage(fileURLToPath(url));
  throw new ConfigError(`STORAGE_URL=${JSON.stringify(url)}: must be a file:/// URL`);
}
