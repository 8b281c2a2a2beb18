/**
 * One attempt at a recording, seen from the worker: a process does the work, this relays what it tells to the recording's
 * record, tells it what is wanted, and sees to it that it ends. What becomes of the recording is decided here alone.
 */
import { asTabreelError, TabreelError } from '../shared/errors.ts';
import type { RecordingJob } from '../shared/job.ts';
import type { Log } from '../shared/log.ts';
import { noStats, type CaptureEngineName, type PageSecrets, type RecordingError, type RecordingState, type RecordingStats } from '../shared/recording.ts';
import type { Change, Changed, RecordingRecord, RecordingStore } from '../shared/recording-store.ts';
import type { AttemptMedia } from './media-metrics.ts';
import { persist } from './persist.ts';
import type { FromRecorder, RecorderSettings } from './process-protocol.ts';
import type { RecorderPool, RecorderProcess } from './recorder-pool.ts';
import { insecureWarning } from './sink/media-way.ts';

/** Milliseconds. */
export type AttemptTimes = {
  beat: number;
  /** A process that said nothing for so long isn't vouched for any more, and after so long it is ended. */
  doubted: number;
  silent: number;
  /** To end by itself after `stop`, counted from the last media that was stored; all together; after `abandon`. */
  stop: number;
  stopAtMost: number;
  /** Instead of both where media waits, for an ingest that is away or slow: from the last that was stored. */
  deliver: number;
  abandon: number;
  /** To exit after its last message. */
  exit: number;
};

export const attemptTimes: AttemptTimes = {
  beat: 1000,
  doubted: 10_000,
  silent: 15_000,
  stop: 100_000,
  stopAtMost: 120_000,
  // longer than the sink tries, so that the recorder itself can say why it is not stored
  deliver: 16 * 60_000,
  abandon: 10_000,
  exit: 5000,
};

export type AttemptOptions = {
  job: RecordingJob;
  attempt: number;
  /** Milliseconds by which the clock of Redis is ahead of this machine's. */
  clockOffset: number;
  secrets: PageSecrets;
  settings: RecorderSettings;
  pool: RecorderPool;
  store: RecordingStore;
  /** Takes what the recording's media sockets count; told when the attempt is over. */
  media: AttemptMedia;
  /** Queues the recording for the finaliser. */
  finish: (id: string) => Promise<unknown>;
  log: Log;
  times?: Partial<AttemptTimes>;
};

export type Attempt = {
  /** Asks at once what is wanted, rather than with the next beat. */
  look(): void;
  /** The worker leaves: what was recorded so far is kept. */
  leave(): void;
  /** Resolves once what became of the recording is written. Never rejects. */
  finished: Promise<void>;
};

const running: readonly RecordingState[] = ['starting', 'recording', 'paused'];
/** Lines and warnings on their way to Redis; beyond that they are dropped rather than kept while Redis is away. */
const MAX_PENDING_LINES = 100;

