/** Records a page as puppeteer's documentation shows it. */
import { drive } from './driver.ts';

await drive(async (_browser, page, options) => {
  await page.goto(options.url);
  const recorder = await page.screencast({ path: options.file as `${string}.webm` });
  return () => recorder.stop();
});
