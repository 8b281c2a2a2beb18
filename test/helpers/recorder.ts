/** The recorder itself, in this process and without a service around it: what it delivers is kept in memory. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createLog } from '../../shared/log.ts';
import { recordingRequest, defaultVideoBitrate, type CaptureEngineName, type PushSecrets, type PushSpec, type RecordingRequest } from '../../shared/recording.ts';
import { findBrowser } from '../../worker/browser/find.ts';
import { createPageCommands } from '../../worker/commands.ts';
import { createPausing } from '../../worker/pausing.ts';
import type { Continuation, FromRecorder, RecorderSettings } from '../../worker/process-protocol.ts';
import { record } from '../../worker/recorder.ts';
import type { Sink, SinkPart } from '../../worker/sink/sink.ts';

export type RecorderRun = {
  /** What it reported so far, oldest first, with the moment (Date.now()). */
  reports: readonly { at: number; message: FromRecorder }[];
  parts: readonly SinkPart[];
  lines: readonly string[];
  /** The first report of a kind, once there is one. @param skip as many are passed over */
  report<T extends FromRecorder['type']>(type: T, skip?: number): Promise<Extract<FromRecorder, { type: T }>>;
  pause(): void;
  resume(): void;
  stop(): void;
  abandon(): void;
  /** What the sink says of itself from now on; 0 by default. */
  pressure: number;
  /** Resolves with its last report. */
  ended: Promise<Extract<FromRecorder, { type: 'ended' }>>;
  /** All parts as one file, in the order in which they came. */
  save(directory: string): Promise<string>;
};

export type RecorderRunOptions = {
  engine: CaptureEngineName;
  request: Pick<RecordingRequest, 'url'> & Partial<Omit<RecordingRequest, 'push'>>;
  continues?: Partial<Continuation>;
  attempt?: number;
  paused?: boolean;
  settings?: Partial<RecorderSettings>;
  push?: PushSpec[];
  /** In the order of `push`. */
  pushSecrets?: PushSecrets[];
  webrtc?: 'proxied' | 'direct';
};

export async function startRecorder(options: RecorderRunOptions): Promise<RecorderRun> {
  const request = recordingRequest.parse({ width: 640, height: 360, ...options.request, ...(options.push === undefined ? {} : { push: [{ type: 'antmedia' }] }) });
  const spec = { ...request, maxDuration: request.maxDuration ?? 60, videoBitrate: request.videoBitrate ?? defaultVideoBitrate(request), webrtc: options.webrtc ?? ('proxied' as const), push: options.push ?? [] };
  const parts: SinkPart[] = [];
  const reports: { at: number; message: FromRecorder }[] = [];
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  const pausing = createPausing(options.paused ?? false);
  const stop = new AbortController();
  const abandon = new AbortController();

  const segments = () => parts.flatMap(({ header }) => (header.type === 'segment' ? [header] : []));
  const sink: Sink = {
    push: (part) => void parts.push(part),
    progress() {
      const last = segments().at(-1);
      return {
        waitingParts: 0,
        waitingBytes: 0,
        storedSegments: segments().length,
        storedBytes: parts.reduce((sum, { payload }) => sum + payload.length, 0),
        storedUntil: last === undefined ? 0 : last.start + last.duration,
      };
    },
    pressure: () => run.pressure,
    async finish(duration) {
      parts.push({ header: { type: 'end', duration }, payload: new Uint8Array() });
    },
    failed: new Promise(() => undefined),
    async [Symbol.asyncDispose]() {},
  };
  const run: RecorderRun = {
    reports,
    parts,
    lines,
    async report(type, skip = 0) {
      for (;;) {
        const found = reports.filter(({ message }) => message.type === type)[skip];
        if (found !== undefined) return found.message as never;
        await new Promise<void>((resolve) => waiting.add(resolve));
      }
    },
    pause: () => pausing.set(true),
    resume: () => pausing.set(false),
    stop: () => stop.abort(new Error('stopped')),
    abandon: () => abandon.abort(new Error('abandoned')),
    pressure: 0,
    ended: Promise.resolve(null as never),
    async save(directory) {
      const file = join(directory, `${Math.random().toString(36).slice(2)}.mp4`);
      const media = parts.filter(({ header }, i) => header.type === 'segment' || (header.type === 'init' && i === parts.findIndex((part) => part.header.type === 'init')));
      await writeFile(file, Buffer.concat(media.map(({ payload }) => payload)));
      return file;
    },
  };
  const browser = await findBrowser({ chromiumPath: null, engine: options.engine });
  void record({
    job: { recordingId: 'rec_0', spec, mediaUrl: 'ws://127.0.0.1:1/', credential: '', sealed: null } as never,
    attempt: options.attempt ?? 1,
    secrets: { headers: {}, cookies: [], push: options.pushSecrets ?? [] },
    settings: {
      browser,
      sandbox: process.getuid?.() !== 0,
      devShm: true,
      mediaCa: null,
      allowInsecureWs: false,
      soundDelay: {},
      outbound: { allow: ['*'], own: [] },
      logLevel: 'debug',
      ...options.settings,
    } as RecorderSettings,
    continues: { startedAt: null, pausedMs: 0, pausedAt: null, clockOffset: 0, ...options.continues },
    pausing,
    commands: createPageCommands(),
    sink,
    log: createLog('debug', (line) => lines.push(line)),
    report(message) {
      reports.push({ at: Date.now(), message });
      for (const resolve of waiting) resolve();
      waiting.clear();
    },
    stop: stop.signal,
    abandon: abandon.signal,
  });
  run.ended = run.report('ended');
  return run;
}

/** The segments' headers, in order. */
export const segmentsOf = ({ parts }: RecorderRun): Extract<SinkPart['header'], { type: 'segment' }>[] =>
  parts.flatMap(({ header }) => (header.type === 'segment' ? [header] : []));
