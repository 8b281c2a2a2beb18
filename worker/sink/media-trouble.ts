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
 * @param options.after milliseconds of trouble before it is told: an edge that is restarted is back sooner
 * @param options.patience milliseconds until the sink gives up, null while it won't, for the words
 */
export function watchTrouble(options: { after: number; patience: () => number | null; warn: Warn }): MediaTrouble {
  const told = new Set<MediaCode>();
  /** How often each cause came; of those after the first, only what comes again is more than a moment's. */
  const times = new Map<MediaCode, number>();
  let began: number | null = null;
  let timer: NodeJS.Timeout | undefined;

  const tell = (cause: MediaCause) => {
    if (told.has(cause.code) || (told.size > 0 && (times.get(cause.code) ?? 0) < 2)) return;
    told.add(cause.code);
    const patience = options.patience();
    const most = patience === null ? 'for as long as there is room for it' : `for ${patience / 1000} s at most`;
    options.warn(cause.code, `The media can not be stored just now: ${explain(cause)}. It is kept and dialled again, ${most}`);
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
