/** Shared memory: how full it is, and what is left in it by browsers that were killed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { createLog } from '../../shared/log.ts';
import { clearSharedMemory, sharedMemory, watchSharedMemory } from '../../worker/shm.ts';
import { eventually } from '../edge/harness.ts';
import { smallDisk } from '../helpers/small-disk.ts';
import { temporaryDirectory } from './media/h264.ts';

const lines: string[] = [];
const log = createLog('debug', (line) => lines.push(line));

test('what browsers left is removed, and nothing that somebody has open, that is young, or that is not theirs', async () => {
  const directory = temporaryDirectory(onTestFinished);
  const files = ['.org.chromium.Chromium.left', 'org.chromium.Chromium.open', '.com.google.Chrome.left', 'org.chromium.Chromium.young', 'somebody-else'];
  const paths = files.map((name) => join(directory, name));
  for (const path of paths) {
    writeFileSync(path, Buffer.alloc(4096));
    if (!path.endsWith('young')) utimesSync(path, 1, Date.now() / 1000 - 120);
  }
  const holder = spawn('sleep', ['60'], { stdio: [openSync(paths[1] as string, 'r'), 'ignore', 'ignore'] });
  onTestFinished(() => void holder.kill('SIGKILL'));
  await once(holder, 'spawn');
  expect(await clearSharedMemory(log, directory)).toBe(2);
  expect(paths.map((path) => existsSync(path))).toEqual([false, true, false, true, true]);
  expect(await clearSharedMemory(log, join(directory, 'nowhere'))).toBe(0);
});

test.skipIf(process.getuid?.() !== 0)('that fills is warned of once, and again after there was room (skipped without root, who may mount)', async () => {
  using disk = smallDisk('8m');
  expect(await sharedMemory(disk.path)).toEqual({ size: 8 * 2 ** 20, used: 0 });
  using watch = watchSharedMemory(log, disk.path, 20);
  const warnings = () => lines.filter((line) => line.includes('nearly full')).length;
  await eventually(async () => watch.free(), (free) => free === 8 * 2 ** 20);
  for (const round of [1, 2]) {
    const filled = await disk.fill(2 ** 20);
    await eventually(async () => watch.free(), (free) => free !== null && free <= 2 ** 20);
    await eventually(async () => warnings(), (count) => count === round);
    expect(watch.text()).toMatch(/tabreel_worker_shm_bytes\{state="size"\} 8388608\ntabreel_worker_shm_bytes\{state="used"\} 7340032\n/);
    await filled[Symbol.asyncDispose]();
    await eventually(async () => watch.free(), (free) => free === 8 * 2 ** 20);
  }
  expect(warnings()).toBe(2);
});

test('that there is none of is not told', async () => {
  expect(await sharedMemory('/no/such/place')).toBeNull();
  using watch = watchSharedMemory(log, '/no/such/place');
  expect([watch.text(), watch.free()]).toEqual(['', null]);
});
