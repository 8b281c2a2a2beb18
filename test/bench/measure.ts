/** One run of one way on one page: what it cost while it recorded, and what came out. */
import { readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { flashBeepOffsets, probe, readBeeps, readFrames, summary, uniqueFrames } from '../helpers/analyse.ts';
import { proportionalSetSize } from './group.ts';
import type { Similarity } from './similarity.ts';
import type { RunContext, Way } from './way.ts';

/** From the recording's begin to the measuring, in milliseconds: everything has started by then. */
const SETTLE_MS = 2500;
const MEMORY_EACH_MS = 500;
/** Seconds that are left out of a recording's begin and end when its frames are counted. */
const LEFT_OUT = { begin: 2, end: 0.3 };

export type PageKind = 'still' | 'moving' | 'beeping' | 'known';

export type Result = {
  page: string;
  way: string;
  /** CPU seconds per second, and those of edge and finaliser. */
  cores: number;
  edgeCores: number | null;
  /** Bytes. */
  peakMemory: number;
  /** Share of the machine's time that neighbours took meanwhile. */
  stolen: number;
  /** Different pictures a second, and the longest time without a new one in seconds. */
  unique: number | null;
  longestGap: number | null;
  /** Milliseconds by which sound comes after its picture: median of the page's beeps. */
  soundOffset: number | null;
  /** Bits per second of the whole file. */
  bitrate: number | null;
  /** Mean over the compared pictures. */
  ssim: number | null;
};

/** @param seconds to measure for. @param similarity compares with what the page draws, on the page of known pictures. */
export async function measure(
  way: Way,
  page: { name: string; kind: PageKind },
  context: RunContext,
  seconds: number,
  similarity: Similarity,
): Promise<Result> {
  const running = await way.start(context);
  const begun = { cpu: running.group.cpu(), at: performance.now() };
  await sleep(SETTLE_MS);
  const before = { cpu: running.group.cpu(), edge: running.edge?.cpu() ?? 0, machine: machineTime(), at: performance.now() };
  let peakMemory = 0;
  while (performance.now() - before.at < seconds * 1000) {
    peakMemory = Math.max(peakMemory, await proportionalSetSize(running.group.pids()));
    await sleep(Math.min(MEMORY_EACH_MS, Math.max(0, seconds * 1000 - (performance.now() - before.at))));
  }
  const elapsed = (performance.now() - before.at) / 1000;
  let cores = (running.group.cpu() - before.cpu) / elapsed;
  const edgeCores = running.edge === null ? null : (running.edge.cpu() - before.edge) / elapsed;
  const machine = machineTime();
  const stolen = (machine.stolen - before.machine.stolen) / (machine.total - before.machine.total);
  await sleep(500);
  const recorded = (performance.now() - begun.at) / 1000;
  const file = await running.stop();
  if (running.lags) cores = (running.group.cpu() - begun.cpu) / recorded;
  return {
    page: page.name,
    way: way.name,
    cores,
    edgeCores,
    peakMemory,
    stolen,
    ...(file === null ? nothing : await judge(file, page.kind, way, similarity)),
  };
}

type Judgement = Pick<Result, 'unique' | 'longestGap' | 'soundOffset' | 'bitrate' | 'ssim'>;
const nothing: Judgement = { unique: null, longestGap: null, soundOffset: null, bitrate: null, ssim: null };

async function judge(file: string, kind: PageKind, way: Way, similarity: Similarity): Promise<Judgement> {
  const { size } = await stat(file);
  // page.screencast() leaves an empty file of a page that stands still
  if (size === 0) return nothing;
  const { video, audio } = await probe(file);
  const bitrate = (size * 8) / (video?.duration || NaN);
  if (kind === 'still') return { ...nothing, bitrate };
  const all = await readFrames(file);
  // what came before the page did carries no barcode
  const begin = (all.find(({ counter }) => counter !== null)?.time ?? 0) + LEFT_OUT.begin;
  const end = (all.at(-1)?.time ?? 0) - LEFT_OUT.end;
  const frames = all.filter(({ time }) => time >= begin && time <= end);
  if (kind === 'known') {
    return { ...nothing, bitrate, ssim: way.draws === null ? null : await similarity(file, all, way.draws, begin) };
  }
  const { perSecond, longestGap } = uniqueFrames(frames);
  const beeps = kind === 'beeping' && audio !== null ? await readBeeps(file) : [];
  const offset = summary(flashBeepOffsets(frames, beeps)).median;
  return { unique: perSecond, longestGap, soundOffset: Number.isNaN(offset) ? null : offset, bitrate, ssim: null };
}

/** In ticks since the machine started. */
function machineTime(): { total: number; stolen: number } {
  const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n');
  const times = line.trim().split(/\s+/).slice(1, 9).map(Number);
  return { total: times.reduce((sum, time) => sum + time, 0), stolen: times[7] ?? 0 };
}
