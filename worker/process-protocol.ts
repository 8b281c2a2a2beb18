/** What the worker and the child process of one recording tell each other, over Node's IPC channel. */
import type { Command, CommandReply } from '../shared/commands.ts';
import type { RecordingJob } from '../shared/job.ts';
import type { LogLevel } from '../shared/log.ts';
import type { DenialClass, OutboundRules } from '../shared/outbound/policy.ts';
import type { FoundBrowser } from './browser/find.ts';
import type { SpoolPlace } from './sink/backlog.ts';
import type { MediaSocketCounts } from './sink/media-counts.ts';
import type { MediaSocketLimits } from './sink/media-socket.ts';
import type { SelfTestResult } from './self-test.ts';
import type { CaptureEngineName, JobSecrets, PushState, RecordingError, RecordingStats } from '../shared/recording.ts';

/** The part of the worker's settings that one recording needs; the child reads no environment. */
export type RecorderSettings = {
  /** Found once by the worker: a recording needn't look again. */
  browser: FoundBrowser;
  sandbox: boolean;
  /** As WorkerConfig has it. */
  devShm: boolean;
  /** PEM of an authority that is trusted for the media URL beside the system's. */
  mediaCa: string | null;
  /** The media URL may be dialled without TLS where nobody speaks it. */
  allowInsecureWs: boolean;
  /** Where media waits that is too much for the memory; null for nowhere. */
  spool: SpoolPlace | null;
  /** An earlier attempt has stored media at the job's URL. */
  mediaFound: boolean;
  /** Other bounds and times of the media socket than its own. */
  mediaLimits?: Partial<MediaSocketLimits>;
  /**
   * Milliseconds by which each engine's sound comes late against its picture on this machine; negative where early.
   * Taken off every recording. Engines that weren't measured are missing.
   */
  soundDelay: Partial<Record<CaptureEngineName, number>>;
  /** Bytes that one recording's browser may have, and that its media may be altogether; null for no limit. */
  browserMemoryLimit?: number | null;
  maxSize?: number | null;
  /** As WorkerConfig has it. */
  antMediaUrl?: string | null;
  /** Which addresses the page may reach. */
  outbound: OutboundRules;
  logLevel: LogLevel;
};

/**
 * Where an attempt continues. Times are milliseconds since the epoch by the clock of Redis, which all attempts share.
 * A moment's place on the recording's timeline is its time less `startedAt` less all that was cut out before it.
 */
export type Continuation = {
  /** First frame of the recording; null before it. */
  startedAt: number | null;
  /** Wall time that pauses have cut out so far, without the one that lasts. */
  pausedMs: number;
  /** When the pause began that lasts; null where there is none. */
  pausedAt: number | null;
  /** What is to be added to this machine's Date.now(). */
  clockOffset: number;
  /** Bytes that earlier attempts have stored. */
  storedBytes?: number;
};

export type ToRecorder =
  /** @property paused the page is to be opened, and captured from `resume` on */
  | {
      type: 'start';
      job: RecordingJob;
      attempt: number;
      secrets: JobSecrets;
      settings: RecorderSettings;
      continues: Continuation;
      paused: boolean;
    }
  /** Cut out what follows, until `resume`; both idempotent, and good before the first picture too. */
  | { type: 'pause' }
  | { type: 'resume' }
  /** Run a script in the page; answered by `command`. */
  | { type: 'command'; id: string; command: Command }
  /**
   * Instead of `start`: measure by how much the engine's sound comes late on this machine. @property selfTest before that, record
   * a page of ours; where that fails nothing is measured
   */
  | { type: 'calibrate'; settings: RecorderSettings; selfTest: boolean }
  /** End the capture, send what is there, and finish; idempotent. */
  | { type: 'stop' }
  /** The recording isn't wanted any more, or belongs to another attempt: end without sending what is left. */
  | { type: 'abandon' };

export type FromRecorder =
  /** The child has loaded its code and waits for `start`. */
  | { type: 'ready' }
  /** Once a second from `start` on: the child's loop turns. */
  | { type: 'alive' }
  /** The attempt's first frame was captured. @property at milliseconds since the epoch by the clock of Redis. */
  | { type: 'recording'; engine: CaptureEngineName; at: number }
  /**
   * The capture rests: when it was cut, or the opened page where there was no picture yet; and it goes on, with a first picture,
   * which an attempt's very first one is told as `recording` right before. One that begins in a pause (paused, or with
   * `continues.pausedAt`) tells its end too. A pause before the recording's first frame cuts nothing out of it.
   */
  | { type: 'paused'; at: number }
  | { type: 'resumed'; at: number }
  /**
   * About once a second from then on.
   * @property duration seconds of the recording's timeline so far, earlier attempts and gaps included, pauses not; in `ended` 0
   * where this attempt captured nothing.
   * @property storedSegments as in `ended`.
   */
  | { type: 'progress'; stats: RecordingStats; duration: number; storedSegments: number }
  | { type: 'warning'; code: string; message: string }
  /** The whole of what the sink has counted in this attempt; at most once a second, where it changed, and at the end. */
  | { type: 'media'; counts: MediaSocketCounts }
  /** Dials of the page that were denied since the last such message; about once a second at most. */
  | { type: 'denied'; dials: Partial<Record<DenialClass, number>> }
  /** A push has another state. @property index in the spec */
  | { type: 'push'; index: number; state: PushState; error: RecordingError | null }
  /** What a command came to; none goes without, but those of a process that dies. */
  | { type: 'command'; id: string; reply: CommandReply }
  /** A line for those who watch. */
  | { type: 'log'; message: string }
  /** How the self-test went, before `calibrated`. */
  | { type: 'self-tested'; result: SelfTestResult; error: null }
  | { type: 'self-tested'; result: null; error: RecordingError }
  /** The answer to `calibrate`; empty where it could not be measured. */
  | { type: 'calibrated'; soundDelay: RecorderSettings['soundDelay'] }
  /**
   * The last message.
   * @property error null where the capture came to its end: told to stop, maxDuration, END_RECORDING.
   * @property storedSegments segments that the ingest acknowledged in this attempt.
   */
  | { type: 'ended'; error: RecordingError | null; stats: RecordingStats; duration: number; storedSegments: number };
