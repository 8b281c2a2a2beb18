/** `tabreel record` and `tabreel serve`, as they are typed. */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readEvents } from '../../bin/events.ts';
import type { Recording } from '../../shared/recording.ts';
import { probe, readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { descendants, lacks } from '../helpers/service.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

describe.skipIf(await lacks('ffmpeg', 'headless shell'))('on the command line', () => {
  let pages: Pages;
  let directory: string;
  beforeAll(async () => {
    pages = await startPages();
    directory = await mkdtemp(join(tmpdir(), 'tabreel-command-'));
  });
  afterAll(async () => {
    await pages?.close();
    await rm(directory, { recursive: true, force: true });
  });

  const begin = (command: string, args: string[], cwd: string, environment: Record<string, string> = {}): ChildProcessWithoutNullStreams => {
    const child = spawn(command, args, { cwd, env: { ...process.env, PORT: '0', LOG_LEVEL: 'error', ...environment }, stdio: 'pipe' });
    child.stdin.end();
    return child;
  };
  const ended = async (child: ChildProcessWithoutNullStreams) => {
    const said = { out: '', err: '' };
    child.stdout.on('data', (chunk: Buffer) => (said.out += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (said.err += chunk.toString()));
    const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
    return { code, signal, ...said };
  };
  const tabreel = (...args: string[]) => begin(process.execPath, [join(root, 'bin/tabreel'), ...args], directory);
  /** Of a page that never comes to be captured: no sound is calibrated for it. */
  const failing = (url: string) =>
    ended(begin(process.execPath, [join(root, 'bin/tabreel'), 'record', url, '--out', 'nothing.mp4', '--duration', '2'], directory, { CAPTURE_ENGINE: 'screencast' }));

  it.concurrent('npm run record makes a file, and says where it is', async () => {
    const out = join(directory, 'x.mp4');
    const { code, out: said, err } = await ended(
      begin('npm', ['run', '-s', 'record', '--', pages.url('/animated.html'), '--duration', '4', '--out', out, '--size', '640x360', '--fps', '15'], root),
    );
    expect({ code, err }).toMatchObject({ code: 0 });
    expect(said).toMatch(new RegExp(`^${out} {2}4\\.0 s, 640x360, \\d+ frames, \\d+ dropped\n$`));
    expect(err).toMatch(/engine (tab|self): /);
    const { video, audio, duration } = await probe(out);
    expect({ video, audio }).toMatchObject({ video: { codec: 'h264', width: 640, height: 360 }, audio: { codec: 'aac' } });
    expect(Math.abs(duration - 4)).toBeLessThanOrEqual(0.3);
    expect(uniqueFrames(await readFrames(out)).perSecond).toBeLessThan(17);
  });

  it.concurrent('a browser that dies ends nothing; Ctrl-C ends the recording, and its file is kept; --json tells of it', async () => {
    const child = tabreel('record', pages.url('/animated.html'), '--json', '--out', 'stopped.mp4');
    let err = '';
    child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
    const said = async (what: RegExp, times: number) => {
      while (err.match(what)?.length !== times) await once(child.stderr, 'data');
    };
    const result = ended(child);
    await said(/^recording {2}/gm, 1);
    await sleep(2500);
    const isBrowser = (word: string) => word.startsWith('--user-data-dir=');
    for (const { pid, command } of await descendants(child.pid ?? 0)) {
      if (command.some(isBrowser) && !command.some((word) => word.startsWith('--type='))) process.kill(pid, 'SIGKILL');
    }
    await said(/^starting again {2}/gm, 1);
    await said(/^recording {2}/gm, 2);
    setTimeout(() => child.kill('SIGINT'), 2500);
    const { code, out } = await result;
    expect({ code, err }).toMatchObject({ code: 0, err: expect.stringMatching(/^Attempt 1 ended: browser_crashed/m) });
    const recording = JSON.parse(out) as Recording & { file: string };
    expect(recording).toMatchObject({ state: 'completed', attempts: 2, file: join(directory, 'stopped.mp4') });
    expect(recording.error).toBeUndefined();
    expect(Math.abs((await probe(recording.file)).duration - recording.duration)).toBeLessThanOrEqual(0.1);
    expect(recording.duration).toBeGreaterThan(4);
    expect((await readdir(directory)).filter((name) => name.includes('.part'))).toEqual([]);
  });

  it.concurrent('a page that can not be recorded gives exit 1 and the reason', async () => {
    const { code, out, err } = await failing(pages.url('/status/404'));
    expect(code).toBe(1);
    expect(out).toBe('');
    expect(err.trim().split('\n').at(-1)).toMatch(/^tabreel: .*\/status\/404 answered 404/);
    expect(existsSync(join(directory, 'nothing.mp4'))).toBe(false);
  });

  it.concurrent('a page that nobody serves gives exit 1 and the reason, and is not tried again', async () => {
    const gone = await startPages();
    await gone.close();
    const { code, out, err } = await failing(gone.url('/'));
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err.trim().split('\n').at(-1)).toBe(`tabreel: 127.0.0.1:${gone.port} can not be reached: ECONNREFUSED`);
    expect(err).not.toContain('Attempt');
    expect(existsSync(join(directory, 'nothing.mp4'))).toBe(false);
  });

  it.each([
    [['record'], /^tabreel: record takes one URL/],
    [['record', 'http://a', 'http://b'], /^tabreel: record takes one URL/],
    [['record', 'http://a', '--size', 'big'], /^tabreel: --size big: must be like 1280x720\n$/],
    [['record', 'http://a', '--duration', 'long'], /^tabreel: --duration long: must be a number\n$/],
    [['record', 'http://a', '--out', 'x.avi'], /^tabreel: --out x.avi: must end in .mp4\n$/],
    [['record', 'http://a', '--out', '/no/such/place/x.mp4'], /^tabreel: --out: there is no directory \/no\/such\/place\n$/],
    [['record', 'http://a', '--speed', '2'], /^tabreel: .*--speed.*\n$/],
    [['play'], /^tabreel: there is no command "play"/],
    [['serve', 'x'], /^tabreel: serve takes no arguments.*\n$/],
  ])('%j gives exit 1 and one line that says what is wrong', async (args, line) => {
    const { code, out, err } = await ended(tabreel(...args));
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(line);
  });

  it('serve tells its addresses, records, and ends on SIGTERM', async () => {
    const child = tabreel('serve');
    const result = ended(child);
    let said = '';
    while (!said.includes('Ctrl-C ends it')) said += String((await once(child.stdout, 'data'))[0]);
    const api = /API +(\S+)/.exec(said)?.[1] ?? '';
    expect(said).toMatch(/Docs +http:\/\/127\.0\.0\.1:\d+\/docs/);
    expect(said).toMatch(/Dashboard +http:\/\/127\.0\.0\.1:\d+\/dashboard/);
    const response = await fetch(api, { method: 'POST', body: JSON.stringify({ url: pages.url('/static.html'), maxDuration: 1 }), headers: { 'content-type': 'application/json' } });
    expect(response.status).toBe(202);
    const { id, links } = (await response.json()) as Recording;
    for await (const { type, data } of readEvents(`${api}/${id}/events`)) if (type === 'state' && data['state'] === 'completed') break;
    expect((await fetch(links.file)).status).toBe(200);
    const under = await descendants(child.pid ?? 0);
    expect(under.length).toBeGreaterThan(0);
    child.kill('SIGTERM');
    const { code, signal } = await result;
    expect({ code, signal }).toEqual({ code: 0, signal: null });
    for (const { pid } of under) expect(existsSync(`/proc/${pid}`)).toBe(false);
    // where it was started
    expect(existsSync(join(directory, 'recordings', id, 'recording.mp4'))).toBe(true);
  });
});
