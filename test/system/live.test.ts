/** Watching a recording while it is made, in a browser with hls.js, and its file afterwards in pieces. */
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { launch, type Page } from 'puppeteer-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { findBrowser } from '../../worker/browser/find.ts';
import { summary } from '../helpers/analyse.ts';
import { BAND_HEIGHT, GRID, readPicture } from '../helpers/barcode.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { lacks, startService, type Service } from '../helpers/service.ts';

const WIDTH = GRID * 4;
const HEIGHT = BAND_HEIGHT * 4;

const playerPage = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Player</title><link rel="icon" href="data:,">
<video id="video" muted autoplay playsinline width="640"></video>
<script src="/hls.js"></script>
<script>
  window.problems = [];
  const hls = new Hls();
  hls.on(Hls.Events.ERROR, (_event, { fatal, details }) => fatal && problems.push(details));
  hls.loadSource(decodeURIComponent(location.hash.slice(1)));
  hls.attachMedia(document.getElementById('video'));
</script>`;

describe.skipIf(await lacks('headless shell'))('a recording', () => {
  let service: Service;
  let pages: Pages;
  beforeAll(async () => {
    pages = await startPages();
    service = await startService();
  });
  afterAll(async () => {
    await service?.[Symbol.asyncDispose]();
    await pages?.close();
  });

  let recording: Recording;

  it('is watched while it is made, some seconds behind', async () => {
    await using player = await openPlayer();
    const { id, links } = await service.create({ url: pages.url('/animated.html?report=1'), width: 640, height: 360, maxDuration: 90 });
    await service.waitFor(id, 'recording');
    await sleep(7000);
    await player.page.goto(`${player.url}/#${encodeURIComponent(links.live)}`);
    const asked = Date.now();
    const shown: { counter: number; at: number }[] = [];
    // a player takes its time to begin where the machine is busy
    for (let until = asked + 45_000; Date.now() < until; await sleep(100)) {
      const counter = await readCounter(player.page);
      if (counter === null) continue;
      shown.push({ counter, at: Date.now() });
      if (shown.length === 1) until = Date.now() + 9000;
    }
    const tookToBegin = ((shown[0]?.at ?? Infinity) - asked) / 1000;
    const [problems, started] = await player.page.evaluate(() => [
      (globalThis as unknown as { problems: string[] }).problems,
      document.querySelector('video')?.readyState,
    ]);
    expect(problems).toEqual([]);
    expect(started).toBeGreaterThanOrEqual(2);
    await service.api(`/v1/recordings/${id}/stop`, { method: 'POST' });
    recording = await service.waitFor(id, 'completed');

    const behind = summary(shown.flatMap(({ counter, at }) => {
      const drawn = drawnAt(counter);
      return drawn === null ? [] : [(at - drawn) / 1000];
    }));
    const different = new Set(shown.map(({ counter }) => counter)).size;
    console.log(`live: ${different} different pictures in ${shown.length} looks, ${behind.median.toFixed(1)} s behind, ${tookToBegin.toFixed(1)} s to begin (p5 ${behind.p5.toFixed(1)}, p95 ${behind.p95.toFixed(1)})`);
    expect(different).toBeGreaterThan(15);
    // it was at the end of what there was when it began to load, and is later by what that took
    expect(behind.median).toBeLessThan(9 + tookToBegin);
    // what is shown goes on at the pace of the page
    const [first, last] = [shown[0], shown.at(-1)];
    const pace = ((last?.counter ?? 0) - (first?.counter ?? 0)) / (((last?.at ?? 0) - (first?.at ?? 0)) / 1000);
    expect(pace).toBeGreaterThan(6);
  });

  /** The moment at which the page drew a frame, from its reports. */
  function drawnAt(counter: number): number | null {
    const after = pages.reports.findIndex((report) => report.counter >= counter);
    const [a, b] = [pages.reports[after - 1], pages.reports[after]];
    if (a === undefined || b === undefined) return null;
    return a.wallClock + ((counter - a.counter) / (b.counter - a.counter)) * (b.wallClock - a.wallClock);
  }

  it('is fetched in pieces, whole', async () => {
    const { files } = await service.manifest(recording.id);
    const file = files.find(({ name }) => name === 'recording.mp4');
    const bytes = file?.bytes ?? 0;
    expect(bytes).toBeGreaterThan(50_000);
    const cuts = [0, 1, 1000, Math.floor(bytes / 3), Math.floor(bytes / 2), bytes - 1, bytes];
    const pieces = await Promise.all(cuts.slice(1).map(async (end, i) => {
      const start = cuts[i] ?? 0;
      const response = await fetch(recording.links.file, { headers: { range: `bytes=${start}-${end - 1}` } });
      expect(response.status).toBe(206);
      expect(response.headers.get('content-range')).toBe(`bytes ${start}-${end - 1}/${bytes}`);
      return response.bytes();
    }));
    const sha256 = createHash('sha256').update(Buffer.concat(pieces)).digest('hex');
    expect(sha256).toBe(file?.sha256);
    expect(recording.files.find(({ name }) => name === 'recording.mp4')).toEqual(file);
    expect((await readFile(await service.download(recording))).length).toBe(bytes);
    expect((await fetch(recording.links.thumbnail)).headers.get('content-type')).toBe('image/jpeg');
    const over = await fetch(recording.links.live);
    expect(await over.text()).toContain('#EXT-X-ENDLIST');
    expect((await fetch(recording.links.file.replace(/token=.{5}/, 'token=AAAAA'))).status).toBe(401);
  });
});

/** A browser with a page that plays the link in its fragment by hls.js, from an origin of its own. */
async function openPlayer() {
  await using stack = new AsyncDisposableStack();
  const program = await readFile(createRequire(import.meta.url).resolve('hls.js/dist/hls.min.js'));
  const server = createServer((request, response) => {
    const script = request.url === '/hls.js';
    response.setHeader('content-type', script ? 'text/javascript' : 'text/html; charset=utf-8');
    response.end(script ? program : playerPage);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  stack.defer(() => {
    server.closeAllConnections();
    server.close();
  });
  const profile = await mkdtemp(join(tmpdir(), 'tabreel-player-'));
  stack.defer(() => rm(profile, { recursive: true, force: true, maxRetries: 5 }));
  const { executable, libraryPath } = await findBrowser({ chromiumPath: null, engine: 'auto' });
  const browser = stack.adopt(
    await launch({
      executablePath: executable,
      userDataDir: profile,
      pipe: true,
      args: ['--disable-gpu', '--autoplay-policy=no-user-gesture-required', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
      env: { ...process.env, ...(libraryPath === null ? {} : { LD_LIBRARY_PATH: libraryPath }) },
    }),
    (opened) => opened.close(),
  );
  const page = await browser.newPage();
  const all = stack.move();
  return { page, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, [Symbol.asyncDispose]: () => all[Symbol.asyncDispose]() };
}

/** The number in the picture that is shown now; null where there is none yet. */
async function readCounter(page: Page): Promise<number | null> {
  const gray = await page.evaluate(
    (width, height, share) => {
      const video = document.querySelector('video');
      if (video === null || video.readyState < 2) return null;
      const canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext('2d');
      if (context === null) return null;
      context.drawImage(video, 0, 0, video.videoWidth, video.videoWidth * share, 0, 0, width, height);
      return [...context.getImageData(0, 0, width, height).data].filter((_value, i) => i % 4 === 1);
    },
    WIDTH,
    HEIGHT,
    BAND_HEIGHT / GRID,
  );
  return gray === null ? null : readPicture({ data: Uint8Array.from(gray), width: WIDTH, height: HEIGHT }).counter;
}
