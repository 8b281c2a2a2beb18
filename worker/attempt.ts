/**
 * One attempt at a recording, seen from the worker: a process does the work, this relays what it tells to the recording's
 * record, tells it what is wanted, and sees to it that it ends. What becomes of the recording is decided here: whether it is
 * over, or goes on with another attempt (shared/recovery.ts); where the worker dies, by the reconciler.
 */
import type { CommandStore } from '../shared/commands.ts';
import { asTabreelError, TabreelError } from '../shared/errors.ts';
import type { RecordingJob } from '../shared/job.ts';
import type { Log } from '../shared/log.ts';
import { noStats, type DesiredState, type JobSecrets, type PushSpec, type RecordingError, type RecordingState, type RecordingStats } from '../shared/recording.ts';
import type { Change, Changed, Claim, Progress, PushStanding, RecordingRecord, RecordingStore } from '../shared/recording-store.ts';
import { FUTILE_AT_MOST, helpsToRetry, isTimeOver, retryDelay, retryTimes, type RetryTimes } from '../shared/recovery.ts';
import { createTimeline } from './attempt-timeline.ts';
import { createCommandRelay } from './command-relay.ts';
import type { AttemptMedia } from './media-metrics.ts';
import type { OutboundMetrics } from './outbound-metrics.ts';
import { persist } from './persist.ts';
import type { FromRecorder, RecorderSettings } from './process-protocol.ts';
import type { RecorderPool, RecorderProcess } from './recorder-pool.ts';
import { insecureWarning } from './sink/media-way.ts';

/** Milliseconds. */
export type AttemptTimes = RetryTimes & {
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
  ...retryTimes,
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
  claim: Claim;
  /** Milliseconds by which the clock of Redis is ahead of this machine's. */
  clockOffset: number;
  /** Opens what the caller gave in confidence. */
  secrets: () => Promise<JobSecrets>;
  settings: RecorderSettings;
  pool: RecorderPool;
  store: RecordingStore;
  commands: CommandStore;
  /** Takes what the recording's media sockets count; told when the attempt is over. */
  media: AttemptMedia;
  denials: Pick<OutboundMetrics, 'denied'>;
  /** Queues the recording for the finaliser. */
  finish: (action: 'finish' | 'discard') => Promise<unknown>;
  /** Queues the next attempt, for milliseconds from now. */
  again: (attempt: number, delay: number) => Promise<void>;
  /** Whether a worker that leaves hands its recordings over, rather than ends them. */
  handOver: boolean;
  /** False where somebody sits there and waits: a page that can't be had is not tried again before anything of it is stored. */
  patient: boolean;
  log: Log;
  times?: Partial<AttemptTimes>;
};

export type Attempt = {
  /** Asks at once what is wanted, rather than with the next beat. */
  look(): void;
  /** A script for the page: see shared/commands.ts. */
  command(commandId: string): void;
  /** The worker leaves: the capture ends in good order, and another worker goes on with the recording. */
  leave(): void;
  /** Of its process; null where there is none yet, or none any more. */
  pid(): number | null;
  /** Resolves once what became of the recording is written. Never rejects. */
  finished: Promise<void>;
};

const running: readonly RecordingState[] = ['starting', 'recording', 'paused'];
/** Lines and warnings on their way to Redis; beyond that they are dropped rather than kept while Redis is away. */
const MAX_PENDING_LINES = 100;
/** A page that crashes every few seconds for hours is told of for so many attempts. */
const MAX_ATTEMPT_WARNINGS = 100;

