/** What a worker does before it takes its first recording: it tries one, and measures by how much sound comes late here. */
import { setTimeout as sleep } from 'node:timers/promises';
import { TabreelError, type ErrorCode } from '../shared/errors.ts';
import type { Log } from '../shared/log.ts';
import type { RecordingError } from '../shared/recording.ts';
import type { RecorderSettings } from './process-protocol.ts';
import type { RecorderPool } from './recorder-pool.ts';
import { remedyOf } from './self-test.ts';

/** One that takes longer is given up, in milliseconds: the test with its own patience, and the calibration. */
const AT_MOST_MS = 100_000;
/** Between two tries of a self-test: the first, doubled with each, and the longest, in milliseconds. */
const RETRY_MS = 1000;
const RETRY_AT_MOST_MS = 60_000;

export type SoundDelay = RecorderSettings['soundDelay'];

/** How the machine stands: whether recordings are taken, and if not, why. */
export type SelfTestState = { passed: boolean; error: Pick<RecordingError, 'code' | 'message'> | null };

export type PrepareOptions = {
  pool: RecorderPool;
  settings: RecorderSettings;
  selfTest: boolean;
  /** Instead of a process of the pool: measures alone. */
  measure: ((pool: RecorderPool, settings: RecorderSettings) => Promise<SoundDelay>) | null;
  log: Log;
  /** Ends the tries. */
  signal: AbortSignal;
};

export type Preparation = {
  state(): SelfTestState;
  /** Resolves after the first try, whatever it came to. */
  tried: Promise<void>;
  /** Resolves once a try was good, with what it measured; never where it was aborted before. */
  done: Promise<SoundDelay>;
};

/** Begins at once, and tries until it works. Without a self-test the first try is good, whatever was measured. */
export function prepare(options: PrepareOptions): Preparation {
  const { selfTest, log, signal } = options;
  let state: SelfTestState = { passed: false, error: null };
  const tried = Promise.withResolvers<void>();
  const done = Promise.withResolvers<SoundDelay>();

  const tryOnce = async (): Promise<SoundDelay> => {
    const began = performance.now();
    try {
      const soundDelay = options.measure === null ? await inProcess(options) : await options.measure(options.pool, options.settings);
      log.info('sound is calibrated', { soundDelay, seconds: Math.round((performance.now() - began) / 10) / 100 });
      return soundDelay;
    } catch (error) {
      // a failed test is for the next try
      if (selfTest && options.measure === null) throw error;
      log.warn('sound is not calibrated', { error });
      return {};
    }
  };
  const run = async () => {
    for (let wait = RETRY_MS; !signal.aborted; wait = Math.min(2 * wait, RETRY_AT_MOST_MS)) {
      try {
        const soundDelay = await tryOnce();
        state = { passed: true, error: null };
        done.resolve(soundDelay);
        return;
      } catch (error) {
        const code: ErrorCode = error instanceof TabreelError ? error.code : 'self_test_failed';
        const { message } = error as Error;
        state = { passed: false, error: { code, message } };
        if (!signal.aborted) log.error('self-test failed: no recordings are taken', { code, detail: message, remedy: remedyOf(code), again: wait / 1000 });
      } finally {
        tried.resolve();
      }
      await sleep(wait, undefined, { signal }).catch(() => undefined);
    }
  };
  void run();
  return { state: () => state, tried: tried.promise, done: done.promise };
}

/** @throws {TabreelError} where the self-test failed, or its process was lost; {Error} where that was while it measured alone */
async function inProcess({ pool, settings, selfTest, log, signal }: PrepareOptions): Promise<SoundDelay> {
  const recorder = await pool.take();
  const answer = Promise.withResolvers<SoundDelay>();
  answer.promise.catch(() => undefined);
  let passed = false;
  recorder.onMessage((message) => {
    if (message.type === 'self-tested') {
      if (message.error !== null) answer.reject(new TabreelError(message.error.code as ErrorCode, message.error.message));
      else {
        passed = true;
        log.info('self-test passed', message.result);
      }
    } else if (message.type === 'calibrated') answer.resolve(message.soundDelay);
  });
  recorder.send({ type: 'calibrate', settings, selfTest });
  const over = new AbortController();
  const lost = recorder.exited.then(() => {
    // a machine that passed needn't be measured
    if (passed) return {};
    throw new TabreelError('worker_lost', 'Its process ended');
  });
  lost.catch(() => undefined);
  const late = sleep(AT_MOST_MS, undefined, { signal: AbortSignal.any([over.signal, signal]) }).then(
    () => Promise.reject(new TabreelError('self_test_failed', `It took more than ${AT_MOST_MS / 1000} s`)),
    () => Promise.reject(new TabreelError('self_test_failed', 'The worker leaves')),
  );
  late.catch(() => undefined);
  try {
    return await Promise.race([answer.promise, lost, late]);
  } finally {
    over.abort();
    recorder.kill();
  }
}
