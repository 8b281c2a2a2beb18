/** A page of Chromium that publishes as Ant Media's own SDK does, by the same messages: the test pages' picture and beeps. */
import { readFileSync } from 'node:fs';
import type { Browser } from 'puppeteer-core';
import { startPages } from '../helpers/pages.ts';
import { launchBrowser, openPage } from './receiver.ts';
import type { Message } from './signalling.ts';

const script = readFileSync(new URL('publisher-page.js', import.meta.url), 'utf8');

export interface PagePublisher extends AsyncDisposable {
  /** What the server said so far. */
  messages(): Promise<Message[]>;
  /** Sends any text over the signalling socket. */
  send(text: string): Promise<void>;
  /** The sender's outbound-rtp statistics of the picture. */
  stats(): Promise<Record<string, any>>;
}

export interface Publishers extends AsyncDisposable {
  /** Resolves once the socket is open and `publish` is sent. @param url of the signalling */
  publish(url: string, streamId: string): Promise<PagePublisher>;
}

/** One browser for any number of publishing pages, of 640x360 at 30 frames a second. */
export async function startPublishers(): Promise<Publishers> {
  await using stack = new AsyncDisposableStack();
  const pages = stack.use(await startPages());
  const { browser } = stack.use(await launchBrowser([]));
  const all = stack.move();
  return {
    publish: (url, streamId) => publishFromPage(browser, pages.url('/static.html'), url, streamId),
    [Symbol.asyncDispose]: () => all[Symbol.asyncDispose](),
  };
}

async function publishFromPage(browser: Browser, home: string, url: string, streamId: string): Promise<PagePublisher> {
  const page = await openPage(browser, home);
  await page.evaluate(script);
  await page.evaluate((...words) => (globalThis as any).publish(...words), url, streamId);
  return {
    messages: () => page.evaluate('published.messages') as Promise<Message[]>,
    send: (text) => page.evaluate((each) => (globalThis as any).published.socket.send(each), text),
    stats: () => page.evaluate('published.stats()') as Promise<Record<string, any>>,
    [Symbol.asyncDispose]: () => page.close(),
  };
}
