/** Sends the target page to its URL, with what only its origin may see, and waits until the recording may begin. */
import type { HTTPResponse, Page } from 'puppeteer-core';
import { TabreelError } from '../../shared/errors.ts';
import { withoutQuery } from '../../shared/log.ts';
import type { PageSecrets, RecordingSpec } from '../../shared/recording.ts';
import { abortable } from '../abortable.ts';
import { failureKey, PROXY_ERROR_HEADER, type OutboundProxy } from '../outbound/proxy.ts';
import { sendSecrets } from './page-secrets.ts';
import { listenInWorld } from './world.ts';

export type OpenedPage = {
  /** Resolves when the page says that it is over: END_RECORDING in its log, or `window.close()`. */
  over: Promise<void>;
};

/**
 * Loading and the start condition together take `start.timeout` at most; what the page does later is not bound by it.
 *
 * @param signal aborts the waiting; what it was aborted with is thrown.
 * @throws {TabreelError} `target_*` where the page can't be shown, `start_timeout` where its condition doesn't come.
 */
export async function openPage(
  page: Page,
  spec: RecordingSpec,
  secrets: PageSecrets,
  proxy: Pick<OutboundProxy, 'failures'>,
  signal: AbortSignal,
): Promise<OpenedPage> {
  if (spec.start.when === 'selector') await assertSelector(page, spec.start.selector);
  await sendSecrets(page, spec.url, secrets);
  const signals = spec.start.when === 'signal' ? await listenForSignals(page) : null;
  const closed = await listenForClose(page);

  const deadline = performance.now() + spec.start.timeout * 1000;
  await navigate(page, spec, proxy, signal);
  const left = Math.max(1, deadline - performance.now());
  const failure = (what: string) =>
    new TabreelError('start_timeout', `${what} did not come within ${spec.start.timeout} s (start.timeout)`);
  if (spec.start.when === 'selector') {
    const { selector } = spec.start;
    await page.waitForSelector(selector, { timeout: left, signal }).catch(() => {
      signal.throwIfAborted();
      throw failure(`An element that matches ${selector}`);
    });
  }
  if (signals !== null) await within(signals.started, left, signal, () => failure('The page’s START_RECORDING'));
  return { over: Promise.race([closed.promise, ...(signals === null ? [] : [signals.ended])]) };
}

/** Whoever waits for it takes a selector that can't be parsed for one that isn't there yet: the blank page knows better. */
async function assertSelector(page: Page, selector: string): Promise<void> {
  const problem = await page.evaluate((text) => {
    try {
      document.querySelector(text);
      return null;
    } catch (error) {
      return (error as Error).message;
    }
  }, selector);
  if (problem !== null) throw new TabreelError('start_selector_invalid', `start.selector is not a CSS selector: ${selector}`, { cause: new Error(problem) });
}

/** 4xx that say nothing of the page: the request took too long, came too early, or was one of too many. */
const passing: ReadonlySet<number> = new Set([408, 425, 429]);

async function navigate(page: Page, spec: RecordingSpec, proxy: Pick<OutboundProxy, 'failures'>, signal: AbortSignal): Promise<void> {
  const waitUntil = spec.start.when === 'load' ? 'load' : 'domcontentloaded';
  const deadline = performance.now() + spec.start.timeout * 1000;
  // puppeteer's goto takes a signal and does not heed it
  const go = () => abortable(page.goto(spec.url, { waitUntil, timeout: Math.max(1, deadline - performance.now()) }), signal);
  let response: HTTPResponse | null;
  try {
    // a document whose process dies before it is shown is told of as a download is: that would be one again
    response = await go().catch((error: unknown) => {
      signal.throwIfAborted();
      if (netError(error) !== 'ERR_ABORTED') throw error;
      return go();
    });
  } catch (error) {
    signal.throwIfAborted();
    throw navigationError(error, spec, proxy);
  }
  if (response === null) return; // a fragment of the same document
  const dialCode = response.headers()[PROXY_ERROR_HEADER];
  if (dialCode !== undefined) throw dialError(response.url(), dialCode, undefined);
  const status = response.status();
  if (status < 400) return;
  const code = status >= 500 || passing.has(status) ? 'target_http_unavailable' : 'target_http_status';
  throw new TabreelError(code, `${withoutQuery(response.url())} answered ${status} ${response.statusText()}`.trim());
}

