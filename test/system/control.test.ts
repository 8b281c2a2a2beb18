/** What a caller does with a recording that is under way, on a worker with one slot. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { probe, readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { descendants, lacks, startService, type Service } from '../helpers/service.ts';

describe.skipIf(await lacks('ffmpeg', 'headless shell'))('a recording under way', () => {
  let service: Service;
  let pages: Pages;
  beforeAll(async () => {
    pages = await startPages();
    service = await startService({ slots: 1 });
  });
  afterAll(async () => {
    await service?.[Symbol.asyncDispose]();
    await pages?.close();
  });

  const small = { width: 640, height: 360 };
  const browsers = async () => (await descendants(process.pid)).filter(({ command }) => command.some((word) => word.startsWith('--user-data-dir=')));

  it('is stopped: its file is as long as it was recorded, however often it is told', async () => {
    const { id } = await service.create({ url: pages.url('/animated.html'), ...small });
    await service.waitFor(id, 'recording');
    const began = Date.now();
    await sleep(4000);
    const [first, second] = await Promise.all([service.stop(id), service.stop(id)]);
    const asked = (Date.now() - began) / 1000;
    expect([first.state, second.state]).toEqual(['recording', 'recording']);
    const recording = await service.waitFor(id, 'completed');
    console.log(`stopped after ${asked.toFixed(2)} s: ${recording.duration.toFixed(2)} s, completed ${(Date.now() - began) / 1000 - asked} s later`);
    expect(Math.abs(recording.duration - asked)).toBeLessThanOrEqual(0.7);
    expect(recording.error).toBeUndefined();
    const path = await service.download(recording);
    expect(Math.abs((await probe(path)).duration - recording.duration)).toBeLessThanOrEqual(0.1);
    expect(uniqueFrames(await readFrames(path)).perSecond).toBeGreaterThan(20);
    expect((await service.stop(id)).state).toBe('completed');
  });

  it('is taken by priority once a slot is free, and can be taken back while it waits', async () => {
    const url = pages.url('/static.html');
    const running = await service.create({ url });
    await service.waitFor(running.id, 'recording');
    const low = await service.create({ url, priority: 10, maxDuration: 1 });
    const high = await service.create({ url, priority: 1, maxDuration: 1 });
    const unwanted = await service.create({ url, maxDuration: 1 });
    expect((await service.stop(unwanted.id)).state).toBe('canceled');
    await service.stop(running.id);
    const [first, second] = await Promise.all([service.waitFor(high.id, 'completed'), service.waitFor(low.id, 'completed')]);
    expect(Date.parse(first.startedAt ?? '')).toBeLessThan(Date.parse(second.startedAt ?? ''));
    expect(await service.get(unwanted.id)).toMatchObject({ state: 'canceled', startedAt: null, files: [] });
  });

  it('is stopped before its page is there', async () => {
    const { id } = await service.create({ url: pages.url('/never') });
    await service.waitFor(id, 'starting');
    await service.stop(id);
    const recording = await service.waitFor(id, 'canceled', 10_000);
    expect(recording).toMatchObject({ startedAt: null, files: [] });
    expect(recording.error).toBeUndefined();
  });

  it('is deleted, with its browser and its files', async () => {
    const { id, links } = await service.create({ url: pages.url('/animated.html'), ...small });
    await service.waitFor(id, 'recording');
    await sleep(3000);
    const stored = join(service.storage, id);
    expect(existsSync(stored)).toBe(true);
    expect(await browsers()).not.toEqual([]);
    expect((await service.api(`/v1/recordings/${id}`, { method: 'DELETE' })).status).toBe(204);
    expect((await service.api(links.self)).status).toBe(404);
    expect((await service.api(links.file)).status).toBe(404);
    for (let tries = 0; tries < 100 && (await browsers()).length > 0; tries += 1) await sleep(200);
    expect(await browsers()).toEqual([]);
    // its slot is free again
    expect((await service.record({ url: pages.url('/static.html'), maxDuration: 1 })).state).toBe('completed');
    for (let tries = 0; tries < 100 && existsSync(stored); tries += 1) await sleep(200);
    expect(existsSync(stored)).toBe(false);
  });
});
