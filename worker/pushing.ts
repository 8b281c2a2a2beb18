/**
 * A recording's pushes: what is captured goes to each of them as it comes, the very pictures that are recorded, and the sound
 * as Opus. They begin with the first picture. None of them holds the recording up or ends it.
 */
import { asTabreelError, type TabreelError } from '../shared/errors.ts';
import type { Log } from '../shared/log.ts';
import type { Judge } from '../shared/outbound/policy.ts';
import type { PushSecrets, PushStats, RecordingSpec } from '../shared/recording.ts';
import { avcCodec, type AudioChunk, type VideoPacket } from './capture/capture.ts';
import { monotonicMicros } from './media/clock.ts';
import { createOpusTrack, type OpusTrack } from './media/opus-track.ts';
import type { FromRecorder } from './process-protocol.ts';
import type { Push, PushState } from './push/push.ts';
import { askToRecord } from './push/server-recording.ts';

/** Key frames that pushes ask for come so far apart, in milliseconds, as each begins a segment of the recording. */
const KEY_FRAME_EVERY_MS = 1000;
/** While the capture rests, the last key frame goes out again so often, in milliseconds: a server takes a stream without packets for lost. */
const STILL_EVERY_MS = 2000;
/** A capture that is to rest is given so long, in milliseconds, for a key frame of how it looks then. */
const SETTLE_MS = 500;
/** Sound that has not come so late, in microseconds, is silence; looked at so often, in milliseconds. */
const SOUND_PATIENCE = 600_000;
const PAD_EVERY_MS = 200;
/** Chunks of sound that wait for the encoder to come up. */
const EARLY_CHUNKS = 20;

export type PushingOptions = {
  spec: RecordingSpec;
  /** In the order of the spec's. */
  secrets: readonly PushSecrets[];
  /** Whether this engine hears anything. */
  hears: boolean;
  /** Microseconds by which this engine's sound comes late. */
  soundDelay: number;
  ca: string | null;
  /** As WorkerConfig has it. */
  antMediaUrl: string | null;
  /** Of what callers name, as of what pages do. */
  judge: Judge;
  /** The next picture is to be a key frame. */
  keyFrame(): void;
  /** No push is left: all have failed. @param error the last one's */
  allFailed(error: TabreelError): void;
  report(message: FromRecorder): void;
  log: Log;
};

export type Pushing = {
  video(packet: VideoPacket): void;
  audio(chunk: AudioChunk): void;
  audioReset(): void;
  /** The recording has its first picture: begins. Idempotent. */
  begin(): void;
  /** The capture is to rest. Resolves when what it shows then is a key frame, which can be sent again, or after half a second. */
  settle(): Promise<void>;
  /** The capture rests, and gives pictures again. */
  rest(): void;
  go(): void;
  /** Bits per second that all of them bear. */
  bears(): number;
  stats(): PushStats[];
  /** Tells the servers, and waits briefly for their word. Idempotent. */
  stop(): Promise<void>;
};

