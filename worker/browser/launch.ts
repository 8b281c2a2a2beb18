/** Starts one browser for one recording: fresh profile, scrubbed environment, no port; ends it and wipes what it left. */
import { launch, type Browser } from 'puppeteer-core';
import { TabreelError } from '../../shared/errors.ts';
import { browserFlags, type FlagOptions } from './flags.ts';
import { makeProfile, wipeProfile } from './profile.ts';

export type LaunchOptions = Omit<FlagOptions, 'profileDirectory'> & {
  executable: string;
  /** Directories of what the machine lacks, shared libraries and fonts; null where it lacks none. */
  libraryPath: string | null;
  fontsPath: string | null;
};

export type LaunchedBrowser = AsyncDisposable & {
  browser: Browser;
  pid: number | null;
  /** Resolves when the browser has ended, for whatever reason. */
  ended: Promise<void>;
};

/**
 * @param signal aborts the start, and nothing later.
 * @throws {TabreelError} `browser_launch_failed` with the line in which the browser says why.
 */
export async function launchBrowser(options: LaunchOptions, signal: AbortSignal): Promise<LaunchedBrowser> {
  const profileDirectory = await makeProfile(options.webrtc);
  const wipe = () => wipeProfile(profileDirectory);
  // puppeteer kills the browser whenever its signal is aborted: only while it starts is that wanted
  const starting = new AbortController();
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => undefined);
  const abort = () => {
    starting.abort(signal.reason);
    aborted.reject(signal.reason);
  };
  signal.addEventListener('abort', abort);
  let browser: Browser;
  try {
    signal.throwIfAborted();
    const launching = launch({
      executablePath: options.executable,
      ignoreDefaultArgs: true,
      args: browserFlags({ ...options, profileDirectory }),
      pipe: true,
      defaultViewport: null,
      waitForInitialPage: true,
      timeout: 20_000,
      protocolTimeout: 60_000,
      // how a recording ends on a signal is the recorder's decision
      handleSIGINT: false,
      handleSIGTERM: false,
      handleSIGHUP: false,
      signal: starting.signal,
      env: browserEnvironment(profileDirectory, options),
    });
    // puppeteer may wait for a browser that it has killed itself, for a minute
    browser = await Promise.race([launching, aborted.promise]);
  } catch (error) {
    await wipe();
    signal.throwIfAborted();
    throw new TabreelError('browser_launch_failed', `The browser did not start: ${launchHint(error)}`, { cause: error });
  } finally {
    signal.removeEventListener('abort', abort);
  }
  const child = browser.process();
  const ended = new Promise<void>((resolve) => {
    if (!child || child.exitCode !== null || child.signalCode !== null) resolve();
    else child.once('exit', () => resolve());
  });
  return {
    browser,
    pid: child?.pid ?? null,
    ended,
    async [Symbol.asyncDispose]() {
      // its profile is of no use afterwards: killing is the quick and certain way
      child?.kill('SIGKILL');
      await ended;
      await browser.disconnect().catch(() => undefined);
      await wipe();
    },
  };
}

/** Nothing of ours reaches the browser: no settings, no credentials. Time zone and fonts are the machine's, not its caller's. */
function browserEnvironment(home: string, { libraryPath, fontsPath }: Pick<LaunchOptions, 'libraryPath' | 'fontsPath'>): Record<string, string> {
  return {
    HOME: home,
    XDG_CONFIG_HOME: home,
    XDG_CACHE_HOME: home,
    XDG_RUNTIME_DIR: home,
    PATH: '/usr/local/bin:/usr/bin:/bin',
    LANG: 'C.UTF-8',
    ...(libraryPath === null ? {} : { LD_LIBRARY_PATH: libraryPath }),
    ...(fontsPath === null ? {} : { FONTCONFIG_PATH: fontsPath }),
  };
}

/** The line that says why, out of what a browser prints. */
function launchHint(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  if (/No usable sandbox|setuid sandbox|sandbox.*root|Running as root without --no-sandbox/i.test(text)) {
    return 'its sandbox needs an ordinary user and user namespaces; set CHROMIUM_SANDBOX=off to go without it';
  }
  const lines = text.split('\n').map((line) => line.trim());
  return lines.find((line) => /error|cannot|failed|fatal/i.test(line)) ?? lines[0] ?? 'it said nothing';
}
