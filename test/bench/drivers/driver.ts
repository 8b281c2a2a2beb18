/** What the drivers share: the browser, and being told to stop by a line on stdin. */
import { once } from 'node:events';
import { launch, type Browser, type Page } from 'puppeteer-core';
import type { DriverOptions } from '../ways/driven.ts';

/** Opens the browser, lets `record` begin, and calls what it returned when the bench wants the recording's end. */
export async function drive(record: (browser: Browser, page: Page, options: DriverOptions) => Promise<() => Promise<void>>): Promise<void> {
  const options = JSON.parse(process.argv[2] ?? '') as DriverOptions;
  const browser = await launch({
    executablePath: options.executable,
    ignoreDefaultArgs: true,
    args: options.flags,
    pipe: true,
    defaultViewport: null,
  });
  const page = (await browser.pages())[0] ?? (await browser.newPage());
  await page.setViewport({ width: options.width, height: options.height });
  const stop = await record(browser, page, options);
  process.stdout.write('recording\n');
  await once(process.stdin, 'data');
  await stop();
  browser.process()?.kill('SIGKILL');
  process.stdout.write('stopped\n');
  process.exit(0);
}
