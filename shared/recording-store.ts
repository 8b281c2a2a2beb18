/**
 * The recording's record in Redis: every read, write and change of state, by edge and workers alike.
 *
 * Each change is one Lua script: it checks the state, the attempt and what is wanted, writes, and appends the event that
 * watchers see, all at once; so two processes can't both win, and nobody sees a state without its event.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { recordingJob, type RecordingJob } from './job.ts';
import {
  EVENTS_KEPT,
  beatScript,
  changeScript,
  claimScript,
  createScript,
  deadlinesScript,
  logScript,
  markScript,
  orphanScript,
  overdueScript,
  ownerPrefix,
  preamble,
  pushScript,
  readScript,
  recordingKeys,
  releaseScript,
  removeScript,
  warnScript,
  webhookKeys,
} from './recording-scripts.ts';
import {
  captureEngines,
  desiredStates,
  externalOrigin,
  isEnd,
  marker,
  MARKERS_AT_MOST,
  noStats,
  pause,
  pushStates,
  recordingError,
  recordingFile,
  recordingStates,
  recordingStats,
  transitions,
  verification,
  type CaptureEngineName,
  type DesiredState,
  type Marker,
  type Pause,
  type PushSpec,
  type PushState,
  type RecordingError,
  type RecordingFile,
  type RecordingState,
  type RecordingStats,
  type Verification,
} from './recording.ts';

export { ALIVE_MS } from './recording-scripts.ts';

const json = <T extends z.ZodType>(schema: T) => z.string().transform((text) => JSON.parse(text) as unknown).pipe(schema);
const milliseconds = z.string().transform(Number);

const recordWebhook = z.object({
  /** URL and secret, sealed under SECRETS_KEY. */
  sealed: z.string(),
  /** Path before ours in the external origin, for links. */
  prefix: z.string(),
});
export type RecordWebhook = z.infer<typeof recordWebhook>;

const record = z.object({
  id: z.string(),
  state: z.enum(recordingStates),
  desired: z.enum(desiredStates),
  attempt: z.string().transform(Number),
  job: json(recordingJob),
  origin: json(externalOrigin),
  metadata: json(z.record(z.string(), z.string())),
  priority: z.string().transform(Number),
  createdAt: milliseconds,
  startAt: z.string().optional(),
  startedAt: milliseconds.optional(),
  endedAt: milliseconds.optional(),
  engine: z.enum(captureEngines).optional(),
  /** Seconds. */
  duration: z.string().transform(Number).optional(),
  stats: json(recordingStats).optional(),
  error: json(recordingError).optional(),
  files: json(z.array(recordingFile)).optional(),
  verification: json(verification).optional(),
  markers: json(z.array(marker)).optional(),
  /** Wall time that was cut out so far, and when the pause began that lasts; by the clock of Redis. */
  pausedMs: milliseconds.optional(),
  pausedAt: milliseconds.optional(),
  pauses: json(z.array(pause)).optional(),
  /** Attempts in a row, the running one included, of which nothing is known to be stored. */
  futile: z.string().transform(Number).optional(),
  /** The attempt that gave the recording up, until the next one begins, or that ended it: its process is gone. */
  released: z.string().transform(Number).optional(),
  webhook: json(recordWebhook).optional(),
  /** Whose it is; missing where it was made without an API key. */
  owner: z.string().optional(),
});
/** @property error why it is `reconnecting` or `failed`, or was `reconnecting` when it ended */
export type PushStanding = { state: PushState; error?: RecordingError | undefined };
const pushStanding = json(z.object({ state: z.enum(pushStates), error: recordingError.optional() }));

/** @property pushes by their place in the spec; missing where nothing was heard of one */
export type RecordingRecord = z.infer<typeof record> & { warnings: string[]; pushes: Partial<Record<number, PushStanding>> };

export type RecordingEvent = { id: string; type: 'state' | 'stats' | 'log' | 'push'; data: string };

