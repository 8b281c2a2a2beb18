/** `tabreel record URL`: brings the service up, records one page through its API, and fetches the file. */
import { createWriteStream } from 'node:fs';
import { mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { ConfigError } from '../shared/config.ts';
import { TabreelError, type ErrorCode } from '../shared/errors.ts';
import { createLog, logLevels } from '../shared/log.ts';
import { isEnd, type Recording, type RecordingState } from '../shared/recording.ts';
import { readEvents } from './events.ts';
import { describeBrowser, startLocalService } from './local-service.ts';
import { createProgress } from './progress.ts';

export type RecordArguments = {
  url: string;
  /** Seconds; null until Ctrl-C. */
  duration: number | null;
  frameRate: number | null;
  width: number | null;
  height: number | null;
  out: string | null;
  json: boolean;
};

const STOP_AGAIN_MS = 500;

/** @returns the exit code; a recording that failed is thrown. */
export async function recordCommand(args: RecordArguments, self: NodeJS.Process): Promise<number> {
  const level = logLevels.find((name) => name === self.env['LOG_LEVEL']) ?? 'error';
  const log = createLog(level, (line) => self.stderr.write(`${line}\n`));
  const say = (line: string) => self.stderr.write(`${line}\n`);
  const out = resolve(args.out ?? defaultName(args.url));
  if (!(await stat(dirname(out)).catch(() => null))?.isDirectory()) throw new ConfigError(`--out: there is no directory ${dirname(out)}`);

  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) self.on(signal, () => stop.abort());

  const directory = await mkdtemp(join(tmpdir(), 'tabreel-'));
  try {
    say('Starting a browser and calibrating its sound …');
    await using service = await startLocalService({
      // nobody else is to reach this one: it needs no keys of the environment's
      environment: { PORT: '0', SLOTS: '1', LOG_LEVEL: level, ...self.env, API_KEYS: '', HOST: '127.0.0.1', PUBLIC_URL: '', STORAGE_URL: pathToFileURL(join(directory, 'storage')).href },
      root: self.getuid?.() === 0,
      memoryLimit: self.constrainedMemory(),
      storageUrl: '',
      patient: false,
      log,
      say,
    });
    say(describeBrowser(service.worker));
    const recording = await record(service.url, args, stop.signal, self.stderr, say);
    await fetchFile(recording, out);
    const { duration, width, height, stats, attempts } = recording;
    const again = attempts > 1 ? `, ${attempts} attempts` : '';
    if (args.json) self.stdout.write(`${JSON.stringify({ ...recording, file: out }, null, 2)}\n`);
    else self.stdout.write(`${out}  ${duration.toFixed(1)} s, ${width}x${height}, ${stats.frames} frames, ${stats.dropped} dropped${again}\n`);
    return 0;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function record(
  base: string,
  args: RecordArguments,
  stop: AbortSignal,
  terminal: NodeJS.WriteStream,
  say: (line: string) => void,
): Promise<Recording> {
  const body = {
    url: args.url,
    ...(args.duration === null ? {} : { maxDuration: args.duration }),
    ...(args.frameRate === null ? {} : { frameRate: args.frameRate }),
    ...(args.width === null ? {} : { width: args.width }),
    ...(args.height === null ? {} : { height: args.height }),
  };
  const created = await call<Recording>(`${base}/v1/recordings`, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
  const self = `${base}/v1/recordings/${created.id}`;
  const over = new AbortController();
  const requestStop = () => void stopSurely(`${self}/stop`, over.signal);
  if (stop.aborted) requestStop();
  stop.addEventListener('abort', requestStop);

  const progress = createProgress(terminal, args.duration);
  for await (const event of readEvents(`${self}/events`)) {
    if (event.type === 'stats') progress.stats(event.data);
    else if (event.type === 'log') progress.line(String(event.data['message'] ?? ''));
    else if (event.type === 'state') {
      const state = event.data['state'] as RecordingState;
      progress.state(state);
      if (isEnd(state)) break;
    }
  }
  over.abort();
  progress.end();
  const recording = await call<Recording>(self);
  if (recording.state === 'canceled') throw new TabreelError('nothing_recorded', 'stopped before anything was recorded');
  if (recording.error && recording.files.length === 0) throw new TabreelError(recording.error.code as ErrorCode, recording.error.message);
  if (recording.error) say(`The recording ended early: ${recording.error.message}`);
  return recording;
}

/** Ctrl-C is not to be lost because Redis was away for a moment. */
async function stopSurely(url: string, over: AbortSignal): Promise<void> {
  while (!over.aborted) {
    try {
      await call(url, { method: 'POST' });
      return;
    } catch (error) {
      if (error instanceof TabreelError && !error.kind.retryable) return;
      await sleep(STOP_AGAIN_MS, undefined, { signal: over }).catch(() => undefined);
    }
  }
}

/** @throws {TabreelError} with the problem's own code and words. */
async function call<T>(url: string, init: RequestInit = {}): Promise<T> {
  const response = await fetch(url, init);
  const body = (await response.json()) as Record<string, unknown>;
  if (response.ok) return body as T;
  const issues = (body['errors'] as { path: string; message: string }[] | undefined)?.map(({ path, message }) => `${path}: ${message}`);
  throw new TabreelError(body['code'] as ErrorCode, issues?.join('; ') ?? String(body['detail']));
}

async function fetchFile(recording: Recording, out: string): Promise<void> {
  const response = await fetch(recording.links.file);
  if (!response.ok || response.body === null) throw new TabreelError('finish_failed', `the file can not be fetched: HTTP ${response.status}`);
  const part = `${out}.part`;
  await pipeline(Readable.fromWeb(response.body as Parameters<typeof Readable.fromWeb>[0]), createWriteStream(part));
  await rename(part, out);
}

/** `example.com-2026-11-22T18-03-05.mp4`. */
function defaultName(url: string): string {
  const host = URL.canParse(url) ? new URL(url).hostname.replaceAll(/[^A-Za-z0-9.-]/g, '') : 'recording';
  return `${host || 'recording'}-${new Date().toISOString().slice(0, 19).replaceAll(':', '-')}.mp4`;
}
