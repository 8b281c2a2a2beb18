/**
 * The moment from which on a recording takes no more parts, as an object of its own. Who stores a part looks for the seal
 * afterwards, and acknowledges nothing behind it; who makes the file sets the seal first and lists the parts then. So each part
 * that was acknowledged is in that listing, whichever processes did it and whether Redis was there or not.
 */
import type { Storage } from './storage.ts';

const sealKey = (id: string): string => `${id}/sealed`;

/** Idempotent. */
export const seal = (storage: Pick<Storage, 'put'>, id: string): Promise<void> =>
  storage.put(sealKey(id), new TextEncoder().encode(`${new Date().toISOString()}\n`));

export const isSealed = async (storage: Pick<Storage, 'stat'>, id: string): Promise<boolean> => (await storage.stat(sealKey(id))) !== null;