const netError = (error: unknown): string => /net::(ERR_[A-Z0-9_]+)/.exec(error instanceof Error ? error.message : '')?.[1] ?? '';

function navigationError(error: unknown, spec: RecordingSpec, proxy: Pick<OutboundProxy, 'failures'>): TabreelError {
  const text = error instanceof Error ? error.message : String(error);
  const shown = withoutQuery(spec.url);
  const code = netError(error);
  if (error instanceof Error && error.name === 'TimeoutError') {
    const hint = spec.start.when === 'load' ? '; a page that never finishes loading can be started by `start.when` selector or signal' : '';
    return new TabreelError('target_timeout', `${shown} did not load within ${spec.start.timeout} s${hint}`, { cause: error });
  }
  if (/^ERR_(CERT|SSL)/.test(code)) return new TabreelError('target_tls', `${shown}: ${code}`, { cause: error });
  if (code === 'ERR_ABORTED') {
    return new TabreelError('target_not_a_page', `${shown} answered with a download or with nothing to show`, { cause: error });
  }
  const dialCode = proxy.failures.get(failureKey(spec.url));
  if (dialCode !== undefined) return dialError(spec.url, dialCode, error);
  if (/crash/i.test(text)) return new TabreelError('page_crashed', 'The page crashed while it loaded', { cause: error });
  return new TabreelError('target_unreachable', `${shown}: ${code || text}`, { cause: error });
}

/** @param code why the proxy's dial failed, a system error's code. */
function dialError(url: string, code: string, cause: unknown): TabreelError {
  const { host } = new URL(url);
  if (code === 'DENIED') {
    return new TabreelError('target_blocked', `${host} is not open to recordings: it has an address that is not public, or is a port of this service. OUTBOUND_ALLOW of the workers opens addresses and hosts`, { cause });
  }
  if (code === 'EAI_AGAIN') return new TabreelError('target_dns_temporary', `${host} can not be looked up just now: its name server does not answer`, { cause });
  if (code === 'ENOTFOUND') return new TabreelError('target_dns', `${host} does not resolve`, { cause });
  return new TabreelError('target_unreachable', `${host} can not be reached: ${code}`, { cause });
}

/** Hears the words by which a page says when it wants to be recorded. */
async function listenForSignals(page: Page): Promise<{ started: Promise<void>; ended: Promise<void> }> {
  const session = await page.createCDPSession();
  const heard = (word: string) =>
    new Promise<void>((resolve) => {
      session.on('Runtime.consoleAPICalled', ({ args }) => {
        if (args[0]?.value === word) resolve();
      });
    });
  const result = { started: heard('START_RECORDING'), ended: heard('END_RECORDING') };
  await session.send('Runtime.enable');
  return result;
}

/**
 * Chromium lets no script close a tab that none has opened, and says so in its log only. Here the page stays where it is, so that
 * its last pictures can be had.
 * @returns what resolves with the first `window.close()` of the page, in any of its documents from now on
 */
async function listenForClose(page: Page): Promise<{ promise: Promise<void> }> {
  const { promise, resolve } = Promise.withResolvers<void>();
  page.once('close', () => resolve());
  await listenInWorld(page, [CLOSE], () => resolve());
  await page.evaluateOnNewDocument(tellClose, CLOSE);
  return { promise };
}

const CLOSE = 'tabreel-close';

/** Runs in the page's own world before its scripts. Injected as text: it must not refer to anything outside itself. */
function tellClose(name: string): void {
  if (window.parent !== window) return;
  const close = new Proxy(window.close, { apply: () => void document.dispatchEvent(new Event(name)) });
  Object.defineProperty(window, 'close', { value: close, writable: true, configurable: true, enumerable: true });
}

async function within(promise: Promise<void>, milliseconds: number, signal: AbortSignal, error: () => Error): Promise<void> {
  signal.throwIfAborted();
  let timer: NodeJS.Timeout | undefined;
  let abort: () => void = () => undefined;
  try {
    await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(error()), milliseconds);
        abort = () => reject(signal.reason as Error);
        signal.addEventListener('abort', abort);
      }),
    ]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}
