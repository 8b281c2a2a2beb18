import { execFileSync, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Redis } from 'ioredis';
import { networkIdentity } from '../../shared/network-identity.ts';
import { createPresence, PRESENCE_BEAT_MS, PRESENCE_MS } from '../../shared/presence.ts';
import { patientRedis } from '../../shared/queue.ts';
import { redisServers, type TestRedis } from '../helpers/redis.ts';

for (const { server, start, there } of redisServers) {
  describe.skipIf(!there)(`which workers are there, in ${server}`, () => {
    let running: TestRedis;
    let redis: Redis;
    beforeAll(async () => {
      running = await start();
      redis = patientRedis(running, () => undefined);
    });
    afterAll(async () => {
      redis.disconnect();
      await running[Symbol.asyncDispose]();
    });

    test('by the network that each is on, until the last has left', async () => {
      const presence = createPresence(redis, 'tabreel-p1');
      expect(await presence.isAnyOn('here')).toBe(false);
      await presence.beat('here', 'a');
      await presence.beat('here', 'b');
      await presence.beat('there', 'c');
      expect(await presence.isAnyOn('here')).toBe(true);
      await presence.leave('here', 'a');
      expect(await presence.isAnyOn('here')).toBe(true);
      await presence.leave('here', 'b');
      await presence.leave('here', 'b');
      expect(await presence.isAnyOn('here')).toBe(false);
      expect(await presence.isAnyOn('there')).toBe(true);
      expect(await createPresence(redis, 'tabreel-p2').isAnyOn('there')).toBe(false);
    });

    test('and what all of them together can take: each slot is free, busy, leaving or closed', async () => {
      const presence = createPresence(redis, 'tabreel-p4');
      const none = { workers: 0, free: 0, busy: 0, leaving: 0, closed: 0, full: 0 };
      expect(await presence.fleet()).toEqual(none);
      await presence.beat('here', 'a', { slots: 4, running: 1, room: 3, leaving: false });
      await presence.beat('there', 'b', { slots: 4, running: 2, room: 0, leaving: false });
      expect(await presence.fleet()).toEqual({ workers: 2, free: 3, busy: 3, leaving: 0, closed: 2, full: 2 });
      await presence.beat('there', 'c', { slots: 4, running: 0, room: 0, leaving: false });
      await presence.beat('there', 'd', { slots: 4, running: 0, room: 1, leaving: false });
      expect(await presence.fleet(), 'one that is not ready, and one that runs nothing yet').toEqual({ workers: 4, free: 4, busy: 3, leaving: 0, closed: 9, full: 2 });
      await presence.leave('there', 'c');
      await presence.leave('there', 'd');
      await presence.leave('there', 'b', { slots: 4, running: 2, room: 0, leaving: true });
      expect(await presence.isAnyOn('there')).toBe(false);
      expect(await presence.fleet()).toEqual({ workers: 2, free: 3, busy: 1, leaving: 2, closed: 0, full: 0 });
      await presence.leave('there', 'b');
      expect(await presence.fleet()).toEqual({ workers: 1, free: 3, busy: 1, leaving: 0, closed: 0, full: 0 });
      // a worker that died: its word holds for some seconds, then it is removed
      await redis.hset('tabreel-p4:fleet', 'dead', `${Date.now() - 1} 4 4 0 0`);
      expect(await presence.fleet()).toEqual({ workers: 1, free: 3, busy: 1, leaving: 0, closed: 0, full: 0 });
      expect(Object.keys(await redis.hgetall('tabreel-p4:fleet'))).toEqual(['a']);
      expect(await redis.pttl('tabreel-p4:fleet')).toBeGreaterThan(PRESENCE_MS);
    });

    test('one that falls silent is forgotten, and leaves nothing in Redis', async () => {
      let now = Date.now();
      const presence = createPresence(redis, 'tabreel-p3', () => now);
      await presence.beat('here', 'a');
      now += PRESENCE_MS - 1;
      expect(await presence.isAnyOn('here')).toBe(true);
      await presence.beat('here', 'b');
      now += 1;
      expect(await redis.zrange('tabreel-p3:workers:here', '0', '-1')).toEqual(['a', 'b']);
      await presence.beat('here', 'b');
      expect(await redis.zrange('tabreel-p3:workers:here', '0', '-1')).toEqual(['b']);
      now += PRESENCE_MS;
      expect(await presence.isAnyOn('here')).toBe(false);
      expect(await redis.pttl('tabreel-p3:workers:here')).toBeGreaterThan(0);
      // two beats may be lost
      expect(PRESENCE_MS).toBeGreaterThan(3 * PRESENCE_BEAT_MS);
    });
  });
}

describe('a network', () => {
  const script = `import { networkIdentity } from ${JSON.stringify(fileURLToPath(new URL('../../shared/network-identity.ts', import.meta.url)))}; console.log(networkIdentity());`;
  const node = [process.execPath, '--input-type=module', '-e', script] as const;

  test('is the same for another process of this machine, and tells nothing of it', () => {
    expect(execFileSync(node[0], node.slice(1), { encoding: 'utf8' }).trim()).toBe(networkIdentity());
    expect(networkIdentity()).toMatch(/^[0-9a-f]{32}$/);
  });

  test.skipIf(process.platform !== 'linux' || spawnSync('unshare', ['-n', 'true']).status !== 0)('is another one in a network namespace of its own', () => {
    expect(execFileSync('unshare', ['-n', ...node], { encoding: 'utf8' }).trim()).not.toBe(networkIdentity());
  });
});
