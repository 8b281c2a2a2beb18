/** Trouble with the media URL that lasts is told in the recording, while there is time to mend it. */
import { explain, type MediaCause, type MediaCode } from './media-socket-causes.ts';

export type Warn = (code: string, message: string) => void;

export type MediaTrouble = {
  /** A dial or a connection ended with this cause. @param since when this began to go wrong, as `performance.now` */
  failed(cause: MediaCause, since: number): void;
  /** A socket is open: nothing is told while it may mend the rest. */
  opened(): void;
  /** Media was stored: what comes later is a trouble of its own. */
  over(): void;
  dispose(): void;
};

/**
 * Tells each cause once.
 *
 * @param after milliseconds of trouble before it is told: an edge that is restarted is back sooner
 * @param patience seconds until a sink gives up, for the words
 */
export function watchTrouble(options: { after: number; patience: number; warn: Warn }): MediaTrouble {
  const told = new Set<MediaCode>();
  /** How often each cause came; of those after the first, only what comes again is more than a moment's. */
  const times = new Map<MediaCode, number>();
  let began: number | null = null;
  let timer: NodeJS.Timeout | undefined;

  const tell = (cause: MediaCause) => {
    if (told.has(cause.code) || (told.size > 0 && (times.get(cause.code) ?? 0) < 2)) return;
    told.add(cause.code);
    options.warn(
      cause.code,
      `The media can not be stored just now: ${explain(cause)}. It is kept and dialled again, for ${options.patience} s at most`,
    );
  };

  return {
    failed(cause, since) {
      began ??= since;
      times.set(cause.code, (times.get(cause.code) ?? 0) + 1);
      clearTimeout(timer);
      const rest = began + options.after - performance.now();
      if (rest <= 0) tell(cause);
      else timer = setTimeout(() => tell(cause), rest);
    },
    opened: () => clearTimeout(timer),
    over() {
      began = null;
      clearTimeout(timer);
    },
    dispose: () => clearTimeout(timer),
  };
}