export function createPushing(options: PushingOptions): Pushing {
  const { spec, log, report } = options;
  const pushes: Push[] = [];
  const states: PushState[] = [];
  const borne: number[] = spec.push.map(() => Infinity);
  const hasSound = spec.audio && options.hears;
  /** Takes half a second and 40 MB, while the browser starts, of recordings that are pushed alone. */
  const publisher = spec.push.length === 0 ? null : import('./push/push.ts');
  let begun = false;
  let description: Uint8Array | null = null;
  let lastKey: VideoPacket | null = null;
  /** Whether pictures hang on a key frame that was passed over. */
  let orphaned = true;
  let settled: (() => void) | null = null;
  /** Pictures are passed over: the last one that was sent stays. */
  let resting = false;
  let lastTaken = -Infinity;
  let lastSent = -Infinity;
  let opus: OpusTrack | null = null;
  let early: AudioChunk[] = [];
  let stillTimer: NodeJS.Timeout | undefined;
  let padTimer: NodeJS.Timeout | undefined;
  let keyTimer: NodeJS.Timeout | undefined;
  let askedAt = -Infinity;
  let stopped: Promise<void> | null = null;

  const askForKeyFrame = () => {
    if (keyTimer !== undefined || stopped !== null) return;
    keyTimer = setTimeout(
      () => {
        keyTimer = undefined;
        askedAt = performance.now();
        options.keyFrame();
      },
      Math.max(0, askedAt + KEY_FRAME_EVERY_MS - performance.now()),
    );
  };
  const give = (packet: VideoPacket) => {
    const timestamp = Math.max(packet.timestamp, lastSent + 1000);
    lastSent = timestamp;
    for (const push of pushes) push.video({ ...packet, timestamp });
  };

  const become = (index: number, state: PushState, error: TabreelError | null) => {
    states[index] = state;
    if (state !== 'publishing' && state !== 'live') borne[index] = Infinity;
    report({ type: 'push', index, state, error: error?.toRecordingError() ?? null });
    const target = spec.push[index] as RecordingSpec['push'][number];
    const { streamId } = target;
    if (state === 'live' && target.recordType !== undefined) {
      // each session is a stream of its own there, which nothing records yet
      askToRecord(target, { ca: options.ca, server: options.antMediaUrl, judge: options.judge }).catch((problem: Error) => {
        report({ type: 'warning', code: `push_record_${index}`, message: `The server does not record ${streamId}: ${problem.message}` });
      });
    }
    if (state !== 'failed' || error === null) return;
    report({ type: 'warning', code: `push_failed_${index}`, message: `The push of ${streamId} has failed: ${error.message}` });
    if (states.length === spec.push.length && states.every((each) => each === 'failed')) options.allFailed(error);
  };

  const startPushes = async () => {
    const loaded = await publisher;
    if (loaded === null || stopped !== null) return;
    for (const [index, { type, url, streamId, subscriberId }] of spec.push.entries()) {
      const { query = '', ...secrets } = options.secrets[index] ?? {};
      pushes.push(
        loaded.createAntMediaPush(
          { type, url: url + query, streamId, subscriberId, ...secrets },
          {
            ca: options.ca,
            codec: avcCodec(spec.width, spec.height, spec.frameRate),
            bitrate: spec.videoBitrate,
            audio: hasSound,
            log: log.with({ streamId }),
            onState: (state, error) => become(index, state, error),
            onKeyFrameWanted: askForKeyFrame,
            onBitrate(bitsPerSecond) {
              borne[index] = bitsPerSecond;
            },
            judge: options.judge,
          },
        ),
      );
    }
  };

  const startSound = async () => {
    opus = await createOpusTrack(monotonicMicros() - SOUND_PATIENCE, options.soundDelay, spec.audioBitrate, (packet) => {
      for (const push of pushes) push.audio(packet);
    });
    if (stopped !== null) return opus[Symbol.dispose]();
    for (const chunk of early.splice(0)) opus.add(chunk);
    padTimer = setInterval(() => opus?.padTo(monotonicMicros() - SOUND_PATIENCE), PAD_EVERY_MS);
  };

  const stop = async () => {
    clearInterval(stillTimer);
    clearInterval(padTimer);
    clearTimeout(keyTimer);
    await Promise.all(pushes.map((push) => push.stop()));
    opus?.[Symbol.dispose]();
    opus = null;
  };

  return {
    begin() {
      if (begun || stopped !== null) return;
      begun = true;
      startPushes().catch((error: unknown) => spec.push.forEach((_, index) => become(index, 'failed', asTabreelError(error, 'internal'))));
      if (hasSound && publisher !== null) startSound().catch((error: unknown) => log.error('push has no sound', { error }));
    },
    video(packet) {
      if (packet.description !== null) description = packet.description;
      if (resting) return;
      if (packet.key) {
        // of two captures that overlap around a navigation the newer one goes on, as in the muxer
        orphaned = packet.timestamp <= (lastKey?.timestamp ?? -Infinity);
        if (!orphaned) lastKey = { ...packet, description };
      } else if (packet.timestamp <= lastTaken) return;
      if (orphaned) return;
      lastTaken = packet.timestamp;
      if (pushes.length > 0) give(packet.key ? (lastKey as VideoPacket) : packet);
      if (!packet.key || settled === null) return;
      resting = true;
      settled();
    },
    audio(chunk) {
      if (!hasSound || stopped !== null) return;
      if (opus === null) early = [...early.slice(1 - EARLY_CHUNKS), chunk];
      else opus.add(chunk);
    },
    audioReset() {
      early = [];
      opus?.reset();
    },
    async settle() {
      if (pushes.length === 0 || resting || stopped !== null) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      settled = resolve;
      const timer = setTimeout(resolve, SETTLE_MS);
      options.keyFrame();
      await promise;
      clearTimeout(timer);
      settled = null;
    },
    rest() {
      resting = true;
      clearInterval(stillTimer);
      stillTimer = setInterval(() => {
        if (lastKey !== null) give({ ...lastKey, timestamp: monotonicMicros() });
      }, STILL_EVERY_MS);
    },
    go() {
      clearInterval(stillTimer);
      resting = false;
      orphaned = true;
    },
    bears: () => Math.min(...borne, Infinity),
    stats: () => pushes.map((push) => push.stats()),
    stop: () => (stopped ??= stop()),
  };
}
