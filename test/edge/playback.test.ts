/** Attempts of different encoders, with time lost between them, in a browser: the file by itself, the live stream by hls.js. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launch, type Browser, type Page } from 'puppeteer-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeFiles } from '../../edge/finish/make.ts';
import { foundParts } from '../../edge/finish/plan.ts';
import { renderPlaylist } from '../../edge/ingest/playlist.ts';
import { diskStorage } from '../../edge/storage/disk.ts';
import { partKey, partName, partsOf } from '../../edge/storage/part-names.ts';
import { findBrowser } from '../../worker/browser/find.ts';
import { lacks } from '../helpers/service.ts';
import { makeCmaf } from './cmaf.ts';

const html = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><video muted playsinline width="320"></video><script src="/hls.js"></script>`;

describe.skipIf(await lacks('headless shell', 'ffmpeg'))('in a browser', () => {
  const stack = new AsyncDisposableStack();
  let browser: Browser;
  let url: string;
  afterAll(() => stack.disposeAsync());
  beforeAll(async () => {
    const directory = await mkdtemp(join(tmpdir(), 'tabreel-playback-'));
    stack.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
    const storage = diskStorage(directory);
    const attempts = [
      await makeCmaf({ seconds: 2 }),
      // grey, so that it shows which is decoded
      await makeCmaf({ seconds: 2, start: 4, encoder: ['-vf', 'hue=s=0', '-preset', 'medium', '-bf', '0', '-g', '30', '-profile:v', 'main', '-x264-params', 'ref=4:keyint=30'] }),
      await makeCmaf({ seconds: 2, start: 30 }),
    ];
    for (const [i, { parts }] of attempts.entries()) {
      for (const { header, payload } of parts) await storage.put(partKey('rec', partName(i + 1, header)), payload);
    }
    const listed = await storage.list('rec/parts/');
    const about = { id: 'rec', url: null, createdAt: 0, startedAt: null, markers: [{ label: 'Second', at: 5 }], pauses: [], warnings: [] };
    await makeFiles(storage, foundParts(listed), about, new AbortController().signal);
    const file = (await storage.get('rec/recording.mp4'))!;
    const program = await readFile(createRequire(import.meta.url).resolve('hls.js/dist/hls.min.js'));
    const playlist = renderPlaylist(partsOf(listed.map(({ key }) => key)), { over: true, query: '' });

    const server = createServer(async (request, response) => {
      const path = request.url ?? '/';
      if (path === '/') return response.setHeader('content-type', 'text/html').end(html);
      if (path === '/hls.js') return response.end(program);
      if (path === '/live.m3u8') return response.end(playlist);
      if (path.startsWith('/live/')) return response.end(await storage.get(`rec/parts/${path.slice(6)}`));
      const [, start = 0, end = file.length - 1] = (/bytes=(\d+)-(\d+)?/.exec(request.headers.range ?? '') ?? []).map((number) => (number === undefined ? undefined : Number(number)));
      response.writeHead(206, { 'content-type': 'video/mp4', 'accept-ranges': 'bytes', 'content-range': `bytes ${start}-${end}/${file.length}` });
      return response.end(file.subarray(start, end + 1));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    stack.defer(() => {
      server.closeAllConnections();
      server.close();
    });
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const profile = await mkdtemp(join(tmpdir(), 'tabreel-playback-profile-'));
    stack.defer(() => rm(profile, { recursive: true, force: true, maxRetries: 5 }));
    const { executable, libraryPath } = await findBrowser({ chromiumPath: null, engine: 'self' });
    browser = await launch({
      executablePath: executable,
      userDataDir: profile,
      pipe: true,
      args: ['--disable-gpu', '--autoplay-policy=no-user-gesture-required', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
      env: { ...process.env, ...(libraryPath === null ? {} : { LD_LIBRARY_PATH: libraryPath }) },
    });
    stack.defer(() => browser.close());
  }, 30_000);

  async function open(): Promise<Page> {
    const page = await browser.newPage();
    await page.goto(url);
    return page;
  }

  test('the file is sought in, there and back, across attempts and what was lost between them', async () => {
    const page = await open();
    const shown = await page.evaluate(async (times) => {
      const video = document.querySelector('video')!;
      const event = (name: string) => new Promise((resolve, reject) => {
        video.addEventListener(name, resolve, { once: true });
        video.addEventListener('error', () => reject(new Error(video.error?.message)), { once: true });
      });
      const loaded = event('loadedmetadata');
      video.src = '/recording.mp4';
      await loaded;
      const found: [number, string][] = [];
      for (const time of times) {
        const there = event('seeked');
        video.currentTime = time;
        await there;
        const context = new OffscreenCanvas(16, 16).getContext('2d')!;
        context.drawImage(video, 0, 0, 16, 16);
        const { data } = context.getImageData(0, 0, 16, 16);
        const colour = data.some((value, i) => i % 4 === 0 && Math.abs(value - data[i + 1]!) > 40);
        found.push([video.currentTime, colour ? 'colour' : 'grey']);
      }
      return found;
    }, [0.5, 4.5, 1.5, 3, 31, 5.5, 20, 0]);
    expect(shown).toEqual([[0.5, 'colour'], [4.5, 'grey'], [1.5, 'colour'], [3, 'colour'], [31, 'colour'], [5.5, 'grey'], [20, 'grey'], [0, 'colour']]);
    await page.close();
  });

  test('the live stream is played to its end by hls.js, which waits for nothing that was lost', async () => {
    const page = await open();
    const { errors, ...played } = await page.evaluate(async () => {
      const video = document.querySelector('video')!;
      const errors: string[] = [];
      const { Hls } = globalThis as unknown as { Hls: any };
      const hls = new Hls();
      hls.on(Hls.Events.ERROR, (_event: unknown, { details }: { details: string }) => errors.push(details));
      hls.loadSource('/live.m3u8');
      hls.attachMedia(video);
      video.playbackRate = 2;
      await video.play();
      await new Promise((resolve) => {
        video.addEventListener('ended', resolve);
        setTimeout(resolve, 10_000);
      });
      return { errors, ended: video.ended, duration: video.duration, pictures: video.getVideoPlaybackQuality().totalVideoFrames };
    });
    expect(errors).toEqual([]);
    expect(played).toMatchObject({ ended: true, duration: expect.closeTo(6, 1) });
    await page.close();
  });
});
