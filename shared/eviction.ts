/** Redis holds the only copy of what is queued: one that evicts loses recordings. */
import type { Redis } from 'ioredis';
import type { Log } from './log.ts';

/** @param redis a patient client that does not block; says nothing where it may not ask */
export async function warnOfEviction(redis: Redis, log: Log): Promise<void> {
  try {
    const policy = /^maxmemory_policy:(\S+)/m.exec(await redis.info('memory'))?.[1] ?? 'noeviction';
    if (policy === 'noeviction') return;
    log.warn('Redis may evict what is queued: set its maxmemory-policy to noeviction', { maxmemoryPolicy: policy });
  } catch (error) {
    log.debug('the eviction policy of Redis is not known', { error });
  }
}
