/** Entry of the process that runs one recording: forked by the worker, told all over IPC, reads no environment. */
import { flushCompileCache } from 'node:module';
import { tmpdir } from 'node:os';
import { asTabreelError, TabreelError } from '../shared/errors.ts';
import { createLog, type Log } from '../shared/log.ts';
import { measureSoundDelay } from './calibration.ts';
import { createPageCommands } from './commands.ts';
import { createPausing } from './pausing.ts';
import { killUsersOf } from './kill-tree.ts';
import { wipeProcessDirectory } from './browser/profile.ts';
import { isProcessDirectory } from './leftovers.ts';
import type { FromRecorder, RecorderSettings, ToRecorder } from './process-protocol.ts';
import { record } from './recorder.ts';
import { selfTest } from './self-test.ts';
import { createCountingSink } from './sink/counting.ts';
import { createMediaSocketSink } from './sink/media-socket.ts';

/** Milliseconds that a recorder without its worker has to deliver what it captured. */
const ORPHAN_MS = 10_000;

const report = (message: FromRecorder) => {
  // the parent may be gone, which `disconnect` tells; without a listener a message that it doesn't take would end this process
  if (process.connected) process.send?.(message, () => undefined);
};
const stop = new AbortController();
const abandon = new AbortController();
const pausing = createPausing();
const commands = createPageCommands();
let started = false;

process.on('message', (message: ToRecorder) => {
  if (message.type === 'stop') stop.abort(new TabreelError('internal', 'stopped'));
  else if (message.type === 'abandon') abandon.abort(new TabreelError('internal', 'abandoned'));
  else if (message.type === 'pause') pausing.set(true);
  else if (message.type === 'resume') pausing.set(false);
  else if (message.type === 'command') void commands.run(message.command).then((reply) => report({ type: 'command', id: message.id, reply }));
  else if (!started && message.type === 'start') {
    started = true;
    pausing.set(message.paused);
    void run(message);
  } else if (!started && message.type === 'calibrate') {
    started = true;
    void calibrate(message.settings, message.selfTest);
  }
});
// The worker is gone, and with it whoever tells what is wanted; another attempt will go on. What was captured until then is
// still delivered, for as long as the next attempt doesn't take the ingest over.
process.on('disconnect', () => {
  if (!started) return void leave();
  const reason = new TabreelError('worker_lost', 'The worker is gone');
  stop.abort(reason);
  setTimeout(() => abandon.abort(reason), ORPHAN_MS).unref();
});
// the worker decides what a signal to the whole group means
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
report({ type: 'ready' });
// compiled code is kept for the processes after this one, which then take 0.5 instead of 0.9 s of a core to start, and 30 MB less
flushCompileCache();
// a worker that died while this came up is not told of any more
if (!process.connected) void leave();

const logOf = (settings: RecorderSettings, fields: Record<string, unknown>): Log =>
  createLog(settings.logLevel, (line) => process.stderr.write(`${line}\n`), fields);

async function run({ job, attempt, secrets, settings, continues }: Extract<ToRecorder, { type: 'start' }>): Promise<void> {
  const log = logOf(settings, { recording: job.recordingId, attempt });
  const sink = !job.spec.record ? createCountingSink() : createMediaSocketSink({
    url: job.mediaUrl,
    credential: secrets.credential ?? '',
    attempt,
    ca: settings.mediaCa,
    allowInsecure: settings.allowInsecureWs,
    spool: settings.spool,
    found: settings.mediaFound,
    warn: (code, message) => report({ type: 'warning', code, message }),
    log,
    ...(settings.mediaLimits === undefined ? {} : { limits: settings.mediaLimits }),
  });
  let told = '';
  const tellCounts = () => {
    const counts = sink.counts();
    const text = JSON.stringify(counts);
    if (text !== told) report({ type: 'media', counts });
    told = text;
  };
  const alive = setInterval(() => {
    report({ type: 'alive' });
    tellCounts();
  }, 1000);
  // a sink that fails before anybody listens must not end the process
  sink.failed.catch(() => undefined);
  await record({ job, attempt, secrets, settings, continues, pausing, commands, sink, log, report, stop: stop.signal, abandon: abandon.signal });
  await sink[Symbol.asyncDispose]();
  tellCounts();
  clearInterval(alive);
  await leave();
}

async function calibrate(settings: RecorderSettings, isTest: boolean): Promise<void> {
  const log = logOf(settings, { task: isTest ? 'self-test' : 'calibration' });
  const soundDelay = isTest && !(await test(settings, log)) ? {} : await calibrated(settings, log);
  report({ type: 'calibrated', soundDelay });
  await leave();
}

async function test(settings: RecorderSettings, log: Log): Promise<boolean> {
  try {
    report({ type: 'self-tested', result: await selfTest(settings, log), error: null });
    return true;
  } catch (error) {
    report({ type: 'self-tested', result: null, error: asTabreelError(error).toRecordingError() });
    return false;
  }
}

async function calibrated(settings: RecorderSettings, log: Log): Promise<RecorderSettings['soundDelay']> {
  try {
    const [name] = settings.browser.engines;
    const deaf = name === undefined || name === 'screencast';
    return deaf ? {} : { [name]: await measureSoundDelay(name, settings, log) };
  } catch (error) {
    log.warn('calibration failed', { error });
    return {};
  }
}

async function leave(): Promise<void> {
  if (process.connected) process.disconnect();
  else await removeDirectory();
  process.exit(0);
}

/** The directory that the worker made for this process is the worker's to remove, unless it is gone. Never throws. */
async function removeDirectory(): Promise<void> {
  const directory = tmpdir();
  if (!isProcessDirectory(directory)) return;
  // a browser that is still ending would make its files anew
  await killUsersOf(directory);
  await wipeProcessDirectory(directory).catch(() => undefined);
}
