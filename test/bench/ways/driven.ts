/** Ways that a Node process of their own drives: MediaRecorder in the browser, and puppeteer's page.screencast(). */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FoundBrowser } from '../../../worker/browser/find.ts';
import { startProgram } from '../processes.ts';
import { AUDIO_BITRATE, picture, VIDEO_BITRATE, type Way } from '../way.ts';
import { ownFlags } from './x11grab.ts';

/** What a driver is told on its command line, as JSON. */
export type DriverOptions = {
  executable: string;
  flags: string[];
  url: string;
  controllerUrl: string;
  /** Where the recording goes. */
  file: string;
  width: number;
  height: number;
  frameRate: number;
  videoBitrate: number;
  audioBitrate: number;
  /** For MediaRecorder. */
  mimeType: string;
};

const driven = (script: string, extension: string, mimeType: string, lags: boolean, found: FoundBrowser): Way['start'] =>
  async ({ url, controllerUrl, directory, group }) => {
    const file = join(directory, `recording.${extension}`);
    const options: DriverOptions = {
      ...picture,
      executable: found.executable,
      flags: [
        ...ownFlags(join(directory, 'profile')),
        '--headless=new',
        '--remote-debugging-pipe',
        '--auto-select-tab-capture-source-by-title=to be recorded',
        'about:blank',
      ],
      url,
      controllerUrl,
      file,
      videoBitrate: VIDEO_BITRATE,
      audioBitrate: AUDIO_BITRATE,
      mimeType,
    };
    const driver = startProgram(
      group.wrap(process.execPath),
      [fileURLToPath(new URL(`../drivers/${script}`, import.meta.url)), JSON.stringify(options)],
      process.env,
    );
    await driver.line(/^recording$/);
    return {
      group,
      edge: null,
      lags,
      async stop() {
        driver.child.stdin?.write('stop\n');
        await driver.line(/^stopped$/, lags ? 240_000 : 30_000);
        await driver.end();
        return file;
      },
    };
  };

/** puppeteer-stream's way, with getDisplayMedia instead of an extension's tabCapture, and chunks of a second instead of 20 ms. */
export const mediaRecorder = (name: string, extension: string, mimeType: string, found: FoundBrowser): Way => ({
  name,
  what: `Chromium ${found.version}: getDisplayMedia and MediaRecorder (\`${mimeType}\`) on a page of its own, chunks by WebSocket to Node, which writes them`,
  draws: 'chrome',
  start: driven('media-recorder.ts', extension, mimeType, false, found),
});

export const pageScreencast = (name: string, found: FoundBrowser): Way => ({
  name,
  what: `Chromium ${found.version} and puppeteer's \`page.screencast({ path })\` as it is by default: PNGs over the protocol to ffmpeg, VP9, no sound`,
  draws: 'chrome',
  start: driven('page-screencast.ts', 'webm', '', true, found),
});
