/** Which browser records: the one that is named, an installed one, or the one that came with the packages. */
import { access, constants, realpath, stat } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { getuid } from 'node:process';
import { TabreelError } from '../../shared/errors.ts';
import type { CaptureEngineName } from '../../shared/recording.ts';
import { unpackBundled, unpackedAt } from './bundled.ts';
import { probeBrowser, type BrowserKind } from './probe.ts';

export type FoundBrowser = {
  kind: BrowserKind;
  executable: string;
  /** Four numbers with dots. */
  version: string;
  /** For LD_LIBRARY_PATH, where the machine lacks libraries that the browser needs (NSS); else null. */
  libraryPath: string | null;
  /** For FONTCONFIG_PATH, where the machine has no fonts of its own; else null. */
  fontsPath: string | null;
  /** What it can capture with, the best first; only the forced one where one is forced. */
  engines: CaptureEngineName[];
};

export type FindOptions = {
  /** CHROMIUM_PATH: an executable, by path or by name; null to look for one. */
  chromiumPath: string | null;
  /** CAPTURE_ENGINE: a forced engine narrows the search to browsers that have it. */
  engine: CaptureEngineName | 'auto';
  /** Directories to look in, as in PATH; by default where systems put programs. */
  path?: readonly string[];
  /** Where the browser of the packages is unpacked: below `.cache` of the first, else in the second. */
  home?: string;
  tmp?: string;
};

const usualPath = ['/usr/local/bin', '/usr/bin', '/bin', '/snap/bin'];
const chromeNames = ['google-chrome-stable', 'google-chrome', 'chromium', 'chromium-browser', 'chrome'];
const shellNames = ['chromium-headless-shell', 'chrome-headless-shell', 'headless_shell'];

/** Full Chrome has a picker of tabs, and sound of all that a tab plays; in the shell a page can only capture itself. */
const enginesOf: Readonly<Record<BrowserKind, readonly CaptureEngineName[]>> = {
  chrome: ['tab', 'screencast'],
  'headless-shell': ['self', 'screencast'],
};

/** PATH as a list of directories. */
export const splitPath = (path: string): string[] => path.split(delimiter).filter((directory) => directory !== '');

/** @throws {TabreelError} `browser_not_found`, telling what was tried and what would help. */
export async function findBrowser(options: FindOptions): Promise<FoundBrowser> {
  const { engine } = options;
  const path = options.path ?? usualPath;
  const home = options.home ?? homedir();
  const tmp = options.tmp ?? tmpdir();
  const environment = { PATH: path.join(delimiter), HOME: home, TMPDIR: tmp };
  const tried: string[] = [];

  const take = async (executable: string): Promise<FoundBrowser | null> => {
    let probed = await probeBrowser(executable, environment, null);
    // a browser that was unpacked here carries what a bare machine lacks beside it
    const besides = unpackedAt(executable);
    let libraryPath: string | null = null;
    if ('problem' in probed && (await exists(join(besides.libraryPath, 'libnss3.so')))) {
      libraryPath = besides.libraryPath;
      probed = await probeBrowser(executable, environment, libraryPath);
    }
    if ('problem' in probed) {
      tried.push(`${executable}: ${probed.problem}`);
      return null;
    }
    const engines = enginesOf[probed.kind].filter((name) => engine === 'auto' || name === engine);
    if (engines.length === 0) {
      tried.push(`${executable}: it is a ${probed.kind}, which has no ${engine} engine`);
      return null;
    }
    const bare = !(await exists('/etc/fonts/fonts.conf')) && (await exists(join(besides.fontsPath, 'fonts.conf')));
    return { kind: probed.kind, executable, version: probed.version, libraryPath, fontsPath: bare ? besides.fontsPath : null, engines };
  };

  if (options.chromiumPath !== null) {
    const executable = options.chromiumPath.includes('/') ? options.chromiumPath : await onPath(options.chromiumPath, path);
    const found = executable === null ? null : await take(await behindLauncher(executable));
    if (found) return found;
    throw notFound(tried.length > 0 ? tried : [`${options.chromiumPath}: not found in ${path.join(', ')}`], 'CHROMIUM_PATH names a browser that can not be used');
  }

  for (const name of engine === 'self' ? shellNames : [...chromeNames, ...shellNames]) {
    const executable = await onPath(name, path);
    const found = executable === null ? null : await take(await behindLauncher(executable));
    if (found) return found;
  }

  if (engine === 'tab') throw notFound(tried, 'CAPTURE_ENGINE=tab needs Chrome or Chromium, and none is installed');
  for (const place of [join(home, '.cache', 'tabreel'), join(tmp, `tabreel-${getuid?.() ?? 0}`)]) {
    try {
      const found = await take((await unpackBundled(place)).executable);
      if (found) return found;
    } catch (error) {
      tried.push(`${place}: ${(error as Error).message}`);
    }
  }
  throw notFound(tried, 'There is no browser that works');
}

const notFound = (tried: readonly string[], what: string): TabreelError =>
  new TabreelError(
    'browser_not_found',
    `${what}${tried.length > 0 ? ` (${tried.join('; ')})` : ''}: install Chromium or Google Chrome, or set CHROMIUM_PATH to one`,
  );

/**
 * Debian's /usr/bin/chromium is a script that adds flags of its own: extensions, GPU rasterization, and no /dev/shm where it is
 * smaller than 3.8 GB. What it starts is the browser itself, which takes our flags alone.
 */
async function behindLauncher(executable: string): Promise<string> {
  const behind = '/usr/lib/chromium/chromium';
  return executable === '/usr/bin/chromium' && (await exists(behind)) ? behind : executable;
}

async function onPath(name: string, path: readonly string[]): Promise<string | null> {
  for (const directory of path) {
    const candidate = join(directory, name);
    try {
      await access(candidate, constants.X_OK);
      if ((await stat(await realpath(candidate))).isFile()) return candidate;
    } catch {
      // not here
    }
  }
  return null;
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