/** Begins at once; `claim` has made the attempt the newest. */
export function startAttempt(options: AttemptOptions): Attempt {
  const { job, attempt, store, log } = options;
  const id = job.recordingId;
  const times = { ...attemptTimes, ...options.times };

  let recorder: RecorderProcess | null = null;
  let wanted: 'recording' | 'stopped' | 'deleted' | 'nothing' = 'recording';
  let leaving = false;
  let stoppedAt: number | null = null;
  let abandonedAt: number | null = null;
  let heardAt = Date.now();
  let storedAt = Date.now();
  let ackedParts = 0;
  let mediaWaits = false;
  let killedFor: string | null = null;

  let began: { engine: CaptureEngineName; startedAt: number } | null = null;
  let beganIsWritten = false;
  let progress = { stats: noStats, duration: 0, storedSegments: 0 };
  let unwritten = false;
  let ended: Extract<FromRecorder, { type: 'ended' }> | null = null;
  let pendingLines = 0;

  /** What earlier attempts left, which this one continues. */
  let before: LeftBehind = { stats: noStats, startedAt: null, warnings: [] };
  const stored = () => before.stats.bytes > 0 || (ended ?? progress).storedSegments > 0;
  /** Of the whole recording: seconds from its first frame, the gap between attempts included. */
  const wholeDuration = (own: number): number =>
    before.startedAt === null ? own : began === null ? 0 : Math.max(0, began.startedAt - before.startedAt) / 1000 + own;
  const wholeStats = (own: RecordingStats): RecordingStats => ({
    ...own,
    frames: before.stats.frames + own.frames,
    dropped: before.stats.dropped + own.dropped,
    bytes: before.stats.bytes + own.bytes,
  });

  const kill = (why: string) => {
    if (killedFor !== null) return;
    killedFor = why;
    log.warn('recording process is killed', { reason: why });
    recorder?.kill();
  };
  const stop = () => {
    if (stoppedAt !== null) return;
    stoppedAt = storedAt = Date.now();
    recorder?.send({ type: 'stop' });
  };
  const abandon = () => {
    if (abandonedAt !== null) return;
    abandonedAt = Date.now();
    recorder?.send({ type: 'abandon' });
  };

  const obey = ({ outcome, desired }: Changed) => {
    if (outcome === 'missing' || outcome === 'fenced') {
      if (wanted !== 'nothing') log.warn('recording is out of our hands', { outcome });
      wanted = 'nothing';
      abandon();
    } else if (desired === 'deleted') {
      if (wanted !== 'deleted') log.info('recording is deleted');
      wanted = 'deleted';
      abandon();
    } else if (desired === 'stopped') {
      if (wanted !== 'stopped') log.info('recording is to stop');
      wanted = 'stopped';
      stop();
    }
  };

  // with Redis away the client holds commands back: one at a time, so that they don't pile up
  const single = (task: () => Promise<void>) => {
    let busy = false;
    return () => {
      if (busy) return;
      busy = true;
      task()
        .catch((error: unknown) => log.warn('the record can not be written just now', { error }))
        .finally(() => (busy = false));
    };
  };
  const beat = single(async () => {
    if (recorder !== null && Date.now() - heardAt > times.doubted) return;
    const told = unwritten ? { stats: wholeStats(progress.stats), duration: wholeDuration(progress.duration), stored: progress.storedSegments > 0 } : null;
    unwritten = false;
    obey(await store.beat(id, attempt, told));
  });
  const look = single(async () => {
    obey(await store.beat(id, attempt, null));
  });
  const writeBegan = single(async () => {
    if (began === null || beganIsWritten) return;
    const { engine, startedAt } = began;
    const changed = await store.change(id, {
      from: ['starting'],
      to: 'recording',
      attempt,
      engine,
      ...(before.startedAt === null ? { startedAt } : {}),
    });
    beganIsWritten = true;
    obey(changed);
  });

  const tell = (write: Promise<void>) => {
    pendingLines += 1;
    write.catch((error: unknown) => log.warn('a line for watchers is lost', { error })).finally(() => (pendingLines -= 1));
  };

  const hear = (message: FromRecorder) => {
    heardAt = Date.now();
    switch (message.type) {
      case 'recording':
        began = { engine: message.engine, startedAt: message.at };
        log.info('recording', { engine: message.engine });
        writeBegan();
        break;
      case 'progress':
        if (message.storedSegments > progress.storedSegments || message.stats.bytes > progress.stats.bytes) storedAt = heardAt;
        progress = message;
        unwritten = true;
        break;
      case 'warning':
        log.warn('recording warns', { code: message.code, message: message.message });
        if (pendingLines < MAX_PENDING_LINES) tell(store.warn(id, message.code, message.message));
        break;
      case 'media':
        options.media.update(message.counts);
        if (message.counts.ackedParts > ackedParts) storedAt = heardAt;
        ackedParts = message.counts.ackedParts;
        mediaWaits = message.counts.waitingBytes > 0;
        break;
      case 'log':
        if (pendingLines < MAX_PENDING_LINES) tell(store.log(id, message.message));
        break;
      case 'ended':
        ended = message;
        setTimeout(() => recorder?.kill(), times.exit).unref();
        break;
      case 'ready':
      case 'alive':
    }
  };

  const tick = () => {
    const now = Date.now();
    if (recorder !== null && ended === null) {
      if (now - heardAt > times.silent) kill(`it said nothing for ${Math.round((now - heardAt) / 1000)} s`);
      const over = mediaWaits ? now - storedAt > times.deliver : now - storedAt > times.stop || (stoppedAt !== null && now - stoppedAt > times.stopAtMost);
      if (stoppedAt !== null && over) kill('it did not end when it was told to');
      if (abandonedAt !== null && now - abandonedAt > times.abandon) kill('it did not end when it was told to');
    }
    beat();
    writeBegan();
  };

  /** Where an earlier attempt had TLS, this one doesn't go without. */
  const settingsOf = (): RecorderSettings => {
    const hadTls = before.stats.bytes > 0 && !before.warnings.includes(insecureWarning(job.mediaUrl));
    return { ...options.settings, allowInsecureWs: options.settings.allowInsecureWs && !hadTls, mediaFound: before.stats.bytes > 0 };
  };

  const run = async (): Promise<TabreelError | null> => {
    try {
      recorder = await options.pool.take();
      recorder.onMessage(hear);
      heardAt = Date.now();
      const continues = { startedAt: before.startedAt, pausedMs: 0, pausedAt: null, clockOffset: options.clockOffset };
      recorder.send({ type: 'start', job, attempt, secrets: options.secrets, settings: settingsOf(), continues, paused: false });
      // what was wanted while it came up
      if (stoppedAt !== null) recorder.send({ type: 'stop' });
      if (abandonedAt !== null) recorder.send({ type: 'abandon' });
      const exit = await recorder.exited;
      if (ended !== null) return null;
      const how = killedFor ?? (exit.signal === null ? `it exited with ${exit.code}` : `it was ended by ${exit.signal}, as by a machine short of memory`);
      return new TabreelError('worker_lost', `The process of the recording was lost: ${how}`);
    } catch (error) {
      return asTabreelError(error, 'worker_lost');
    }
  };

  const conclude = async (lost: TabreelError | null): Promise<void> => {
    unwritten = false; // what follows is newer
    const last = ended ?? { error: lost?.toRecordingError() ?? null, ...progress };
    const facts = {
      attempt,
      stats: wholeStats(last.stats),
      duration: wholeDuration(last.duration),
      ...(began === null || beganIsWritten ? {} : { engine: began.engine, ...(before.startedAt === null ? { startedAt: began.startedAt } : {}) }),
    };
    const become = (to: RecordingState, error: RecordingError | null): Promise<Changed> => {
      const change: Change = { from: running, to, ...facts, ...(error === null ? {} : { error }) };
      return persist(to, () => store.change(id, change), log);
    };

    if (wanted === 'nothing') return;
    if (wanted === 'deleted') {
      await become('canceled', null);
    } else if (stored()) {
      // a try before may have been taken without an answer: then it is finishing already
      const { outcome, state, desired } = await become('finishing', last.error);
      if (state !== 'finishing' || outcome === 'fenced') return;
      if (desired === 'deleted') await persist('canceled', () => store.change(id, { from: ['finishing'], to: 'canceled', attempt }), log);
      else await persist('the finish job', () => options.finish(id), log);
    } else if (wanted === 'stopped' && last.error === null) {
      await become('canceled', null);
    } else {
      const reason = leaving
        ? new TabreelError('worker_lost', 'The worker was shut down before anything was recorded')
        : new TabreelError('nothing_recorded', 'The recording ended before anything of it was stored');
      await become('failed', last.error ?? reason.toRecordingError());
    }
    log.info('attempt ended', { wanted, error: last.error, storedSegments: last.storedSegments, duration: last.duration });
  };

  const supervise = async (): Promise<void> => {
    const ticking = setInterval(tick, times.beat);
    try {
      if (attempt > 1) before = whatWasLeft(await persist('a read of the record', () => store.get(id), log));
      await conclude(await run());
    } finally {
      clearInterval(ticking);
      options.media.over();
    }
  };

  return {
    look,
    leave() {
      leaving = true;
      tell(store.warn(id, 'worker_left', 'The worker was shut down before the recording was over'));
      stop();
    },
    finished: supervise().catch((error: unknown) => log.error('attempt failed', { error })),
  };
}

type LeftBehind = { stats: RecordingStats; startedAt: number | null; warnings: readonly string[] };

const whatWasLeft = (record: RecordingRecord | null): LeftBehind => ({
  stats: record?.stats ?? noStats,
  startedAt: record?.startedAt ?? null,
  warnings: record?.warnings ?? [],
});