/** Begins at once; `claim` has made the attempt the newest. */
export function startAttempt(options: AttemptOptions): Attempt {
  const { job, store, log, clockOffset } = options;
  const { attempt } = options.claim;
  const id = job.recordingId;
  const times = { ...attemptTimes, ...options.times };
  const now = () => Date.now() + clockOffset;

  const relay = createCommandRelay(id, attempt, options.commands, log);
  let recorder: RecorderProcess | null = null;
  let exited = false;
  /** What is written from then on is the end, or the release, and nothing after it. */
  let concluding = false;
  /** `nothing`: the recording is somebody else's, or nobody's. */
  let wanted: DesiredState | 'nothing' = 'recording';
  let leaving = false;
  let stoppedAt: number | null = null;
  let abandonedAt: number | null = null;
  let heardAt = Date.now();
  let storedAt = Date.now();
  let tickedAt = Date.now();
  let ackedParts = 0;
  let mediaWaits = false;
  /** What was sent may be stored, acknowledged or not. */
  let mediaSent = false;
  let killedFor: string | null = null;
  let didNotEnd = false;

  let progress = { stats: noStats, duration: 0, storedSegments: 0 };
  let unwritten = false;
  let ended: Extract<FromRecorder, { type: 'ended' }> | null = null;
  let pendingLines = 0;

  let before: LeftBehind = whatWasLeft(null);
  let timeline = createTimeline(null);
  let timelineWritten = 0;
  const wholeStats = (own: RecordingStats): RecordingStats => ({
    ...own,
    frames: before.stats.frames + own.frames,
    dropped: before.stats.dropped + own.dropped,
    bytes: before.stats.bytes + own.bytes,
  });
  const toTell = (last: typeof progress): Progress => ({
    stats: wholeStats(last.stats),
    // one that has yet to tell of itself takes nothing back
    duration: Math.max(before.duration, last.duration),
    stored: last.storedSegments > 0,
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

  const obey = ({ outcome, state, desired }: Changed) => {
    if (concluding) return;
    if (outcome === 'missing' || outcome === 'fenced' || (state !== null && !running.includes(state))) {
      if (wanted !== 'nothing') log.warn('recording is out of our hands', { outcome, state });
      wanted = 'nothing';
      abandon();
    } else if (desired !== null && desired !== wanted && wanted !== 'nothing') {
      log.info('something else is wanted', { wanted: desired });
      wanted = desired;
      if (desired === 'deleted' || desired === 'canceled') abandon();
      else if (desired === 'stopped') stop();
      else recorder?.send({ type: desired === 'paused' ? 'pause' : 'resume' });
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
    if (recorder !== null && !exited && Date.now() - heardAt > times.doubted) return;
    const told = unwritten ? toTell(progress) : null;
    unwritten = false;
    obey(await store.beat(id, attempt, told));
  });
  /** What is said while it is being asked may be newer than the answer. */
  let lookAgain = false;
  const asked = single(async () => {
    while (lookAgain) {
      lookAgain = false;
      obey(await store.beat(id, attempt, null));
    }
  });
  const look = () => {
    lookAgain = true;
    asked();
  };
  const writeTimeline = single(async () => {
    while (timelineWritten !== timeline.version() && !concluding) {
      const version = timeline.version();
      obey(await store.change(id, { from: running, to: timeline.state(), attempt, ...timeline.facts() }));
      timelineWritten = version;
    }
  });

  const tell = (write: Promise<void>) => {
    pendingLines += 1;
    write.catch((error: unknown) => log.warn('a line for watchers is lost', { error })).finally(() => (pendingLines -= 1));
  };

  const pushes = new Map<number, PushStanding>();
  /** Of those, what is not written yet: only the newest of each waits while Redis is away. */
  const unwrittenPushes = new Set<number>();
  const writeStandings = async () => {
    for (const index of unwrittenPushes) {
      const standing = pushes.get(index) as PushStanding;
      await store.push(id, index, standing, job.spec.push[index] as PushSpec, attempt);
      if (pushes.get(index) === standing) unwrittenPushes.delete(index);
    }
  };
  const writePushes = single(async () => {
    while (unwrittenPushes.size > 0) await writeStandings();
  });

  const hear = (message: FromRecorder) => {
    heardAt = Date.now();
    switch (message.type) {
      case 'recording':
        timeline.began(message.engine, message.at);
        log.info('recording', { engine: message.engine });
        break;
      case 'paused':
        timeline.paused(message.at);
        log.info('recording rests');
        break;
      case 'resumed':
        timeline.resumed(message.at);
        log.info('recording goes on');
        break;
      case 'progress':
        if (message.storedSegments > progress.storedSegments || message.stats.bytes > progress.stats.bytes) storedAt = heardAt;
        progress = message;
        options.media.stats(message.stats);
        unwritten = true;
        break;
      case 'warning':
        log.warn('recording warns', { code: message.code, message: message.message });
        if (pendingLines < MAX_PENDING_LINES) tell(store.warn(id, message.code, message.message, attempt));
        break;
      case 'media':
        options.media.update(message.counts);
        if (message.counts.ackedParts > ackedParts) storedAt = heardAt;
        ackedParts = message.counts.ackedParts;
        mediaWaits = message.counts.waitingBytes > 0;
        mediaSent ||= message.counts.sentParts > 0;
        break;
      case 'push': {
        const { index, state, error } = message;
        const spec = job.spec.push[index];
        log[state === 'failed' ? 'error' : 'info']('push', { streamId: spec?.streamId, state, ...(error === null ? {} : { error }) });
        options.media.push(index, state);
        if (spec === undefined) break;
        const before = pushes.get(index);
        // one that ended while it was without a session tells why it was
        const why = error ?? (state === 'ended' && before?.state === 'reconnecting' ? before.error : undefined);
        pushes.set(index, { state, ...(why === undefined ? {} : { error: why }) });
        unwrittenPushes.add(index);
        writePushes();
        break;
      }
      case 'denied':
        options.denials.denied(message.dials);
        break;
      case 'command':
        relay.answered(message.id, message.reply);
        break;
      case 'log':
        if (pendingLines < MAX_PENDING_LINES) tell(store.log(id, message.message, attempt));
        break;
      case 'ended':
        ended = message;
        options.media.stats(message.stats);
        setTimeout(() => recorder?.kill(), times.exit).unref();
        break;
      case 'ready':
      case 'alive':
    }
    writeTimeline();
  };

  const tick = () => {
    // a worker that stood still has heard nothing all that time, whatever was said
    const stoodStill = Date.now() - tickedAt - times.beat;
    if (stoodStill > times.doubted / 2) heardAt += stoodStill;
    const now = (tickedAt = Date.now());
    if (recorder !== null && !exited && ended === null) {
      if (now - heardAt > times.silent) kill(`it said nothing for ${Math.round((now - heardAt) / 1000)} s`);
      const over = mediaWaits ? now - storedAt > times.deliver : now - storedAt > times.stop || now - (stoppedAt ?? now) > times.stopAtMost;
      didNotEnd ||= stoppedAt !== null && over;
      if (didNotEnd || (abandonedAt !== null && now - abandonedAt > times.abandon)) kill('it did not end when it was told to');
    }
    beat();
    writeTimeline();
    if (unwrittenPushes.size > 0) writePushes();
  };

  /** Where an earlier attempt had TLS, this one doesn't go without. */
  const settingsOf = (): RecorderSettings => {
    const hadTls = before.stats.bytes > 0 && !before.warnings.includes(insecureWarning(job.mediaUrl));
    return { ...options.settings, allowInsecureWs: options.settings.allowInsecureWs && !hadTls, mediaFound: before.stats.bytes > 0 };
  };
  const isToEnd = () => stoppedAt !== null || abandonedAt !== null;
  const isOver = () => isTimeOver({ job, startedAt: timeline.startedAt() ?? undefined }, now());

  const run = async (): Promise<TabreelError | null> => {
    try {
      if (isToEnd() || isOver()) return null;
      const secrets = await options.secrets();
      recorder = await options.pool.take();
      recorder.onMessage(hear);
      heardAt = Date.now();
      const paused = wanted === 'paused';
      const continues = { ...timeline.continuation(), clockOffset, storedBytes: before.stats.bytes };
      recorder.send({ type: 'start', job, attempt, secrets, settings: settingsOf(), continues, paused });
      // what was wanted while it came up
      if (stoppedAt !== null) recorder.send({ type: 'stop' });
      if (abandonedAt !== null) recorder.send({ type: 'abandon' });
      const exit = await recorder.exited;
      exited = true;
      relay.over();
      if (ended !== null) return null;
      const how = killedFor ?? (exit.signal === null ? `it exited with ${exit.code}` : `it was ended by ${exit.signal}, as by a machine short of memory`);
      return new TabreelError('worker_lost', `The process of the recording was lost: ${how}`);
    } catch (error) {
      return asTabreelError(error, 'worker_lost');
    }
  };

  /** @param whileWanted only while one of these is wanted of it */
  const become = (to: RecordingState, error: RecordingError | null, whileWanted?: readonly DesiredState[]): Promise<Changed> => {
    const { stats, duration } = toTell(ended ?? progress);
    const change: Change = {
      from: running, to, attempt, stats, duration, ...timeline.facts(),
      ...(error === null ? {} : { error }),
      ...(whileWanted === undefined ? {} : { wanted: whileWanted }),
    };
    return persist(to, () => store.change(id, change), log);
  };

  /** Not wanted: nothing of it is kept. The job waits for the state, so that whoever dies in between leaves nothing stored behind. */
  const discard = async (from: RecordingState | null): Promise<void> => {
    if (wanted === 'canceled') await persist('the removal', () => options.finish('discard'), log);
    if (from === null) await become('canceled', null);
    else await persist('canceled', () => store.change(id, { from: [from], to: 'canceled', attempt }), log);
  };

  const warnOfAttempt = async (message: string): Promise<void> => {
    if (attempt > MAX_ATTEMPT_WARNINGS) return;
    await persist('a warning', () => store.warn(id, `attempt-${attempt}`, `Attempt ${attempt} ended: ${message}`, attempt), log);
  };

  /** @returns whether the recording goes on without this attempt, or is somebody else's; else it has to be ended after all */
  const handOn = async (delay: number): Promise<boolean> => {
    // what the record doesn't know yet of this attempt's beginning and pauses
    const known = timelineWritten === timeline.version() ? null : await become('starting', null);
    if (known !== null && known.outcome !== 'changed') return true;
    const { outcome, desired } = await persist('the release', () => store.release(id, attempt, delay, toTell(ended ?? progress)), log);
    if (outcome !== 'changed') return true;
    if (desired !== 'recording' && desired !== 'paused') {
      wanted = desired ?? 'nothing';
      return false;
    }
    await options.again(attempt + 1, delay);
    return true;
  };

  /** The recording ends as it is wanted. @returns false where something else has become wanted meanwhile, which holds */
  const end = async (last: typeof progress & { error: RecordingError | null }, kept: boolean): Promise<boolean> => {
    const { error } = last;
    if (wanted === 'nothing') return true;
    if (wanted === 'deleted' || wanted === 'canceled') {
      await discard(null);
      return true;
    }
    const problem = isForgiven(error, kept) ? null : error;
    if (kept || (timeline.startedAt() !== null && (ended === null || mediaSent))) {
      if (error !== null && problem === null) await warnOfAttempt(`${error.code}: ${error.message}`);
      // a try before may have been taken without an answer: then it is finishing already
      const { outcome, state, desired } = await become('finishing', problem);
      if (state !== 'finishing' || outcome === 'fenced') return true;
      if (desired === 'deleted' || desired === 'canceled') {
        wanted = desired;
        await discard('finishing');
      } else await persist('the finish job', () => options.finish('finish'), log);
      return true;
    }
    if (wanted === 'stopped' && problem === null) {
      await become('canceled', null);
      return true;
    }
    const reason = leaving
      ? new TabreelError('worker_lost', 'The worker was shut down before anything was recorded')
      : new TabreelError('nothing_recorded', 'The recording ended before anything of it was stored');
    const { outcome, state, desired } = await become('failed', problem ?? reason.toRecordingError(), wanted === 'stopped' ? ['stopped'] : ['recording', 'paused']);
    if (outcome !== 'refused' || state === null || !running.includes(state) || desired === null) return true;
    wanted = desired;
    return false;
  };

  const conclude = async (lost: TabreelError | null): Promise<void> => {
    concluding = true;
    unwritten = false; // what follows is newer
    await persist('how the pushes ended', writeStandings, log);
    const last = ended ?? { ...progress, error: lost?.toRecordingError() ?? null };
    const { error } = last;
    // of one that is only pushed nothing is, once it has begun
    const kept = before.kept || last.storedSegments > 0 || (!job.spec.record && timeline.startedAt() !== null);
    const summary = { wanted, error, storedSegments: last.storedSegments, duration: last.duration };

    if (wanted === 'recording' || wanted === 'paused') {
      const futile = last.storedSegments > 0 ? 0 : before.futile;
      const handsOver = leaving && options.handOver;
      const helps = error !== null && helpsToRetry(error, kept) && (options.patient || kept || !error.code.startsWith('target_'));
      const goesOn = error === null ? handsOver : (handsOver || !leaving) && helps && futile < FUTILE_AT_MOST;
      if (goesOn && !isOver()) {
        const delay = handsOver ? 0 : retryDelay(futile, times);
        await warnOfAttempt(error === null ? 'its worker was shut down, another goes on' : `${error.code}: ${error.message}`);
        log.info('attempt ended, the recording goes on', { ...summary, delay, futile });
        if (await handOn(delay)) return;
      }
    }
    for (let settled = false; !settled; ) settled = await end(last, kept);
    log.info('attempt ended', { ...summary, wanted });
  };

  /**
   * Whether the recording is whole but for its last moments: another attempt would have gone on, had it not been stopped, or its
   * time not been over. One that was stopped before its first picture lacks nothing, whatever went wrong. Media that could not
   * be stored is no such thing.
   */
  const isForgiven = (error: RecordingError | null, kept: boolean): boolean => {
    if (error === null) return true;
    if (wanted === 'stopped' && !kept && timeline.startedAt() === null) return true;
    return (wanted === 'stopped' || (kept && isOver())) && helpsToRetry(error, true) && !error.code.startsWith('media_') && !didNotEnd;
  };

  const supervise = async (): Promise<void> => {
    const ticking = setInterval(tick, times.beat);
    try {
      const record = await persist('a read of the record', () => store.get(id), log);
      before = whatWasLeft(record);
      timeline = createTimeline(record);
      if (record !== null) {
        obey({ outcome: 'changed', state: record.state, desired: record.desired });
        // it was paused while nobody ran it, or the worker died before it said so; what came before the claim may still have been recorded
        if (record.desired === 'paused') timeline.pausedBefore(options.claim.now);
      }
      await conclude(await run());
    } finally {
      clearInterval(ticking);
      options.media.over();
    }
  };

  return {
    look,
    command: (commandId) =>
      relay.take(commandId, (message) => {
        if (recorder === null || exited) return false;
        recorder.send(message);
        return true;
      }),
    leave() {
      if (leaving) return;
      leaving = true;
      if (!options.handOver) tell(store.warn(id, 'worker_left', 'The worker was shut down before the recording was over', attempt));
      stop();
    },
    pid: () => (recorder === null || exited ? null : recorder.pid),
    finished: supervise().catch((error: unknown) => log.error('attempt failed', { error })),
  };
}

/** @property kept whether anything may be stored of earlier attempts */
type LeftBehind = { stats: RecordingStats; duration: number; kept: boolean; futile: number; warnings: readonly string[] };

/** What earlier attempts left, which this one continues. */
const whatWasLeft = (record: RecordingRecord | null): LeftBehind => ({
  stats: record?.stats ?? noStats,
  duration: record?.duration ?? 0,
  kept: record?.startedAt !== undefined || (record?.stats?.bytes ?? 0) > 0,
  futile: record?.futile ?? 1,
  warnings: record?.warnings ?? [],
});
