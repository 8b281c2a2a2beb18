/** One line that is kept up to date on a terminal; elsewhere a line every ten seconds. */
import type { RecordingState, RecordingStats } from '../shared/recording.ts';

export type Progress = {
  state(state: RecordingState): void;
  stats(stats: Record<string, unknown>): void;
  /** Something to say in between. */
  line(text: string): void;
  end(): void;
};

const PLAIN_INTERVAL_MS = 10_000;

/** @param duration seconds that are to be recorded; null where nobody knows. */
export function createProgress(terminal: NodeJS.WriteStream, duration: number | null): Progress {
  /** Milliseconds recorded before the clock was last started, and when that was; gaps between attempts count, pauses don't. */
  let recorded = 0;
  let runsSince: number | null = null;
  let begun = false;
  let current: RecordingState = 'queued';
  let latest: Partial<RecordingStats> = {};
  let printedAt = 0;

  const text = (): string => {
    if (!begun) return `${current} …`;
    const elapsed = (recorded + (runsSince === null ? 0 : Date.now() - runsSince)) / 1000;
    const time = duration === null ? clock(elapsed) : `${clock(Math.min(elapsed, duration))} / ${clock(duration)}`;
    const { fps = 0, bitrate = 0, bytes = 0, dropped = 0 } = latest;
    const rests = current === 'starting' || current === 'paused';
    const rate = rests ? [] : [`${fps.toFixed(1)} fps`, `${(bitrate / 1e6).toFixed(2)} Mb/s`];
    const parts = [current === 'starting' ? 'starting again' : current, time, ...rate, `${(bytes / 1e6).toFixed(1)} MB`];
    return [...parts, ...(dropped > 0 ? [`${dropped} dropped`] : [])].join('  ');
  };
  const print = (force: boolean) => {
    if (terminal.isTTY) terminal.write(`\r\u001b[2K${text()}`);
    else if (force || Date.now() - printedAt >= PLAIN_INTERVAL_MS) {
      printedAt = Date.now();
      terminal.write(`${text()}\n`);
    }
  };
  return {
    state(state) {
      current = state;
      begun ||= state === 'recording';
      const runs = begun && (state === 'recording' || state === 'starting');
      if (runs) runsSince ??= Date.now();
      else if (runsSince !== null) {
        recorded += Date.now() - runsSince;
        runsSince = null;
      }
      print(true);
    },
    stats(stats) {
      latest = stats as Partial<RecordingStats>;
      print(false);
    },
    line(words) {
      terminal.write(terminal.isTTY ? `\r\u001b[2K${words}\n` : `${words}\n`);
      print(false);
    },
    end() {
      if (terminal.isTTY) terminal.write('\r\u001b[2K');
    },
  };
}

const clock = (seconds: number): string => {
  const whole = Math.floor(seconds);
  const two = (value: number) => String(value).padStart(2, '0');
  return whole < 3600 ? `${two(Math.floor(whole / 60))}:${two(whole % 60)}` : `${Math.floor(whole / 3600)}:${two(Math.floor((whole % 3600) / 60))}:${two(whole % 60)}`;
};
