/**
 * Pushes what is captured to an Ant Media Server, as a WebRTC publisher, until it is stopped: whatever ends a session, another is
 * begun, unless trying again can't help. See docs/ant-media.md.
 */
import { randomInt } from 'node:crypto';
import { trustedAuthorities, trusting } from '../../shared/authorities.ts';
import { asTabreelError, type TabreelError } from '../../shared/errors.ts';
import type { PushState as RecordedState, PushStats } from '../../shared/recording.ts';
import { withoutQuery, type Log } from '../../shared/log.ts';
import { systemLookup, type Lookup } from '../../shared/outbound/judge.ts';
import type { Judge } from '../../shared/outbound/policy.ts';
import { createSender, type Sender } from './sender.ts';
import { startSession, type PushTarget, type Session, type SessionTimes } from './session.ts';

/** `publishing` when the media connection is there, `live` when the receiver has acknowledged media. `ended` and `failed` are final. */
export type PushState = Exclude<RecordedState, 'waiting'>;

/** Milliseconds. */
export type PushTimes = SessionTimes & {
  /** Pauses before the next session: the first, and the longest. */
  firstRetry: number;
  lastRetry: number;
  /** For how long a stream id may be in use: a server needs some time to see that its publisher, ourselves, is gone. */
  inUse: number;
};

const defaultTimes: PushTimes = {
  handshake: 10_000,
  ping: 3000,
  iceServers: 1000,
  answer: 10_000,
  ice: 5000,
  republishPause: 500,
  republish: 2,
  unheard: 8000,
  stop: 2000,
  firstRetry: 500,
  lastRetry: 8000,
  inUse: 60_000,
};

export type PushOptions = {
  /** PEM of an authority that is trusted beside Node's own and the system's. */
  ca: string | null;
  /** WebCodecs codec string that the encoder was set to, for example `avc1.42001f`. */
  codec: string;
  /** Bits per second of the picture, at most. */
  bitrate: number;
  audio: boolean;
  log: Log;
  /** @param error why it is `reconnecting` or `failed`; null in other states */
  onState(state: PushState, error: TabreelError | null): void;
  /** The next picture should be a key frame: at the beginning of each session, and where the receiver lost one. At most twice a second. */
  onKeyFrameWanted(): void;
  /** What the way bears has changed: pictures that need more wait, and are left out in the end. */
  onBitrate(bitsPerSecond: number): void;
  /** Asked for every address before a packet goes there: the server's, each ICE server's, each candidate's as one of the server. */
  judge: Judge;
  lookup?: Lookup;
  times?: Partial<PushTimes>;
};

export type Push = {
  /** As the capture gives it. Never waits. */
  video: Sender['video'];
  /** One packet of Opus, 48 kHz, two channels. @property timestamp monotonic microseconds of its first sample */
  audio: Sender['audio'];
  stats(): PushStats;
  /** Tells the server, and waits briefly for its word. Good at any time, and twice. */
  stop(): Promise<void>;
};

/**
 * Begins at once.
 * @throws where the URL or the authority's PEM can't be parsed.
 */
export function createAntMediaPush(target: PushTarget, options: PushOptions): Push {
  const times = { ...defaultTimes, ...options.times };
  const log = options.log.with({ push: withoutQuery(target.url) });
  const url = new URL(target.url);
  // as the server's own clients say it: a cluster's balancer sends publishers to where streams come in
  if (!url.searchParams.has('target')) url.searchParams.set('target', 'origin');
  const trust = url.protocol === 'wss:' ? trusting(options.ca) : null;
  const trusted = [...trustedAuthorities(), ...(options.ca === null ? [] : [options.ca])];
  const sender = createSender(options);
  const profileLevelId = profileOf(options.codec);

  let state: PushState = 'connecting';
  let session: Session | null = null;
  let retryTimer: NodeJS.Timeout | undefined;
  let retries = 0;
  let livings = 0;
  let inUseSince: number | null = null;
  let stopped: Promise<void> | null = null;

  const become = (next: PushState, error: TabreelError | null = null) => {
    if (state === 'ended' || state === 'failed') return;
    state = next;
    options.onState(next, error);
  };

  const ended = (error: TabreelError) => {
    session = null;
    if (stopped !== null) return;
    const now = performance.now();
    if (error.code === 'push_stream_in_use') inUseSince ??= now;
    else inUseSince = null;
    const patient = inUseSince === null || now - inUseSince < times.inUse;
    if (!error.kind.retryable || !patient) {
      log.error('push gives up', { error });
      sender.close();
      return become('failed', error);
    }
    const delay = delayOf(retries, times);
    retries += 1;
    log.warn('push lost its session', { error, dialsAgainIn: delay });
    become('reconnecting', error);
    retryTimer = setTimeout(begin, delay);
  };

  const begin = () => {
    session = startSession({
      target: { ...target, url: url.href },
      trust,
      trusted,
      judge: options.judge,
      lookup: options.lookup ?? systemLookup,
      times,
      profileLevelId,
      audio: options.audio,
      sender,
      log,
      events: {
        publishing: () => become('publishing'),
        live() {
          retries = 0;
          livings += 1;
          inUseSince = null;
          log.info('push is live', { reconnects: livings - 1 });
          become('live');
        },
        ended,
      },
    });
  };

  options.onState('connecting', null);
  begin();

  const stop = async (): Promise<void> => {
    clearTimeout(retryTimer);
    await session?.stop().catch((error: unknown) => log.warn('push did not stop well', { error: asTabreelError(error) }));
    sender.close();
    log.info('push is stopped', { ...stats() });
    become('ended');
  };
  const stats = (): PushStats => ({ ...sender.counts(), reconnects: Math.max(0, livings - 1) });

  return {
    video: sender.video,
    audio: sender.audio,
    stats,
    stop: () => (stopped ??= stop()),
  };
}

/** Half of it by chance, so that all who lost one server don't come back at once. */
function delayOf(retries: number, { firstRetry, lastRetry }: PushTimes): number {
  const most = Math.min(lastRetry, firstRetry * 2 ** retries);
  return Math.round(most / 2 + randomInt(Math.ceil(most / 2) + 1));
}

/** Browsers' encoders make Constrained Baseline where they are told Baseline (measured: OpenH264), and receivers ask for that by name. */
function profileOf(codec: string): string {
  const digits = /^avc[13]\.([0-9a-f]{6})$/i.exec(codec)?.[1]?.toLowerCase() ?? '42e01f';
  return digits.startsWith('4200') ? `42e0${digits.slice(4)}` : digits;
}
