/** How like a recording's pictures are to what the page drew (SSIM), on the page whose pictures are known beforehand. */
import { mkdir, mkdtemp, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLog } from '../../shared/log.ts';
import type { FoundBrowser } from '../../worker/browser/find.ts';
import { launchBrowser } from '../../worker/browser/launch.ts';
import { startProxy } from '../../worker/outbound/proxy.ts';
import type { Frame } from '../helpers/analyse.ts';
import { decoding, start } from '../helpers/ffmpeg.ts';
import { picture } from './way.ts';
import { plainLaunch } from './ways/alone.ts';

/** Which pictures are compared: 25 of the page's 300, spread over its ten seconds. */
const COMPARED = Array.from({ length: 25 }, (_, i) => i * 12 + 5);

/** @param from seconds; frames before are not looked at. @returns the mean SSIM; null where no picture could be compared. */
export type Similarity = (file: string, frames: readonly Frame[], draws: FoundBrowser['kind'], from: number) => Promise<number | null>;

/** Takes the pictures that are compared with from each browser itself. @param url of the page of known pictures. */
export async function createSimilarity(browsers: readonly FoundBrowser[], url: string, directory: string): Promise<Similarity> {
  for (const found of browsers) await drawReferences(found, url, join(directory, found.kind));

  return async (file, frames, draws, from) => {
    const pairs: { index: number; counter: number }[] = [];
    for (const [index, { time, counter }] of frames.entries()) {
      if (time < from || counter === null || !COMPARED.includes(counter)) continue;
      if (!pairs.some((pair) => pair.counter === counter)) pairs.push({ index, counter });
    }
    if (pairs.length === 0) return null;
    const references = await mkdtemp(join(directory, 'compared-'));
    for (const [i, { counter }] of pairs.entries()) {
      await symlink(join(directory, draws, `${counter}.png`), join(references, `${String(i + 1).padStart(3, '0')}.png`));
    }
    const chosen = pairs.map(({ index }) => `eq(n\\,${index})`).join('+');
    // a recording doesn't always tell its colours' matrix: the one that fits is its own
    const values = await Promise.all(['bt709', 'bt601'].map((matrix) => compare(file, references, chosen, matrix)));
    return Math.max(...values);
  };
}

async function compare(file: string, references: string, chosen: string, matrix: string): Promise<number> {
  const filter =
    `[0:v]select='${chosen}',settb=1/25,setpts=N,format=yuv420p[recorded];` +
    `[1:v]settb=1/25,setpts=N,scale=out_color_matrix=${matrix}:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv420p[drawn];` +
    '[recorded][drawn]ssim';
  const run = start('ffmpeg', [
    ...decoding(file),
    '-framerate', '25', '-i', join(references, '%03d.png'), '-lavfi', filter, '-fps_mode', 'passthrough', '-f', 'null', '-',
  ]);
  let value = NaN;
  const read = async () => {
    for await (const line of run.lines) value = Number(/ All:([\d.]+)/.exec(line)?.[1] ?? value);
  };
  await Promise.all([read(), run.done]);
  return value;
}

async function drawReferences(found: FoundBrowser, url: string, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  await using proxy = await startProxy({ log: createLog('error', () => undefined), judge: async () => null });
  await using launched = await launchBrowser(plainLaunch(found, proxy.port), AbortSignal.timeout(30_000));
  const page = (await launched.browser.pages())[0] ?? (await launched.browser.newPage());
  await page.setViewport({ width: picture.width, height: picture.height });
  for (const counter of COMPARED) {
    await page.goto(`${url}?freeze=${counter}`);
    await page.waitForFunction(() => document.title === 'drawn');
    await sleep(50);
    await page.screenshot({ path: join(directory, `${counter}.png`) });
  }
}
