/**
 * By how much an engine's sound comes late against its picture, on this machine: measured on a page of ours that flashes and
 * beeps at the same moments. What is left after both were mapped to one clock is constant for an engine and a machine.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../shared/log.ts';
import type { CaptureEngineName } from '../shared/recording.ts';
import { launchBrowser } from './browser/launch.ts';
import type { CaptureEvents } from './capture/capture.ts';
import { engineFor } from './engines.ts';
import { startProxy } from './outbound/proxy.ts';
import type { RecorderSettings } from './process-protocol.ts';

/** Flashes that are waited for besides the first, and how long, in milliseconds. They are a frame apart at most, which five even out to some ms. */
const FLASHES = 5;
const PATIENCE_MS = 10_000;
/** Amplitude of 16 bits at which a beep has begun. */
const BEEP_LEVEL = 3000;

/**
 * Half a second apart, by an even and an odd number of frames in turn, as a capture may take every second one; silent and still where its address has no `#play`, as it serves as the controller page too.
 */
const calibrationPage = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Calibration</title><link rel="icon" href="data:,">
<style>body{margin:0;background:#000}div{width:64px;height:64px}</style><div id="corner"></div>
<script>
if (location.hash === '#play') {
  const context = new AudioContext();
  const corner = document.getElementById('corner');
  let next = null;
  let before = null;
  let frame = null;
  let flashes = 0;
  const schedule = (moment) => {
    const { contextTime, performanceTime } = context.getOutputTimestamp();
    const tone = context.createOscillator();
    tone.frequency.value = 1000;
    tone.connect(context.destination);
    const at = contextTime + (moment - performanceTime) / 1000;
    tone.start(at);
    tone.stop(at + 0.05);
  };
  // beeps are for the moments at which frames will be drawn, so that the page itself is in step
  const plan = (now, wait) => schedule(next = now + frame * (Math.round(wait / frame) + (flashes++ % 2)));
  const draw = (now) => {
    if (before !== null) frame = frame === null ? now - before : frame + (now - before - frame) * 0.1;
    before = now;
    if (next === null) {
      if (frame !== null && context.state === 'running' && context.getOutputTimestamp().contextTime > 0.2) plan(now, 500);
    } else if (now >= next - frame / 2) {
      corner.style.background = '#fff';
      if (now >= next + 150) {
        corner.style.background = '';
        plan(now, 350);
      }
    }
    requestAnimationFrame(draw);
  };
  requestAnimationFrame(draw);
}
</script>`;

/** @returns milliseconds; negative where the sound comes early. @throws {Error} where too few flashes or beeps were seen. */
export async function measureSoundDelay(name: CaptureEngineName, { browser, sandbox, devShm }: RecorderSettings, log: Log): Promise<number> {
  const { engine, paced } = engineFor(name);
  const size = { width: 320, height: 240, frameRate: 30 };
  const captureTitle = `tabreel-${randomBytes(8).toString('hex')}`;
  await using proxy = await startProxy({ log, controllerPage: calibrationPage });
  await using launched = await launchBrowser(
    { ...browser, ...size, sandbox, devShm, proxyPort: proxy.port, captureTitle, paced, webrtc: 'proxied' },
    AbortSignal.timeout(30_000),
  );
  const target = await engine.open(
    launched.browser,
    {
      ...size,
      videoBitrate: 200_000,
      audio: true,
      keyFrameSeconds: 2,
      firstKeyFrameSeconds: 1,
      controllerUrl: proxy.controllerUrl,
      captureTitle,
      calibrate: true,
    },
    log,
  );

  const flashes: number[] = [];
  const beeps: number[] = [];
  const seen = Promise.withResolvers<void>();
  seen.promise.catch(() => undefined);
  // whatever waits for a page that is gone would wait for a minute
  target.page.on('error', (error) => {
    seen.reject(error);
    void launched[Symbol.asyncDispose]();
  });
  const events: CaptureEvents = {
    video: () => undefined,
    audio(chunk) {
      const onset = chunk.samples?.findIndex((sample) => Math.abs(sample) > BEEP_LEVEL) ?? -1;
      if (onset === -1) return;
      const at = chunk.timestamp + ((onset >> 1) * 1e6) / chunk.rate;
      if (at - (beeps.at(-1) ?? -Infinity) > 200_000) beeps.push(at);
    },
    audioReset: () => undefined,
    failed: seen.reject,
    flash(timestamp) {
      flashes.push(timestamp);
      if (flashes.length > FLASHES) seen.resolve();
    },
  };
  const before = name === 'tab' ? await target.attach(events) : null;
  await target.page.goto(`${proxy.controllerUrl}#play`);
  using _capture = before ?? (await target.attach(events));
  await Promise.race([seen.promise, launched.ended, sleep(PATIENCE_MS, undefined, { ref: false })]);

  const delays = flashes.flatMap((flash) => {
    const near = beeps.find((beep) => Math.abs(beep - flash) < 240_000);
    return near === undefined ? [] : [(near - flash) / 1000];
  });
  if (delays.length < 3) throw new Error(`only ${delays.length} of ${flashes.length} flashes had a beep beside them`);
  // the first may be from before the capture ran evenly; the rest differ by the frame that the flash fell on
  return delays.slice(1).reduce((sum, delay) => sum + delay, 0) / (delays.length - 1);
}
