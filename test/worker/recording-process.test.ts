import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { PROCESS_DIRECTORY } from '../../worker/process-protocol.ts';

const entry = fileURLToPath(new URL('../../worker/recording-process.ts', import.meta.url));

test.each(['comes up', 'waits for a recording'])('a process whose worker dies while it %s ends, and leaves no files', async (what) => {
  const directory = mkdtempSync(join(tmpdir(), PROCESS_DIRECTORY));
  const child = fork(entry, [], { env: { PATH: process.env['PATH'], TMPDIR: directory }, execArgv: [], stdio: ['ignore', 2, 2, 'ipc'] });
  const exit = once(child, 'exit');
  if (what !== 'comes up') await once(child, 'message');
  child.disconnect();
  expect(await exit).toEqual([0, null]);
  expect(existsSync(directory)).toBe(false);
}, 60_000);
