/** Runs ffmpeg and ffprobe, and reads what they write. */
import { spawn, spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

let ffmpegFound: boolean | undefined;

/** True where ffmpeg and ffprobe are on the PATH; tests skip where not. */
export function hasFfmpeg(): boolean {
  ffmpegFound ??= ['ffmpeg', 'ffprobe'].every((tool) => spawnSync(tool, ['-version'], { stdio: 'ignore' }).status === 0);
  return ffmpegFound;
}

/** ffmpeg's arguments to decode a file, before those for the output. */
export function decoding(file: string): string[] {
  // copyts: without it each run of ffmpeg would move its own first timestamp, and picture and sound are read by two.
  return ['-hide_banner', '-nostats', '-nostdin', '-threads', '2', '-copyts', '-i', file];
}

/** A process under way. */
export interface Run {
  /** What it writes. */
  readonly stdout: Readable;
  /** What it logs; only whoever iterates at once gets every line. */
  readonly lines: AsyncIterable<string>;
  /** Resolves when the process has ended well; rejects with its last words otherwise. */
  readonly done: Promise<void>;
}

/** Starts ffmpeg or ffprobe. */
export function start(command: string, args: readonly string[]): Run {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const lastWords: string[] = [];
  const lines = createInterface({ input: child.stderr });
  lines.on('line', (line) => {
    lastWords.push(line);
    if (lastWords.length > 10) lastWords.shift();
  });
  const done = new Promise<void>((resolve, reject) => {
    child.once('error', (cause) => reject(new Error(`${command} could not be started.`, { cause })));
    child.once('close', (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`${command} ended with ${code ?? signal}: ${lastWords.join('\n')}`));
    });
  });
  return { stdout: child.stdout, lines, done };
}

/** A stream to its end. */
export async function readBytes(stdout: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stdout as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** A decoded frame as the filters showinfo and ashowinfo log it. */
export interface Timestamp {
  /** Presentation time in s. */
  readonly time: number;
  /** Samples in an audio frame; 0 of a video frame. */
  readonly samples: number;
}

/**
 * Reads the log of showinfo or ashowinfo. The latter does not tell its time base, so that (in s) must be given.
 */
export async function readTimes(lines: AsyncIterable<string>, timeBase = NaN): Promise<Timestamp[]> {
  const times: Timestamp[] = [];
  let base = timeBase;
  for await (const line of lines) {
    const config = /config in time_base: (\d+)\/(\d+)/.exec(line);
    if (config) base = Number(config[1]) / Number(config[2]);
    const frame = / n: *\d+ pts: *(-?\d+) .*?(?:nb_samples: *(\d+)|$)/.exec(line);
    // Not pts_time, which has six digits only.
    if (frame) times.push({ time: Number(frame[1]) * base, samples: Number(frame[2] ?? 0) });
  }
  return times;
}

