/** A recording whose disk fills up at a random moment, and has room again later: while it runs, or only after it was stopped. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startFleet } from '../helpers/fleet.ts';
import { startPages } from '../helpers/pages.ts';
import { smallDisk } from '../helpers/small-disk.ts';
import { examine, nothingLeft } from './examine.ts';
import { between, seconds, seeded, type Outcome } from './outcome.ts';

export type FullDiskOptions = {
  seed: number;
  /** Of the recording, in seconds. */
  length: number;
  /** Seconds for which the disk is full. */
  full: number;
  /** Whether the recording is stopped meanwhile. */
  stop: boolean;
};

export async function fullDisk({ seed, length, full, stop }: FullDiskOptions): Promise<Outcome> {
  const random = seeded(seed);
  const failures: string[] = [];
  const check = (good: boolean, what: string) => void (good || failures.push(what));
  using disk = smallDisk('64m');
  await using pages = await startPages();
  await using fleet = await startFleet({ storage: join(disk.path, 'storage'), tap: join(disk.path, 'tap') });
  const { id } = await fleet.create({ url: pages.url('/animated.html'), width: 320, height: 180, maxDuration: length });
  await fleet.waitFor(id, 'recording', 20_000);
  const moment = between(random, 0.5, length - (stop ? 0 : full) - 1);
  await sleep(moment * 1000);
  const acked = fleet.tap.segments(id).length;
  let refused = 0;
  const told: string[] = [];
  {
    await using _room = await disk.fill();
    await sleep(1500);
    const { status, body } = await fleet.api<{ code: string }>(
      '/v1/recordings',
      { method: 'POST', body: JSON.stringify({ url: pages.url('/static.html') }), headers: { 'content-type': 'application/json' } },
      0,
    );
    refused = status;
    check(status === 507 && body.code === 'storage_full', `a new recording is answered with ${status} ${body.code}`);
    if (stop) await fleet.stop(id);
    await sleep((full - 1.5) * 1000);
    const { state, warnings, error } = await fleet.get(id);
    told.push(state, ...warnings.filter((warning) => /full|room|space/i.test(warning)), ...(error === undefined ? [] : [error.code]));
  }
  const recording = await fleet.waitFor(id, ['completed', 'failed', 'canceled'], (length + 90) * 1000);
  check(recording.state === 'completed', `it is ${recording.state}: ${JSON.stringify(recording.error)}`);
  check(told.length > 1, `while the disk was full the API said only that it is ${told.join()}`);
  const { samples } = await examine(fleet, recording, failures, 3);
  check(samples.segments >= acked, `${samples.segments} segments of ${acked} are there`);
  check(recording.stats.frames === samples.video.inFile, `${recording.stats.frames} frames were made, ${samples.video.inFile} are in the file`);
  await nothingLeft(fleet, failures, 15_000);
  return {
    seed,
    figures: {
      'full from, for, s': `${seconds(moment * 1000)}, ${full}`,
      'a new recording is answered': refused,
      'told meanwhile': told.join(' | '),
      state: recording.state,
      'segments stored before, in all': `${acked}, ${samples.segments}`,
      'frames made, in the file': `${recording.stats.frames}, ${samples.video.inFile}`,
      'duration, s': recording.duration,
    },
    failures,
  };
}
