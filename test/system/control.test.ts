/** What a caller does with a recording that is under way, on a worker with one slot. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Recording, RecordingState } from '../../shared/recording.ts';
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
  const json = { 'content-type': 'application/json' };
  const tell = async (id: string, operation: string, body?: unknown) => {
    const { status, body: recording } = await service.api<Recording>(`/v1/recordings/${id}/${operation}`, {
      method: 'POST',
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: json }),
    });
    if (status !== 200) throw new Error(`${operation} answered ${status}: ${JSON.stringify(recording)}`);
    return recording;
  };
  /** Milliseconds until the recording is in a state, which it may have been in before. */
  const until = async (id: string, state: RecordingState, milliseconds = 25_000): Promise<number> => {
    const began = performance.now();
    for (;;) {
      const now = await service.get(id);
      if (now.state === state) return performance.now() - began;
      if (performance.now() - began > milliseconds) throw new Error(`it is ${now.state}, not ${state}: ${JSON.stringify(now.error)}`);
      await sleep(20);
    }
  };

  it('is paused three times, marked and stopped: its file is as long as it was recorded, however often it is told', async () => {
    const { id } = await service.create({ url: pages.url('/animated.html'), ...small });
    await service.waitFor(id, 'recording');
    let paused = 0;
    const waited: number[] = [];
    for (let i = 0; i < 3; i += 1) {
      await tell(id, 'markers', { label: `Part ${i + 1}` });
      await sleep(1500);
      const asked = Date.now();
      await Promise.all([tell(id, 'pause'), tell(id, 'pause')]);
      waited.push(await until(id, 'paused'));
      await sleep(800);
      paused += Date.now() - asked;
      await tell(id, 'resume');
      waited.push(await until(id, 'recording'));
    }
    await sleep(2000);
    const asked = Date.now();
    const [first, second] = await Promise.all([service.stop(id), service.stop(id)]);
    expect([first.desired, second.desired]).toEqual(['stopped', 'stopped']);
    const recording = await service.waitFor(id, 'completed');
    const took = (Date.now() - asked) / 1000;
    const recorded = (asked - Date.parse(recording.startedAt ?? '') - paused) / 1000;
    console.log(`recorded for ${recorded.toFixed(2)} s: ${recording.duration.toFixed(2)} s, completed ${took.toFixed(2)} s later; pauses took ${waited.map(Math.round).join(', ')} ms`);
    // what was cut out is more than twice that
    expect(Math.abs(recording.duration - recorded)).toBeLessThanOrEqual(1.2);
    expect(recording.error).toBeUndefined();
    expect(recording).toMatchObject({ attempts: 1, pauses: [{}, {}, {}], markers: [{ label: 'Part 1' }, { label: 'Part 2' }, { label: 'Part 3' }] });
    // each part begins where the one before was cut
    for (const [i, { at }] of recording.markers.slice(1).entries()) expect(Math.abs(at - (recording.pauses[i]?.at ?? NaN))).toBeLessThanOrEqual(1);
    const path = await service.download(recording);
    expect(Math.abs((await probe(path)).duration - recording.duration)).toBeLessThanOrEqual(0.1);
    const { perSecond, backwards } = uniqueFrames(await readFrames(path));
    expect(perSecond).toBeGreaterThan(10);
    expect(backwards).toBe(0);
    const { stdout } = spawnSync('ffprobe', ['-v', 'error', '-show_chapters', '-of', 'json', path], { encoding: 'utf8' });
    const { chapters } = JSON.parse(stdout) as { chapters: { tags: { title: string } }[] };
    expect(chapters.map(({ tags }) => tags.title).filter((title) => title.startsWith('Part'))).toEqual(['Part 1', 'Part 2', 'Part 3']);
    expect((await service.stop(id)).state).toBe('completed');
    // a stop is seen to at once
    const states: Record<string, number> = {};
    for await (const { type, data } of service.events(id)) if (type === 'state') states[String(data['state'])] = Date.parse(String(data['at']));
    expect((states['finishing'] ?? Infinity) - asked).toBeLessThan(15_000);
    expect((states['completed'] ?? Infinity) - asked).toBeLessThan(30_000);
  });

  it('begins paused, if it is paused while it waits; is stopped while it is paused', async () => {
    const { id } = await service.create({ ...small, url: pages.url('/animated.html'), startAt: new Date(Date.now() + 700).toISOString() });
    expect(await tell(id, 'pause')).toMatchObject({ state: 'queued', desired: 'paused' });
    await until(id, 'paused');
    await sleep(500);
    expect(await service.get(id)).toMatchObject({ startedAt: null, duration: 0, desired: 'paused' });
    await tell(id, 'resume');
    await until(id, 'recording');
    await sleep(1500);
    const asked = Date.now();
    await tell(id, 'pause');
    await until(id, 'paused');
    await sleep(2500);
    await service.stop(id);
    const { duration, error, startedAt } = await service.waitFor(id, 'completed');
    expect(error).toBeUndefined();
    expect(Math.abs(duration - (asked - Date.parse(startedAt ?? '')) / 1000)).toBeLessThanOrEqual(1.2);
  });

  it('is canceled: nothing of it stays, and its slot is free', async () => {
    const { id, links } = await service.create({ url: pages.url('/animated.html'), ...small });
    await service.waitFor(id, 'recording');
    await sleep(2500);
    const stored = join(service.storage, id);
    expect(existsSync(stored)).toBe(true);
    expect(await tell(id, 'cancel')).toMatchObject({ desired: 'canceled' });
    await until(id, 'canceled');
    expect(await tell(id, 'cancel')).toMatchObject({ state: 'canceled', files: [] });
    expect((await service.api(links.file)).status).toBe(404);
    for (let tries = 0; tries < 50 && (existsSync(stored) || (await browsers()).length > 0); tries += 1) await sleep(100);
    expect(existsSync(stored)).toBe(false);
    expect(await browsers()).toEqual([]);
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
    const recording = await service.waitFor(id, 'canceled');
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
