/** Before all tests: a directory for the compiled code of the processes that they start, which goes with the run. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export function setup(): (() => void) | undefined {
  if (process.env['NODE_COMPILE_CACHE'] !== undefined) return undefined;
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-compiled-'));
  process.env['NODE_COMPILE_CACHE'] = directory;
  return () => rmSync(directory, { recursive: true, force: true });
}
