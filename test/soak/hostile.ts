/**
 * Pages that do what they can against whoever records them, each beside an ordinary recording in the same worker: its own recording
 * ends with a true error or goes on, and the other one keeps its frames.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { isEnd, type CaptureEngineName, type Recording } from '../../shared/recording.ts';
import { startPages } from '../helpers/pages.ts';
import { startService } from '../helpers/service.ts';
import { figuresOf } from '../system/figures.ts';
import type { Outcome } from './outcome.ts';

export type HostileOptions = {
  engine: CaptureEngineName;
  /** Of the ordinary recording, in seconds. */
  length: number;
  deeds: readonly (keyof typeof hostileDeeds)[];
  /** Points of its share of frames, and seconds without a new one, that the ordinary recording may lose. */
  shareLoss?: number;
  gap?: number;
  /** Where it is not to be measured first. */
  shareAlone?: number;
};

/** What the page is asked to do, and how its own recording may end; undefined where it has to go on. */
export const hostileDeeds = {
  flood: { query: 'do=flood', errors: ['page_hung', 'page_too_large', 'capture_frozen'] },
  frames: { query: 'do=frames&n=10000', errors: ['page_hung', 'page_too_large', 'capture_frozen'] },
  sites: { query: 'do=frames&n=10000&sites=1', errors: ['page_hung', 'page_too_large', 'capture_frozen'] },
  eat: { query: 'do=eat&mb=all', errors: ['page_too_large', 'page_crashed'] },
  popups: { query: 'do=popups', errors: [] },
  alerts: { query: 'do=alerts', errors: ['page_hung', 'capture_frozen'] },
  close: { query: 'do=close', errors: [] },
  block: { query: 'do=block&ms=60000', errors: ['page_hung', 'capture_frozen'] },
  burn: { query: 'do=burn&n=4', errors: ['page_hung', 'capture_frozen'] },
} as const satisfies Record<string, { query: string; errors: readonly string[] }>;

const SIZE = { width: 640, height: 360 };

export async function hostile({ engine, length, deeds, shareLoss = 0.1, gap = 1, shareAlone }: HostileOptions): Promise<Outcome> {
  const failures: string[] = [];
  const figures: Record<string, string> = {};
  await using pages = await startPages();
  await using service = await startService({ engine, slots: 2, environment: { BROWSER_MEMORY_LIMIT: '1G' } });
  const ordinary = () => service.create({ url: pages.url('/animated.html?report=1'), ...SIZE, maxDuration: length });
  const figured = async (id: string) => {
    const recording = await service.waitFor(id, 'completed', 120_000);
    return figuresOf({ ...recording, path: await service.download(recording) }, pages);
  };
  const shown = ({ share, perSecond, longestGap }: Awaited<ReturnType<typeof figured>>) => `share ${share.toFixed(3)}, ${perSecond.toFixed(1)} new frames/s, longest gap ${(longestGap * 1000).toFixed(0)} ms`;

  const alone = shareAlone === undefined ? await figured((await ordinary()).id) : { share: shareAlone };
  if ('perSecond' in alone) figures['alone'] = shown(alone);
  for (const deed of deeds) {
    const { query, errors } = hostileDeeds[deed];
    const { id } = await ordinary();
    await service.waitFor(id, 'recording');
    const bad = await service.create({ url: pages.url(`/misbehaving.html?at=1&${query}`), ...SIZE, maxDuration: length });
    const beside = await figured(id);
    const ended = await overOf(service.get, service.stop, bad.id);
    const attempts = ended.warnings.filter((line) => line.startsWith('Attempt ')).map((line) => /ended: (\w+)/.exec(line)?.[1] ?? line);
    const all = [...new Set([...attempts, ...(ended.error === undefined ? [] : [ended.error.code])])];
    figures[deed] = `${shown(beside)}; its own: ${ended.state}${all.length === 0 ? '' : ` (${all.join(', ')})`}`;
    const wrong = all.filter((code) => !(errors as readonly string[]).includes(code));
    if (!isEnd(ended.state) || wrong.length > 0) failures.push(`${deed}: its own recording is ${ended.state}, with ${wrong.join(', ')}`);
    if (beside.share < alone.share - shareLoss) failures.push(`${deed}: the other recording has a share of ${beside.share.toFixed(3)} of its frames, alone ${alone.share.toFixed(3)}`);
    if (beside.longestGap > gap) failures.push(`${deed}: the other recording has no new frame for ${beside.longestGap.toFixed(1)} s`);
  }
  return { seed: 0, figures, failures };
}

async function overOf(get: (id: string) => Promise<Recording>, stop: (id: string) => Promise<unknown>, id: string): Promise<Recording> {
  await stop(id).catch(() => undefined); // it is over already
  let recording = await get(id);
  for (const until = Date.now() + 60_000; !isEnd(recording.state) && Date.now() < until; recording = await get(id)) await sleep(500);
  return recording;
}
