import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { launch } from 'puppeteer-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { unpackBundled } from '../../worker/browser/bundled.ts';
import { findBrowser, splitPath } from '../../worker/browser/find.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tabreel-find-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

let made = 0;
/** A directory for PATH with programs that print a version, as launchers of distributions are scripts. */
async function bin(programs: Record<string, string>): Promise<string> {
  made += 1;
  const path = join(directory, `bin${made}`);
  await mkdir(path);
  for (const [name, script] of Object.entries(programs)) await writeFile(join(path, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return path;
}
const prints = (version: string) => `echo "Chromium ${version}"`;
/** So that nothing is unpacked: neither place can be made. */
const nowhere = { home: '/dev/null', tmp: '/dev/null' };

describe('the browser that records', () => {
  it('is the installed Chrome, which captures tabs', async () => {
    const path = [await bin({ 'chromium-headless-shell': prints('150.0.1.2') }), await bin({ chromium: prints('156.0.8078.79'), 'google-chrome': prints('157.0.1.1') })];
    expect(await findBrowser({ chromiumPath: null, engine: 'auto', path, ...nowhere })).toEqual({
      kind: 'chrome',
      executable: join(path[1] as string, 'google-chrome'),
      version: '157.0.1.1',
      libraryPath: null,
      fontsPath: null,
      engines: ['tab', 'screencast'],
    });
  });

  it('is a headless shell where self capture is asked for, and where there is no Chrome', async () => {
    const shell = await bin({ 'chromium-headless-shell': prints('150.0.1.2') });
    const both = [await bin({ chromium: prints('156.0.8078.79') }), shell];
    expect(await findBrowser({ chromiumPath: null, engine: 'self', path: both, ...nowhere })).toMatchObject({ kind: 'headless-shell', engines: ['self'] });
    expect(await findBrowser({ chromiumPath: null, engine: 'auto', path: [shell], ...nowhere })).toMatchObject({
      kind: 'headless-shell',
      engines: ['self', 'screencast'],
    });
    expect(await findBrowser({ chromiumPath: null, engine: 'screencast', path: both, ...nowhere })).toMatchObject({ kind: 'chrome', engines: ['screencast'] });
  });

  it('is not an installed one that does not run', async () => {
    // Ubuntu's chromium-browser without the snap
    const stub = 'echo "Command \'$0\' requires the chromium snap to be installed." >&2; exit 1';
    const path = [await bin({ chromium: stub, 'chrome-headless-shell': prints('150.0.1.2') })];
    expect(await findBrowser({ chromiumPath: null, engine: 'auto', path, ...nowhere })).toMatchObject({ kind: 'headless-shell' });
    await expect(findBrowser({ chromiumPath: null, engine: 'tab', path, ...nowhere })).rejects.toMatchObject({
      code: 'browser_not_found',
      message: expect.stringMatching(/CAPTURE_ENGINE=tab needs Chrome.*requires the chromium snap.*set CHROMIUM_PATH/),
    });
  });

  it('is the one that is named, by path or by name, or nothing', async () => {
    const path = await bin({ mine: prints('1.2.3.4'), wrapped: `exec /opt/headless_shell "$@"; ${prints('x')}`, broken: 'echo oops; exit 3' });
    await writeFile(join(path, 'plain'), 'text');
    await symlink(join(path, 'mine'), join(path, 'my-headless-shell'));
    const find = (chromiumPath: string, engine: 'auto' | 'self' = 'auto') => findBrowser({ chromiumPath, engine, path: [path], ...nowhere });
    expect(await find(join(path, 'mine'))).toMatchObject({ kind: 'chrome', version: '1.2.3.4' });
    expect(await find('mine')).toMatchObject({ executable: join(path, 'mine') });
    expect(await find('my-headless-shell')).toMatchObject({ kind: 'headless-shell' });
    await expect(find('mine', 'self')).rejects.toThrow('it is a chrome, which has no self engine');
    await expect(find('/no/where')).rejects.toThrow('there is no such file');
    await expect(find(join(path, 'plain'))).rejects.toThrow('it may not be executed');
    await expect(find('broken')).rejects.toThrow('oops');
    await expect(find('missing')).rejects.toThrow(`missing: not found in ${path}`);
  });

  it.skipIf(!existsSync('/usr/lib/chromium/chromium'))('is told from a shell by what lies beside it', async () => {
    // the program behind Debian's launcher
    expect(await findBrowser({ chromiumPath: '/usr/lib/chromium/chromium', engine: 'auto' })).toMatchObject({ kind: 'chrome', engines: ['tab', 'screencast'] });
    // who names the launcher means the browser: the launcher adds flags, one of which keeps it out of /dev/shm
    for (const chromiumPath of ['/usr/bin/chromium', 'chromium']) {
      expect(await findBrowser({ chromiumPath, engine: 'auto' })).toMatchObject({ executable: '/usr/lib/chromium/chromium' });
    }
  });

  it('says what it tried where there is none at all', async () => {
    await expect(findBrowser({ chromiumPath: null, engine: 'auto', path: [], ...nowhere })).rejects.toMatchObject({
      code: 'browser_not_found',
      message: expect.stringContaining('install Chromium or Google Chrome, or set CHROMIUM_PATH'),
    });
  });

  it('is looked for along PATH', () => {
    expect(splitPath('/a:/b::/c')).toEqual(['/a', '/b', '/c']);
  });
});

const bundled = process.platform === 'linux' && process.arch === 'x64';

describe.skipIf(!bundled)('the browser of the packages', () => {
  it('is unpacked once by many at a time, into a place that is ours, and starts', async () => {
    const home = join(directory, 'home');
    await mkdir(home);
    const all = await Promise.all([1, 2].map(() => findBrowser({ chromiumPath: null, engine: 'self', path: [], home, tmp: '/dev/null' })));
    expect(all[0]).toEqual(all[1]);
    const found = all[0] as Awaited<ReturnType<typeof findBrowser>>;
    expect(found).toMatchObject({ kind: 'headless-shell', engines: ['self'], executable: expect.stringContaining(`${home}/.cache/tabreel/chromium-`) });
    expect((await readdir(join(home, '.cache', 'tabreel'))).length).toBe(1);

    const browser = await launch({
      executablePath: found.executable,
      headless: 'shell',
      pipe: true,
      args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
      ...(found.libraryPath === null ? {} : { env: { ...process.env, LD_LIBRARY_PATH: found.libraryPath } }),
    });
    expect(await browser.version()).toBe(`HeadlessChrome/${found.version}`);
    await browser.close();

    // a cleaner of temporary files got at it
    await rm(join(dirname(found.executable), 'complete'));
    const again = await findBrowser({ chromiumPath: null, engine: 'auto', path: [], home, tmp: '/dev/null' });
    expect(again.executable).toBe(found.executable);
    expect(again.engines).toEqual(['self', 'screencast']);
    expect((await readdir(join(home, '.cache', 'tabreel'))).length).toBe(1);
  }, 30_000);

  it('brings the libraries and fonts that a bare machine lacks', async () => {
    const { libraryPath, fontsPath } = await unpackBundled(join(directory, 'home', '.cache', 'tabreel'));
    const libraries = await readdir(libraryPath);
    for (const name of ['libnss3.so', 'libnssutil3.so', 'libnspr4.so', 'libsoftokn3.so', 'libfreeblpriv3.so', 'libexpat.so.1']) expect(libraries).toContain(name);
    expect(await readdir(fontsPath)).toContain('fonts.conf');
  }, 120_000);

  it('is not unpacked where somebody else could put another program in its place', async () => {
    const open = join(directory, 'open');
    await mkdir(open);
    await chmod(open, 0o777);
    await expect(unpackBundled(join(open, 'tabreel'))).rejects.toThrow('others may write to');
    const shut = join(directory, 'shut');
    await mkdir(shut);
    await symlink(open, join(shut, 'link'));
    await expect(unpackBundled(join(shut, 'link'))).rejects.toThrow('not a directory');
    await mkdir(join(shut, 'writable'));
    await chmod(join(shut, 'writable'), 0o770);
    await expect(unpackBundled(join(shut, 'writable'))).rejects.toThrow('others may write to it');
  });

  it('needs nothing of the machine beyond what the search says it lacks', async () => {
    const { executable, libraryPath } = await unpackBundled(join(directory, 'home', '.cache', 'tabreel'));
    const ldd = await promisify(execFile)('ldd', [executable], { env: { LD_LIBRARY_PATH: libraryPath, PATH: '/usr/bin:/bin' } }).catch(() => null);
    if (ldd === null) return; // no ldd on musl systems without it
    expect(ldd.stdout).not.toContain('not found');
    expect(ldd.stdout).toContain(join(libraryPath, 'libnss3.so'));
  });
});
