/**
 * Whether this machine can record at all: a page of ours, with a moving picture and a tone, is recorded for a second as any other
 * is, by the same engine, browser, flags and sandbox, and goes nowhere. What came is looked at.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { asTabreelError, TabreelError, type ErrorCode } from '../shared/errors.ts';
import { newJob } from '../shared/job.ts';
import type { Log } from '../shared/log.ts';
import { newRecordingId } from '../shared/recording.ts';
import { createPageCommands } from './commands.ts';
import { engineFor } from './engines.ts';
import { createPausing } from './pausing.ts';
import type { FromRecorder, RecorderSettings } from './process-protocol.ts';
import { record } from './recorder.ts';
import { createCountingSink } from './sink/counting.ts';

/** Seconds that are recorded. */
const LENGTH = 1;
/** Of 30: machines may be slow, and what stands still has one or two. */
const FRAMES_AT_LEAST = 4;
/** Seconds of sound that have to be heard, and the amplitude of 16 bits from which on it is one. */
const SOUND_AT_LEAST = 0.2;
const LOUD = 1000;
/** A browser that does not come up, in milliseconds. */
const PATIENCE_MS = 45_000;

const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Self-test</title><link rel="icon" href="data:,">
<style>body{margin:0;background:#123}div{width:80px;height:80px;background:#fc6}</style><div id="square"></div>
<script>
const square = document.getElementById('square');
const draw = (now) => {
  square.style.transform = 'translateX(' + (100 + 100 * Math.sin(now / 200)) + 'px)';
  requestAnimationFrame(draw);
};
requestAnimationFrame(draw);
const context = new AudioContext();
const tone = new OscillatorNode(context, { frequency: 440 });
tone.connect(new GainNode(context, { gain: 0.5 })).connect(context.destination);
tone.start();
</script></html>`;

export type SelfTestResult = {
  /** From the start of the browser to its end. */
  seconds: number;
  frames: number;
  /** Seconds of sound. */
  sound: number;
};

/** @throws {TabreelError} `self_test_failed`, or what a recording fails with */
export async function selfTest(settings: RecorderSettings, log: Log): Promise<SelfTestResult> {
  const began = performance.now();
  const server = createServer((_, response) => response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(page));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const abandon = new AbortController();
  const late = setTimeout(() => abandon.abort(new TabreelError('self_test_failed', `It was not over after ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
  try {
    let frames = 0;
    let sound = 0;
    let engine: string | null = null;
    let ended: Extract<FromRecorder, { type: 'ended' }> | null = null;
    const nowhere = createCountingSink();
    const recordingId = newRecordingId();
    await record({
      job: newJob({
        recordingId,
        mediaUrl: 'ws://127.0.0.1/nowhere',
        credential: 'none',
        origin: { source: 'self-test', hops: 0 },
        spec: {
          url: `http://127.0.0.1:${port}/`,
          width: 320, height: 240, frameRate: 30, maxDuration: LENGTH, audio: true, videoBitrate: 500_000, audioBitrate: 64_000,
          start: { when: 'load', timeout: 20 }, webrtc: 'proxied', record: true, push: [],
        },
        sealed: null,
      }),
      attempt: 1,
      secrets: { headers: {}, cookies: [] },
      // of what is in here, its own page is all that it may reach
      settings: { ...settings, maxSize: null, outbound: { allow: [`127.0.0.1:${port}`], own: [] } },
      continues: { startedAt: null, pausedMs: 0, pausedAt: null, clockOffset: 0 },
      pausing: createPausing(),
      commands: createPageCommands(),
      sink: {
        ...nowhere,
        push(part) {
          if (part.header.type === 'segment') frames += part.header.frames;
          nowhere.push(part);
        },
      },
      heard({ samples, frames: count, rate }) {
        if (samples?.some((sample) => Math.abs(sample) > LOUD) === true) sound += count / rate;
      },
      log,
      report(message) {
        if (message.type === 'recording') engine = message.engine;
        if (message.type === 'ended') ended = message;
      },
      stop: new AbortController().signal,
      abandon: abandon.signal,
    });
    abandon.signal.throwIfAborted();
    const { error = null } = (ended as { error?: { code: string; message: string } | null } | null) ?? {};
    if (error !== null) throw new TabreelError(error.code as ErrorCode, error.message);
    if (frames < FRAMES_AT_LEAST) throw new TabreelError('self_test_failed', `Of a page that moves ${frames} pictures came in ${LENGTH} s, where 30 should`);
    const deaf = engine !== null && engineFor(engine).engine.deafTo === 'all sound';
    if (!deaf && sound < SOUND_AT_LEAST) throw new TabreelError('self_test_failed', `Of a tone of ${LENGTH} s ${sound.toFixed(2)} s were heard`);
    return { seconds: round((performance.now() - began) / 1000), frames, sound: round(sound) };
  } catch (error) {
    throw asTabreelError(error, 'self_test_failed');
  } finally {
    clearTimeout(late);
    server.closeAllConnections();
    server.close();
  }
}

const round = (value: number): number => Math.round(value * 100) / 100;

/** What an operator does about a machine that can't record. */
export function remedyOf(code: string): string {
  if (code === 'browser_launch_failed') {
    return 'Look at what the browser says: libraries that are missing, no writable HOME or /tmp, or a sandbox that needs an ordinary user and user namespaces (a seccomp profile that lets them through, or CHROMIUM_SANDBOX=off)';
  }
  if (code === 'browser_crashed' || code === 'page_crashed') return 'Give the worker more memory, and a /dev/shm of 256 MiB or more for each slot';
  if (code === 'no_frames' || code === 'capture_failed' || code === 'capture_unavailable') return 'Try another browser (CHROMIUM_PATH) or CAPTURE_ENGINE; a machine that is far too busy looks like this too';
  if (code.startsWith('target_')) return 'The browser does not reach 127.0.0.1 through the worker: is the loopback interface up?';
  if (code === 'worker_lost') return 'The process of a recording was ended: by the kernel, where memory is short';
  return 'Give the worker more of the processor; SELF_TEST=false goes without this test, where recordings are known to work';
}
