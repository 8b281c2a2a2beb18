/** The storage that STORAGE_URL names. */
import { fileURLToPath } from 'node:url';
import { diskStorage } from './disk.ts';
import type { S3Settings } from './s3-settings.ts';
import type { Storage } from './storage.ts';

export type StorageConfig = {
  /** `file:///...` or `s3://bucket/prefix`. */
  storageUrl: string;
  /** How the object store of an `s3:` URL is reached. */
  s3?: S3Settings;
  /** Free bytes below which no recording is begun; null for the storage's own bound. */
  minFreeBytes?: number | null;
};

export async function openStorage({ storageUrl, s3, minFreeBytes = null }: StorageConfig): Promise<Storage> {
  if (s3 === undefined) return diskStorage(fileURLToPath(storageUrl), minFreeBytes);
  // 130 ms and 20 MB that only those pay who use it
  const { s3Storage } = await import('./s3.ts');
  return s3Storage(s3);
}