export type NewRecording = {
  job: RecordingJob;
  origin: z.infer<typeof externalOrigin>;
  metadata: Record<string, string>;
  priority: number;
  startAt: string | null;
  /** Milliseconds since the epoch. */
  now: number;
  idempotency: { key: string; bodyHash: string } | null;
  /** Where each change of state is to be told, if anywhere. */
  webhook?: RecordWebhook | null;
  /** The name of the API key that makes it; null for none. */
  owner?: string | null;
  /** Of the owner: how many he may have queued or under way, and make in any 60 seconds. Counted with the creation, in one step. */
  limits?: { concurrent?: number | undefined; perMinute?: number | undefined };
};

/** @property wait milliseconds until the next may be made */
export type Created =
  | { outcome: 'created' | 'repeated'; id: string }
  | { outcome: 'conflict' }
  | { outcome: 'too_many_recordings' }
  | { outcome: 'too_many_requests'; wait: number };

export type Change = {
  from: readonly RecordingState[];
  /** Only where this is wanted of it now. */
  wanted?: readonly DesiredState[];
  to?: RecordingState;
  /** Only where this attempt is the newest: a lost worker that comes back changes nothing. */
  attempt?: number;
  desired?: DesiredState;
  engine?: CaptureEngineName;
  /** Milliseconds since the epoch by the clock of Redis, which all attempts share: see Claim. */
  startedAt?: number;
  endedAt?: number;
  duration?: number;
  error?: RecordingError;
  files?: readonly RecordingFile[];
  stats?: RecordingStats;
  verification?: Verification;
  pausedMs?: number;
  /** Null: it isn't paused any more. */
  pausedAt?: number | null;
  pauses?: readonly Pause[];
  /** As they are in the finished file. */
  markers?: readonly Marker[];
};

/** @property now milliseconds since the epoch by the clock of Redis, read while the claim was made */
export type Claim = { attempt: number; now: number };

/** What an attempt has to tell. @property stored whether anything of this attempt is stored */
export type Progress = { stats: RecordingStats; duration: number; stored: boolean };

export type Marked = { outcome: 'changed'; at: number } | { outcome: 'missing' | 'refused' | 'full'; state: RecordingState | null };

export type Changed = {
  outcome: 'changed' | 'refused' | 'fenced' | 'missing';
  /** As they stand after the call; null where the recording is missing. */
  state: RecordingState | null;
  desired: DesiredState | null;
};

export type RecordingStore = ReturnType<typeof createRecordingStore>;

