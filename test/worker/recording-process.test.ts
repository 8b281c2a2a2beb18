import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test, vi } from 'vitest';
import { makeProcessDirectory, removeUnused } from '../../worker/leftovers.ts';
import { inherited } from '../helpers/environment.ts';

const entry = fileURLToPath(new URL('../../worker/recording-process.ts', import.meta.url));

test.each(['comes up', 'waits for a recording'])('a process whose worker dies while it %s ends, and leaves no files', async (what) => {
  const directory = makeProcessDirectory();
  const child = fork(entry, [], { env: { ...inherited, TMPDIR: directory }, execArgv: [], stdio: ['ignore', 2, 2, 'ipc'] });
  const exit = once(child, 'exit');
  if (what !== 'comes up') await once(child, 'message');
  child.disconnect();
  expect(await exit).toEqual([0, null]);
  expect(existsSync(directory)).toBe(false);
}, 60_000);

test('what a process left that was killed with its worker is removed, and nothing that is in use or young', async () => {
  const place = mkdtempSync(join(tmpdir(), 'tabreel-test-'));
  vi.stubEnv('TMPDIR', place);
  onTestFinished(() => {
    vi.unstubAllEnvs();
    rmSync(place, { recursive: true, force: true });
  });
  const [left, used] = [makeProcessDirectory(), makeProcessDirectory()];
  writeFileSync(join(left, 'profile'), 'left');
  const other = mkdtempSync(join(place, 'somebody-elses-'));
  const child = fork(entry, [], { env: { ...inherited, TMPDIR: used }, execArgv: [], stdio: ['ignore', 2, 2, 'ipc'] });
  await once(child, 'message');
  expect(await removeUnused(60_000)).toBe(0);
  await sleep(2);
  expect(await removeUnused(1)).toBe(1);
  expect([left, used, other].map((path) => existsSync(path))).toEqual([false, true, true]);
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
  expect(await removeUnused(1)).toBe(1);
}, 60_000);
