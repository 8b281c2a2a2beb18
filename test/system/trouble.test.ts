/** What is to be had from a service whose Redis or disk fails beneath it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { probe, readBeeps, readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { realRedis } from '../helpers/redis.ts';
import { lacks, startService } from '../helpers/service.ts';
import { smallDisk } from '../helpers/small-disk.ts';

let pages: Pages;
beforeAll(async () => {
  pages = await startPages();
});
afterAll(() => pages.close());

const noDisk = await lacks('ffmpeg', 'headless shell', 'root');
describe.skipIf(await lacks('ffmpeg', 'headless shell', 'redis-server'))('a recording whose Redis is killed', () => {
  it.concurrent('goes on, and is whole', async () => {
    await using redis = await realRedis();
    await redis.start();
    await using service = await startService({ redis });
    const { id } = await service.create({ url: pages.url('/animated.html'), width: 640, height: 360, maxDuration: 12 });
    await service.waitFor(id, 'recording');
    await sleep(2000);
    await redis.kill();
    expect((await service.api(`/v1/recordings/${id}`)).status).toBe(503);
    await sleep(5000);
    await redis.start();
    const recording = await service.waitFor(id, 'completed');
    const path = await service.download(recording);
    const { perSecond, longestGap } = uniqueFrames(await readFrames(path));
    const beeps = await readBeeps(path);
    console.log(`Redis away for 5 s: ${recording.duration.toFixed(2)} s, ${perSecond.toFixed(1)} new frames/s, longest gap ${(longestGap * 1000).toFixed(0)} ms, ${beeps.length} beeps`);
    expect(recording.error).toBeUndefined();
    expect(recording.attempts).toBe(1);
    expect(recording.duration).toBeCloseTo(12, 1);
    expect(Math.abs((await probe(path)).duration - 12)).toBeLessThanOrEqual(0.3);
    expect(perSecond).toBeGreaterThan(12);
    // what is away is away for longer
    expect(longestGap).toBeLessThanOrEqual(2);
    expect(beeps.length).toBeGreaterThanOrEqual(11);
  });

  it.concurrent('ends meanwhile, and is finished once Redis is back', async () => {
    await using redis = await realRedis();
    await redis.start();
    await using service = await startService({ redis });
    const { id } = await service.create({ url: pages.url('/animated.html'), width: 640, height: 360, maxDuration: 4 });
    await service.waitFor(id, 'recording');
    await sleep(1500);
    await redis.kill();
    await sleep(5000);
    await redis.start();
    const recording = await service.waitFor(id, 'completed');
    expect(recording.duration).toBeCloseTo(4, 1);
    expect(Math.abs((await probe(await service.download(recording))).duration - 4)).toBeLessThanOrEqual(0.3);
  });
});

describe.skipIf(noDisk)('a recording whose disk fills up', () => {
  it.concurrent('waits with its media, and loses none where there is room again', async () => {
    using disk = smallDisk('700m');
    await using service = await startService({ storage: disk.path });
    const { id } = await service.create({ url: pages.url('/animated.html'), width: 640, height: 360, maxDuration: 10 });
    await service.waitFor(id, 'recording');
    await sleep(2500);
    {
      await using _full = await disk.fill();
      await sleep(4000);
      const refused = await service.api('/v1/recordings', {
        method: 'POST',
        body: JSON.stringify({ url: pages.url('/static.html') }),
        headers: { 'content-type': 'application/json' },
      });
      expect(refused).toMatchObject({ status: 507, body: { code: 'storage_full' } });
    }
    const recording = await service.waitFor(id, 'completed');
    expect(recording.error).toBeUndefined();
    const path = await service.download(recording);
    expect(Math.abs((await probe(path)).duration - 10)).toBeLessThanOrEqual(0.3);
    const { perSecond, longestGap } = uniqueFrames(await readFrames(path));
    expect(perSecond).toBeGreaterThan(12);
    // what is away is away for longer
    expect(longestGap).toBeLessThanOrEqual(2);
  });

  it.concurrent('ends with what was stored where there is none, and says so', async () => {
    using disk = smallDisk('700m');
    await using service = await startService({ storage: disk.path, mediaLimits: { deliver: 6000 } });
    const { id } = await service.create({ url: pages.url('/animated.html'), width: 640, height: 360 });
    await service.waitFor(id, 'recording');
    await sleep(4000);
    const full = await disk.fill();
    const began = Date.now();
    await sleep(2000);
    await service.stop(id);
    await service.waitFor(id, 'finishing');
    const told = (Date.now() - began) / 1000;
    await full[Symbol.asyncDispose]();
    const recording = await service.waitFor(id, 'failed');
    console.log(`full disk: given up after ${told.toFixed(1)} s: ${recording.error?.code}, ${recording.duration.toFixed(2)} s kept`);
    expect(recording.error).toMatchObject({ code: 'storage_full', blame: 'service', retryable: true });
    const path = await service.download(recording);
    const { duration } = await probe(path);
    expect(duration).toBeGreaterThan(2);
    expect(Math.abs(duration - recording.duration)).toBeLessThanOrEqual(0.1);
    expect(uniqueFrames(await readFrames(path)).perSecond).toBeGreaterThan(12);
  });
});
