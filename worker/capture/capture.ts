/** Taking pictures and sound from a page: one interface, three engines. */
import type { Browser, Page } from 'puppeteer-core';
import type { CaptureEngineName, RecordingSpec } from '../../shared/recording.ts';
import type { Log } from '../../shared/log.ts';

/** One encoded picture, H.264 with length-prefixed NAL units. */
export type VideoPacket = {
  /** Microseconds on the machine's monotonic clock: when the page's frame was made. */
  timestamp: number;
  key: boolean;
  data: Uint8Array;
  /** AVCDecoderConfigurationRecord (ISO 14496-15), where it is new; comes with the first key frame at the latest. */
  description: Uint8Array | null;
};

/** A stretch of PCM sound, two channels. */
export type AudioChunk = {
  /** Monotonic microseconds of its first sample. */
  timestamp: number;
  /** Samples a second, and samples of each channel. */
  rate: number;
  frames: number;
  /** Interleaved, 16 bits; null for silence. */
  samples: Int16Array | null;
};

export type CaptureEvents = {
  video(packet: VideoPacket): void;
  audio(chunk: AudioChunk): void;
  /** Another document plays now. */
  audioReset(): void;
  /** The capture ended by itself and can't go on. */
  failed(error: Error): void;
  /** The page has been moving for a while: time to stir it (stir.ts). */
  moving?(): void;
  /** While calibrating: the page's top left corner turned white; monotonic microseconds. */
  flash?(timestamp: number): void;
};

export type CaptureSettings = Pick<RecordingSpec, 'width' | 'height' | 'frameRate' | 'videoBitrate' | 'audio'> & {
  /** Seconds between key frames, which is a segment's length; the first segment is shorter, so that it is stored sooner. */
  keyFrameSeconds: number;
  firstKeyFrameSeconds: number;
  /** URL of a page of ours, served by the recording's proxy, from which a tab is captured. */
  controllerUrl: string;
  /** Title by which the browser finds the tab to capture. */
  captureTitle: string;
  /** Tell when the top left corner turns white, instead of encoding. */
  calibrate: boolean;
};

export type CaptureCounts = {
  /** Frames that the browser gave, pictures encoded, of these repeats of a still page, frames dropped by a full queue. */
  frames: number;
  encoded: number;
  repeated: number;
  dropped: number;
};

/** @property dark whether the picture is black all over; null where that isn't known */
export type CapturePulse = CaptureCounts & { dark: boolean | null };

/** Disposing of it asks the browser nothing: that is killed next. */
export type Capture = Disposable & {
  /** Begins to deliver, at first and after a rest, with a key frame. */
  begin(): Promise<void>;
  /**
   * Leaves off until `begin`, and lets the browser do without what only the capture needs. Resolves when all that is from
   * before has been delivered, and nothing else comes. Good before the first `begin` too.
   * @param at monotonic microseconds: what is from then on isn't wanted.
   */
  rest(at: number): Promise<void>;
  /**
   * Other terms from now on, where what is delivered can't be sent as fast.
   * @param bitrate bits per second. @param frameRate frames per second at most, up to the setting.
   */
  setRate(bitrate: number, frameRate: number): Promise<void>;
  /** The next picture is to be a key frame; a still page's comes within a tenth of a second. Does nothing at rest. */
  keyFrame(): Promise<void>;
  /** Asks the capture how it does, and keeps its queues open. Rejects where it doesn't answer. */
  pulse(): Promise<CapturePulse>;
  /** JPEG of what is seen now; null where nothing was yet. */
  snapshot(): Promise<Uint8Array | null>;
  /** Delivers what is left, a last picture included; resolves with the last counts when all has been delivered. */
  stop(): Promise<CaptureCounts>;
};

/** A blank target page, ready to be sent to its URL. `attach` is called when the page is to be captured. */
export type CaptureTarget = {
  page: Page;
  attach(events: CaptureEvents): Promise<Capture>;
};

export type CaptureEngine = {
  name: CaptureEngineName;
  /** What the caller should know of this engine's sound; null where it hears everything. */
  deafTo: string | null;
  open(browser: Browser, settings: CaptureSettings, log: Log): Promise<CaptureTarget>;
};

/**
 * Constrained Baseline at the lowest level (H.264, table A-1) that allows this many macroblocks a frame, a second and a side.
 * @returns WebCodecs codec string, for example `avc1.42001f`.
 */
export function avcCodec(width: number, height: number, frameRate: number): string {
  const columns = Math.ceil(width / 16);
  const rows = Math.ceil(height / 16);
  const blocks = columns * rows;
  const levels: readonly [level: number, frame: number, second: number][] = [
    [30, 1620, 40_500],
    [31, 3600, 108_000],
    [32, 5120, 216_000],
    [40, 8192, 245_760],
    [42, 8704, 522_240],
    [50, 22_080, 589_824],
    [51, 36_864, 983_040],
    [52, 36_864, 2_073_600],
  ];
  const fit = levels.find(
    ([, frame, second]) => blocks <= frame && blocks * frameRate <= second && Math.max(columns, rows) ** 2 <= frame * 8,
  );
  return `avc1.4200${(fit?.[0] ?? 52).toString(16).padStart(2, '0')}`;
}
