/** What kind of browser an executable is, and whether it runs at all. */
import { execFile } from 'node:child_process';
import { access, constants, open, readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';

/** `chrome` is full Chrome or Chromium; `headless-shell` the old headless mode, a program of its own since Chrome 132. */
export type BrowserKind = 'chrome' | 'headless-shell';

export type Probed = { kind: BrowserKind; version: string } | { problem: string };

const PROBE_MS = 15_000; // a cold 200 MB binary on a slow disk

const cache = new Map<string, Promise<Probed>>();

/**
 * Runs `--version` once for each state of the file. Never throws.
 * @param libraryPath for LD_LIBRARY_PATH; null for none
 */
export async function probeBrowser(executable: string, environment: Readonly<Record<string, string>>, libraryPath: string | null): Promise<Probed> {
  let key: string;
  try {
    await access(executable, constants.X_OK);
    const { mtimeMs, size } = await stat(executable);
    key = [executable, mtimeMs, size, libraryPath].join('\n');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    return { problem: code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'it may not be executed' : String(code) };
  }
  const known = cache.get(key);
  if (known) return known;
  const probing = probe(executable, libraryPath === null ? environment : { ...environment, LD_LIBRARY_PATH: libraryPath });
  cache.set(key, probing);
  const probed = await probing;
  // what is amiss may be mended without touching the file, by installing a library
  if ('problem' in probed) cache.delete(key);
  return probed;
}

async function probe(executable: string, env: Readonly<Record<string, string>>): Promise<Probed> {
  const { promise, resolve } = Promise.withResolvers<Probed>();
  execFile(executable, ['--version'], { env, timeout: PROBE_MS, killSignal: 'SIGKILL', maxBuffer: 64 * 1024 }, (error, stdout, stderr) => {
    const version = /\b\d+\.\d+\.\d+\.\d+\b/.exec(stdout)?.[0];
    if (error === null && version !== undefined) {
      kindOf(executable).then(
        (kind) => resolve({ kind, version }),
        (problem: Error) => resolve({ problem: problem.message }),
      );
      return;
    }
    const said = `${stderr}\n${stdout}`.split('\n').map((line) => line.trim()).filter((line) => line !== '');
    const line = said.find((text) => /error|not found|cannot|requires/i.test(text)) ?? said[0] ?? error?.message ?? 'it printed no version';
    resolve({ problem: error?.killed === true ? 'it did not print its version in time' : line.slice(0, 300) });
  });
  return promise;
}

/**
 * Told by files, not by starting it: `--version` prints the same for both, and the shell starts a browser on any flag that
 * only the full one knows. In this order:
 *
 * - a file named headless something is a shell (chromium-headless-shell, chrome-headless-shell, headless_shell);
 * - a script is a distribution's launcher (Debian, Google, snap) of a full browser, unless it names a headless shell;
 * - a program that has the user interface's resources beside it is a full browser;
 * - any other is a shell: those carry their resources in them or in headless_*.pak.
 */
async function kindOf(executable: string): Promise<BrowserKind> {
  const file = await realpath(executable);
  if ([executable, file].some((path) => /headless/i.test(basename(path)))) return 'headless-shell';
  await using handle = await open(file);
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(64 * 1024), 0, 64 * 1024, 0);
  const head = buffer.toString('latin1', 0, bytesRead);
  if (head.startsWith('#!')) return /headless[-_]shell/i.test(head) ? 'headless-shell' : 'chrome';
  const beside = await readdir(dirname(file));
  return beside.includes('chrome_100_percent.pak') || beside.includes('resources.pak') ? 'chrome' : 'headless-shell';
}