/** @param redis an ioredis client of either kind of queue.ts; errors of Redis are thrown as they are. */
export function createRecordingStore(redis: Redis, prefix: string) {
  const key = (id: string) => `${prefix}:r:${id}`;
  const eventsKey = (id: string) => `${prefix}:e:${id}`;
  const channel = (id: string) => `${prefix}:c:${id}`;
  const idempotencyKey = (key: string) => `${prefix}:idem:${key}`;
  const setOf = (state: RecordingState) => `${prefix}:state:${state}`;

  const run = (script: string, id: string, args: readonly (string | number)[], moreKeys: readonly string[] = [], now = Date.now()) => {
    const keys = [...recordingKeys(prefix, id), ...moreKeys];
    return redis.eval(preamble + script, keys.length, ...keys, channel(id), id, new Date(now).toISOString(), ...args);
  };
  /** How many of a set stand before where this recording would: newer ones, and of its own millisecond those of a higher id. */
  const placeOf = async (set: string, id: string): Promise<number> => {
    const time = timeOf(id);
    const newer = await redis.zcount(set, `(${time}`, '+inf');
    const beside = await redis.zrangebyscore(set, time, time);
    return newer + beside.filter((other) => other > id).length;
  };
  const asChanged = (reply: unknown): Changed => {
    const [outcome, state, desired] = reply as [Changed['outcome'], RecordingState?, DesiredState?];
    return { outcome, state: state ?? null, desired: desired ?? null };
  };

  return {
    /** Pub/sub channel on which each event of the recording is announced, and each change of what is wanted. */
    channel,

    async create(created: NewRecording): Promise<Created> {
      const { job, idempotency, now, owner = null } = created;
      const { concurrent, perMinute } = owner === null ? {} : (created.limits ?? {});
      const fields = Object.entries({
        id: job.recordingId,
        desired: 'recording',
        attempt: '0',
        createdAt: String(now),
        job: JSON.stringify(job),
        origin: JSON.stringify(created.origin),
        metadata: JSON.stringify(created.metadata),
        priority: String(created.priority),
        ...(created.startAt === null ? {} : { startAt: created.startAt }),
        ...(created.webhook ? { webhook: JSON.stringify(created.webhook) } : {}),
        ...(owner === null ? {} : { owner }),
      }).flat();
      const kept = idempotency === null ? [] : [idempotencyKey(idempotency.key)];
      const reply = await run(createScript, job.recordingId, [idempotency?.bodyHash ?? '', now, owner ?? '', concurrent ?? '', perMinute ?? '', ...fields], kept, now);
      const [outcome, id, wait] = reply as [Created['outcome'], string, number?];
      if (outcome === 'too_many_requests') return { outcome, wait: wait ?? 0 };
      return outcome === 'conflict' || outcome === 'too_many_recordings' ? { outcome } : { outcome, id };
    },

    /** Whether a recording was created with this idempotency key within the last day. */
    async isKnown(key: string): Promise<boolean> {
      return (await redis.exists(idempotencyKey(key))) === 1;
    },

    /** @param of whose it has to be: another's is as good as none; null for anybody's */
    async get(id: string, of: string | null = null): Promise<RecordingRecord | null> {
      if (of === null) return parseRecord(await redis.hgetall(key(id)));
      const flat = (await redis.eval(readScript, 1, key(id), of)) as string[];
      return parseRecord(Object.fromEntries(Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]])));
    },

    /** As `get`, also of a removed recording whose webhook has yet to be told of its last states. */
    async lastKnown(id: string): Promise<RecordingRecord | null> {
      return parseRecord(await redis.hgetall(key(id))) ?? parseRecord(await redis.hgetall(webhookKeys(prefix).removed(id)));
    },

    /** Newest first, of one owner where `of` says which. The cursor is the last id of the page before; ids sort by time. */
    async list(options: { state?: RecordingState; limit: number; cursor?: string; of?: string | null }): Promise<{ items: RecordingRecord[]; cursor: string | null }> {
      const base = options.of === undefined || options.of === null ? prefix : ownerPrefix(prefix, options.of);
      const set = options.state === undefined ? `${base}:index` : `${base}:state:${options.state}`;
      let start = 0;
      if (options.cursor !== undefined) {
        const rank = await redis.zrevrank(set, options.cursor);
        // the cursor's own recording may have left this state
        start = rank === null ? await placeOf(set, options.cursor) : rank + 1;
      }
      const ids = await redis.zrevrange(set, start, start + options.limit);
      const page = ids.slice(0, options.limit);
      const pipeline = redis.pipeline();
      for (const id of page) pipeline.hgetall(key(id));
      const replies = (await pipeline.exec()) ?? [];
      const items: RecordingRecord[] = [];
      for (const [error, reply] of replies) {
        if (error) throw error;
        const item = parseRecord(reply as Record<string, string>);
        if (item) items.push(item);
      }
      return { items, cursor: ids.length > options.limit ? (page.at(-1) ?? null) : null };
    },

    async change(id: string, change: Change): Promise<Changed> {
      const { from, to, attempt, wanted, ...fields } = change;
      if (to !== undefined) {
        for (const state of from) {
          if (state !== to && !transitions[state].includes(to)) throw new TypeError(`a recording can't go from ${state} to ${to}`);
        }
      }
      const pairs = Object.entries(fields).flatMap(([name, value]) =>
        value === undefined ? [] : [name, value === null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value)],
      );
      if (to !== undefined && isEnd(to) && fields.endedAt === undefined) pairs.push('endedAt', String(Date.now()));
      return asChanged(await run(changeScript, id, [attempt ?? '', `,${from.join(',')},`, to ?? '', wanted === undefined ? '' : `,${wanted.join(',')},`, ...pairs]));
    },

    /**
     * Begins an attempt.
     *
     * @param takeOver whether also where another attempt only stopped beating, rather than gave the recording up: after an
     *   outage of Redis all have stopped, and all live
     * @param of the attempt that the job is for: if that is the next one, somebody has found before that the last one is dead
     * @returns null where the recording isn't to be run, or another attempt lives
     */
    async claim(id: string, takeOver = true, of = 0): Promise<Claim | null> {
      const [attempt, now] = (await run(claimScript, id, [takeOver ? 1 : 0, of])) as [number, number?];
      return attempt === 0 ? null : { attempt, now: now ?? Date.now() };
    },

    /** Says that the attempt lives, for ALIVE_MS; answers what is wanted of it. */
    async beat(id: string, attempt: number, progress: Progress | null): Promise<Changed> {
      return asChanged(await run(beatScript, id, [attempt, ...progressArgs(progress)]));
    },

    /**
     * Ends an attempt whose recording goes on: from `delay` milliseconds on, the next one may claim it. Its job is the
     * caller's to queue, and the reconciler's where the caller dies.
     */
    async release(id: string, attempt: number, delay: number, progress: Progress | null): Promise<Changed> {
      return asChanged(await run(releaseScript, id, [attempt, delay, ...progressArgs(progress)]));
    },

    /**
     * How many running recordings are overdue, and in how many milliseconds the next one would be if nobody vouches for it
     * again, null where none runs. By the clock of Redis, whose time it says too.
     */
    async deadlines(): Promise<{ now: number; overdue: number; next: number | null }> {
      const [now, passed, next] = (await redis.eval(deadlinesScript, 1, `${prefix}:beats`)) as [number, number, string];
      return { now, overdue: passed, next: next === '' ? null : Number(next) - now };
    },

    /**
     * Running recordings that nobody vouches for any more, the longest first, and for how many milliseconds they are overdue.
     * @param hold milliseconds for which nobody else is told of them: of many who look, one acts, and another where that one dies
     */
    async overdue(limit: number, hold: number): Promise<{ id: string; late: number }[]> {
      const found = (await redis.eval(overdueScript, 2, `${prefix}:beats`, `${prefix}:told`, limit, Math.round(hold))) as [string, number][];
      return found.map(([id, late]) => ({ id, late }));
    },

    /** Whether the caller is the one of all processes who is to do a task that comes round, for `hold` milliseconds. */
    async isMine(task: string, hold: number): Promise<boolean> {
      return (await redis.set(`${prefix}:task:${task}`, '1', 'PX', Math.round(hold), 'NX')) === 'OK';
    },

    /** Ids in a state, some of them where there are more than `limit`. */
    async someIn(state: RecordingState, limit: number): Promise<string[]> {
      const more = (await redis.zcard(setOf(state))) - limit;
      const start = more > 0 ? Math.floor(Math.random() * (more + 1)) : 0;
      return redis.zrange(setOf(state), start, String(start + limit - 1));
    },

    /** Leads a recording that nobody runs, and nobody is to run again, to its end; its finish job is the caller's to queue. */
    async orphan(id: string, attempt: number, error: RecordingError | null): Promise<Changed> {
      return asChanged(await run(orphanScript, id, [attempt, error === null ? '' : JSON.stringify(error)]));
    },

    /** The job of a new recording is in the queue. */
    async enqueued(id: string): Promise<void> {
      await redis.zrem(`${prefix}:jobless`, id);
    },

    /**
     * Ids that entered a set at least `age` milliseconds ago, the longest first: created recordings whose job was never
     * queued, deleted ones that are still there, ended ones.
     */
    async since(set: 'jobless' | 'removing' | 'ended', age: number, limit: number): Promise<string[]> {
      const [seconds, microseconds] = await redis.time();
      const now = Number(seconds) * 1000 + Math.floor(Number(microseconds) / 1000);
      return redis.zrangebyscore(`${prefix}:${set}`, 0, now - age, 'LIMIT', 0, limit);
    },

    /** Names the present moment of the recording's timeline. */
    async mark(id: string, label: string): Promise<Marked> {
      const [outcome, state, at] = (await run(markScript, id, [label, MARKERS_AT_MOST])) as [Marked['outcome'], RecordingState?, string?];
      return outcome === 'changed' ? { outcome, at: Number(at) } : { outcome, state: state ?? null };
    },

    /** Tells all who watch the recording's channel something that stands nowhere else. */
    async signal(id: string, message: string): Promise<void> {
      await redis.publish(channel(id), message);
    },

    /** Adds a warning to the recording, once for each code. @param attempt as in Change */
    async warn(id: string, code: string, message: string, attempt?: number): Promise<void> {
      await run(warnScript, id, [code, message, attempt ?? '']);
    },

    /**
     * How a push stands. Those who watch are told where it is another state than before.
     * @param index in the spec @param attempt as in Change
     */
    async push(id: string, index: number, standing: PushStanding, { url, streamId }: Pick<PushSpec, 'url' | 'streamId'>, attempt: number): Promise<void> {
      await run(pushScript, id, [index, JSON.stringify(standing), JSON.stringify({ index, url, streamId, ...standing }), attempt]);
    },

    /** A line for those who watch. @param attempt as in Change */
    async log(id: string, message: string, attempt?: number): Promise<void> {
      await run(logScript, id, [message, attempt ?? '']);
    },

    /** Events behind `after` ("0" for all that are kept), oldest first. */
    async events(id: string, after: string): Promise<RecordingEvent[]> {
      const entries = await redis.xrange(eventsKey(id), after === '0' ? '-' : `(${after}`, '+', 'COUNT', EVENTS_KEPT);
      return entries.map(([entry, fields]) => ({ id: entry, type: fields[1] as RecordingEvent['type'], data: fields[3] ?? '' }));
    },

    /** Recordings in each state. */
    async counts(): Promise<Record<RecordingState, number>> {
      const pipeline = redis.pipeline();
      for (const state of recordingStates) pipeline.zcard(setOf(state));
      const replies = (await pipeline.exec()) ?? [];
      return Object.fromEntries(
        recordingStates.map((state, i) => {
          const [error, count] = replies[i] ?? [null, 0];
          if (error) throw error;
          return [state, Number(count)];
        }),
      ) as Record<RecordingState, number>;
    },

    /** Forgets the recording; its files are the storage's. */
    async remove(id: string): Promise<void> {
      await run(removeScript, id, []);
    },
  };
}

const progressArgs = (progress: Progress | null): (string | number)[] =>
  progress === null ? ['', '', ''] : [JSON.stringify(progress.stats), progress.duration, progress.stored ? '1' : ''];

/** Milliseconds since the epoch, from a recording's id (see newRecordingId). */
export function timeOf(id: string): number {
  let time = 0;
  for (const char of id.slice(4, 14)) time = time * 32 + '0123456789abcdefghjkmnpqrstvwxyz'.indexOf(char);
  return time;
}

function parseRecord(fields: Record<string, string>): RecordingRecord | null {
  if (fields['id'] === undefined) return null;
  const warnings = Object.entries(fields).flatMap(([name, value]) => (name.startsWith('warning:') ? [value] : []));
  const pushes = Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) => (name.startsWith('push:') ? [[Number(name.slice(5)), pushStanding.parse(value)]] : [])),
  );
  return { ...record.parse(fields), warnings, pushes };
}

/** What the record knows of progress, with nothing yet for nothing known; without that of its pushes. */
export function statsOf({ stats = noStats }: RecordingRecord): Omit<RecordingStats, 'push'> {
  const { push: _, ...own } = stats;
  return own;
}
