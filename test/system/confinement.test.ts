/** What a page is denied, whatever records it; and that its recording goes on beside all that it tries. */
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPages, type Pages } from '../helpers/pages.ts';
import { startRecorder } from '../helpers/recorder.ts';
import { lacks } from '../helpers/service.ts';

const without = { self: await lacks('headless shell'), tab: await lacks('chromium'), screencast: await lacks('chromium') };

let pages: Pages;
beforeAll(async () => {
  pages = await startPages();
});
afterAll(() => pages?.close());

const profiles = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('tabreel-profile-'));
/** Of all browsers that run, but for these. */
const filesOfProfiles = (others: readonly string[]): string[] =>
  profiles()
    .filter((name) => !others.includes(name))
    .flatMap((name) => {
      try {
        return readdirSync(join(tmpdir(), name), { recursive: true, encoding: 'utf8' });
      } catch {
        return []; // it went meanwhile
      }
    });
const socketDirectories = () => readdirSync(tmpdir()).filter((name) => name.startsWith('org.chromium.')).length;

describe.each(['self', 'tab', 'screencast'] as const)('a page that is recorded by %s', (engine) => {
  it.skipIf(without[engine])('gets no device, no permission, no window, no file and no download, and is recorded on', async () => {
    const from = pages.requests.length;
    const others = profiles();
    const sockets = socketDirectories();
    const run = await startRecorder({ engine, request: { url: pages.url('/denied.html') } });
    const told = () => pages.requests.slice(from).find(({ url }) => url.startsWith('/answers?'))?.url;
    for (const until = Date.now() + 25_000; told() === undefined && Date.now() < until; ) await sleep(100);
    const answers = JSON.parse(decodeURIComponent(told()?.slice('/answers?'.length) ?? '{}')) as Record<string, unknown>;
    const { frames, here, permissions, globals, popup, 'internal popup': internal, 'file popup': file, ...attempts } = answers;
    expect(Object.entries(attempts).filter(([, answer]) => /^got|^no answer/.test(String(answer)))).toEqual([]);
    for (const name of ['microphone', 'camera', 'tab', 'stream', 'old', 'prototype']) {
      expect([name, attempts[name], attempts[`${name} of a new frame`]]).toEqual([name, 'NotAllowedError', 'NotAllowedError']);
    }
    expect([popup, internal, file]).toEqual(['null', 'null', 'null']);
    expect({ frames, here, permissions, globals }).toEqual({ frames: expect.not.stringMatching(/\w+/), here: '/denied.html', permissions: [], globals: [] });
    await sleep(500);
    expect(filesOfProfiles(others).length).toBeGreaterThan(0);
    expect(filesOfProfiles(others).filter((name) => /loot|page\.html|\.crdownload|Downloads\//.test(name))).toEqual([]);
    run.stop();
    const ended = await run.ended;
    expect(ended.error).toBeNull();
    expect(ended.stats.frames).toBeGreaterThan(0);
    expect(socketDirectories()).toBeLessThanOrEqual(sockets);
  });
});
