import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, onTestFinished, test } from 'vitest';
import { privateMemory, watchMemory } from '../../../worker/browser/memory.ts';

test.skipIf(process.platform !== 'linux')('the memory of a process is what it and its children have for themselves', async () => {
  const program = `
    const { spawn } = require('node:child_process');
    const child = spawn(process.execPath, ['-e', 'globalThis.kept = Buffer.alloc(200 * 2 ** 20, 1); console.log("there"); setInterval(() => {}, 1000)'], { stdio: ['ignore', 'inherit', 'inherit'] });
    process.on('SIGTERM', () => { child.kill('SIGKILL'); process.exit(); });
    process.stdin.resume();
  `;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGTERM'));
  await once(child.stdout, 'data');
  const pid = child.pid ?? 0;
  expect(await privateMemory(pid)).toBeLessThan(150 * 2 ** 20);
  expect(await privateMemory(2 ** 22 + 1)).toBe(0);

  const found = await new Promise<number>((resolve) => {
    const end = watchMemory(pid, 200 * 2 ** 20, resolve);
    onTestFinished(end);
  });
  expect(found).toBeGreaterThan(200 * 2 ** 20);
  expect(found).toBeLessThan(400 * 2 ** 20);
});
