/** What the worker and the child process of one recording tell each other, over Node's IPC channel. */
import type { RecordingJob } from '../shared/job.ts';
import type { LogLevel } from '../shared/log.ts';
import type { FoundBrowser } from './browser/find.ts';
import type { MediaSocketCounts } from './sink/media-counts.ts';
import type { MediaSocketLimits } from './sink/media-socket.ts';
import type { CaptureEngineName, PageSecrets, RecordingError, RecordingStats } from '../shared/recording.ts';

/** The part of the worker's settings that one recording needs; the child reads no environment. */
export type RecorderSettings = {
  /** Found once by the worker: a recording needn't look again. */
  browser: FoundBrowser;
  sandbox: boolean;
  /** PEM of an authority that is trusted for the media URL beside the system's. */
  mediaCa: string | null;
  /** The media URL may be dialled without TLS where nobody speaks it. */
  allowInsecureWs: boolean;
  /** Other bounds and times of the media socket than its own. */
  mediaLimits?: Partial<MediaSocketLimits>;
  /**
   * Milliseconds by which each engine's sound comes late against its picture on this machine; negative where early.
   * Taken off every recording. Engines that weren't measured are missing.
   */
  soundDelay: Partial<Record<CaptureEngineName, number>>;
  logLevel: LogLevel;
};

export type ToRecorder =
  | { type: 'start'; job: RecordingJob; attempt: number; secrets: PageSecrets; settings: RecorderSettings }
  /** Instead of `start`: measure by how much the engine's sound comes late on this machine. */
  | { type: 'calibrate'; settings: RecorderSettings }
  /** End the capture, send what is there, and finish; idempotent. */
  | { type: 'stop' }
  /** The recording isn't wanted any more, or belongs to another attempt: end without sending what is left. */
  | { type: 'abandon' };

export type FromRecorder =
  /** The child has loaded its code and waits for `start`. */
  | { type: 'ready' }
  /** Once a second from `start` on: the child's loop turns. */
  | { type: 'alive' }
  /** The first frame was captured. @property startedAt milliseconds since the epoch. */
  | { type: 'recording'; engine: CaptureEngineName; startedAt: number }
  /**
   * About once a second from then on.
   * @property duration seconds since the first frame. @property storedSegments as in `ended`.
   */
  | { type: 'progress'; stats: RecordingStats; duration: number; storedSegments: number }
  | { type: 'warning'; code: string; message: string }
  /** The whole of what the sink has counted in this attempt; at most once a second, where it changed, and at the end. */
  | { type: 'media'; counts: MediaSocketCounts }
  /** A line for those who watch. */
  | { type: 'log'; message: string }
  /** The answer to `calibrate`; empty where it could not be measured. */
  | { type: 'calibrated'; soundDelay: RecorderSettings['soundDelay'] }
  /** The last message. @property storedSegments segments that the ingest acknowledged in this attempt. */
  | { type: 'ended'; error: RecordingError | null; stats: RecordingStats; duration: number; storedSegments: number };
