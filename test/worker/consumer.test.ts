import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { IS_SEALED, newJob } from '../../shared/job.ts';
import { createLog } from '../../shared/log.ts';
import { againJobOptions, createFinishQueue, createRecordQueue, patientRedis, recordJobOptions } from '../../shared/queue.ts';
import { newRecordingId, noStats, type RecordingState } from '../../shared/recording.ts';
import { createRecordingStore, type RecordingRecord, type RecordingStore } from '../../shared/recording-store.ts';
import { seal } from '../../shared/token.ts';
import type { AttemptTimes } from '../../worker/attempt.ts';
import { startConsumer, type Consumer } from '../../worker/consumer.ts';
import { createMediaMetrics, type MediaMetrics } from '../../worker/media-metrics.ts';
import { createOutboundMetrics } from '../../worker/outbound-metrics.ts';
import { createRecorderPool, type RecorderPool } from '../../worker/recorder-pool.ts';
import { insecureWarning } from '../../worker/sink/media-way.ts';
import { inherited } from '../helpers/environment.ts';
import { hasRedisServer, realRedis, startRedis, type RealRedis, type TestRedis } from '../helpers/redis.ts';
import type { FoundBrowser } from '../../worker/browser/find.ts';
import { anything, pick } from '../fuzz/json.ts';
import { seeded } from '../soak/outcome.ts';

/** The stub has none. */
const noBrowser = { kind: 'chrome', executable: '/no/such', version: '0.0.0.0', libraryPath: null, fontsPath: null, engines: ['tab'] } satisfies FoundBrowser;

const { HOME: _, ...passedOn } = inherited;
const script = new URL('./fixtures/stub-recorder.ts', import.meta.url);
const times: Partial<AttemptTimes> = { beat: 50, doubted: 1000, silent: 700, stop: 500, stopAtMost: 1500, deliver: 1500, abandon: 500, exit: 300, firstRetry: 1, lastRetry: 20 };
const KEY = '0123456789abcdef0123456789abcdef';

let server: TestRedis;
beforeAll(async () => {
  server = await startRedis();
});
afterAll(() => server[Symbol.asyncDispose]());

let closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

type World = {
  prefix: string;
  redis: Redis;
  store: RecordingStore;
  pool: RecorderPool;
  consumer: Consumer;
  media: MediaMetrics;
  lines: string[];
  finishing(): Promise<string[]>;
  /** Queues a recording whose process behaves as named. */
  queue(behaviour: string, more?: { credential?: string; sealed?: string; id?: string; unqueued?: boolean }): Promise<string>;
  /** Waits until the record is as it should be; looks at each event of it, and now and then. */
  until(id: string, what: (record: RecordingRecord) => boolean): Promise<RecordingRecord>;
  messages(id: string): Promise<string[]>;
};

type Options = {
  redis?: TestRedis;
  slots?: number;
  drainTimeout?: number;
  leaveAfter?: number;
  secretsKeys?: string[] | null;
  allowInsecureWs?: boolean;
  handOver?: boolean;
  /** Of another world, to be another worker of it. */
  prefix?: string;
  times?: Partial<AttemptTimes>;
  admission?: { limit(): number; begin(pid: () => number | null): { over(): void } };
};

let count = 0;
async function start(options: Options = {}): Promise<World> {
  count += 1;
  const prefix = options.prefix ?? `tabreel-t${count}`;
  const connect = () => {
    const client = patientRedis(options.redis ?? server, () => {});
    closers.push(() => client.disconnect());
    return client;
  };
  const [redis, subscriber, watcher] = [connect(), connect(), connect()];
  const lines: string[] = [];
  const log = createLog('debug', (line) => lines.push(line));
  const store = createRecordingStore(redis, prefix);
  const recordQueue = createRecordQueue(redis, prefix, () => {});
  const finishQueue = createFinishQueue(redis, prefix, () => {});
  const slots = options.slots ?? 1;
  const pool = createRecorderPool({ size: slots, environment: { PATH: '', NODE_COMPILE_CACHE: '', ...passedOn, LANG: 'C' }, log, script });
  closers.push(() => pool[Symbol.asyncDispose]());
  const media = createMediaMetrics();
  const consumer = startConsumer({
    config: { slots, queuePrefix: prefix, secretsKeys: options.secretsKeys ?? null, drainTimeout: options.drainTimeout ?? 0, leaveAfter: options.leaveAfter ?? null },
    redis,
    subscriber,
    store,
    recordQueue,
    finishQueue,
    pool,
    settings: {
      browser: noBrowser, sandbox: true, devShm: true, mediaCa: null, allowInsecureWs: options.allowInsecureWs ?? false, spool: null, mediaFound: false,
      soundDelay: {}, outbound: { allow: [], own: [] }, logLevel: 'error',
    },
    media,
    denials: createOutboundMetrics(),
    steady: () => true,
    handOver: options.handOver ?? true,
    log,
    times: { ...times, ...options.times },
    ...(options.admission === undefined ? {} : { admission: options.admission }),
  });
  closers.push(() => consumer[Symbol.asyncDispose]());
  return {
    prefix,
    redis,
    store,
    pool,
    consumer,
    media,
    lines,
    finishing: async () => (await finishQueue.getJobs(['waiting', 'delayed', 'prioritized'])).map((job) => `${job.data.recordingId} ${job.data.action}`),
    async queue(behaviour, more = {}) {
      const id = more.id ?? newRecordingId();
      const job = newJob({
        recordingId: id,
        mediaUrl: `ws://127.0.0.1:9/v1/recordings/${id}/media`,
        credential: more.credential ?? 'credential',
        origin: { source: 'test', hops: 0 },
        spec: {
          url: `http://stub.test/${behaviour}`, width: 640, height: 360, frameRate: 30, maxDuration: 60, audio: true,
          videoBitrate: 1_000_000, audioBitrate: 128_000, start: { when: 'load', timeout: 30 }, webrtc: 'proxied', record: behaviour !== 'push-all-fail',
          push: behaviour.startsWith('push') ? ['a', 'b'].map((streamId) => ({ type: 'antmedia', url: 'wss://push.test/live/websocket', streamId })) : [],
        },
        sealed: more.sealed ?? null,
      });
      const origin = { scheme: 'http', host: 'localhost', port: null, source: 'test' } as const;
      if (more.id === undefined) await store.create({ job, origin, metadata: {}, priority: 0, startAt: null, now: Date.now(), idempotency: null });
      if (more.unqueued !== true) await recordQueue.add('record', job, recordJobOptions(id, 0, 0));
      return id;
    },
    async until(id, what) {
      const { promise, resolve } = Promise.withResolvers<RecordingRecord>();
      const look = async () => {
        const record = await store.get(id);
        if (record !== null && what(record)) resolve(record);
      };
      const onMessage = (channel: string) => {
        if (channel === store.channel(id)) void look();
      };
      watcher.on('message', onMessage);
      await watcher.subscribe(store.channel(id));
      void look();
      // not all of a record's changes are told
      const looking = setInterval(() => void look(), 200);
      return promise.finally(() => {
        clearInterval(looking);
        watcher.off('message', onMessage);
      });
    },
    messages: async (id) =>
      (await store.events(id, '0')).filter(({ type }) => type === 'log').map(({ data }) => (JSON.parse(data) as { message: string }).message),
  };
}

const is = (state: RecordingState) => (record: RecordingRecord) => record.state === state;
const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};
const browserOf = (messages: string[]): number => Number(messages.find((line) => line.startsWith('browser '))?.slice(8));

/** Something without an event of its own. */
async function eventually(what: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 4000; Date.now() < end; ) {
    if (await what()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('it did not come about');
}

describe('a recording', () => {
  let world: World;
  beforeEach(async () => {
    world = await start();
  });

  it('runs until it is stopped, and goes to the finaliser with what is known of it', async () => {
    const id = await world.queue('normal');
    const recording = await world.until(id, (record) => record.state === 'recording' && (record.stats?.bytes ?? 0) > 1000);
    expect(recording).toMatchObject({ engine: 'self', attempt: 1 });
    expect(Date.now() - (recording.startedAt ?? 0)).toBeLessThan(20_000);
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    const finishing = await world.until(id, is('finishing'));
    expect(finishing.stats?.bytes).toBeGreaterThanOrEqual(recording.stats?.bytes ?? 0);
    expect(finishing.duration).toBeGreaterThan(0);
    expect(finishing.error).toBeUndefined();
    expect(finishing.warnings).toEqual(['this is a stub']);
    await eventually(async () => (await world.finishing()).includes(`${id} finish`));
    await eventually(() => world.consumer.counts().active === 0);
  });

  it('has its media sockets counted while it runs and when it is over, however its process ended', async () => {
    const id = await world.queue('normal');
    await world.until(id, is('recording'));
    await eventually(() => world.media.text().includes('tabreel_worker_media_sockets 1\n'));
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    await eventually(() => world.media.text().includes('tabreel_worker_media_sockets 0\n'));
    const crashed = await world.queue('crashes');
    await world.until(crashed, ({ attempt, state }) => attempt === 2 && state === 'recording');
    await world.store.change(crashed, { from: ['recording'], desired: 'stopped' });
    await world.until(crashed, is('finishing'));
    await eventually(() => world.consumer.counts().active === 0);
    const text = world.media.text();
    for (const line of [
      'tabreel_worker_media_sockets 0',
      'tabreel_worker_media_dials_total{outcome="media_dns"} 3',
      'tabreel_worker_media_dials_total{outcome="open"} 3',
      'tabreel_worker_media_reconnects_total 3',
      'tabreel_worker_media_resent_parts_total 6',
      'tabreel_worker_media_round_trip_seconds_bucket{le="0.02"} 0',
      'tabreel_worker_media_round_trip_seconds_bucket{le="0.05"} 3',
      'tabreel_worker_media_round_trip_seconds_sum 0.09',
      'tabreel_worker_media_round_trip_seconds_count 3',
    ]) expect(text.split('\n')).toContain(line);
  });

  it('has how its pushes stand written and counted, as it ends too', async () => {
    const id = await world.queue('push');
    const live = await world.until(id, ({ state, pushes }) => state === 'recording' && pushes[0]?.state === 'live');
    expect(live.pushes[1]).toEqual({ state: 'failed', error: { code: 'push_unauthorized', message: 'it is push_unauthorized', blame: 'caller', retryable: false } });
    const gauges = (...states: string[]) => states.map((state) => `tabreel_worker_pushes{state="${state}"}`);
    const [running, failed] = gauges('live', 'failed');
    await eventually(() => [`${running} 1`, `${failed} 1`, 'tabreel_worker_push_bitrate 1000'].every((line) => world.media.text().split('\n').includes(line)));
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    const finishing = await world.until(id, is('finishing'));
    expect(finishing.pushes).toMatchObject({ 0: { state: 'ended' }, 1: { state: 'failed', error: { code: 'push_unauthorized' } } });
    expect(finishing.pushes[0]).not.toHaveProperty('error');
    expect(finishing.stats?.push).toHaveLength(2);
    await eventually(() => world.consumer.counts().active === 0);
    const lines = world.media.text().split('\n');
    for (const line of [`${running} 0`, `${failed} 0`, 'tabreel_worker_push_bitrate 0', 'tabreel_worker_push_frames_sent_total 60']) expect(lines).toContain(line);
    const told = (await world.store.events(id, '0')).filter(({ type }) => type === 'push').map(({ data }) => JSON.parse(data) as Record<string, unknown>);
    expect(told.at(-1)).toMatchObject({ index: 0, url: 'wss://push.test/live/websocket', streamId: 'a', state: 'ended', at: expect.any(String) });
  });

  it('tells why a push had no session when it ended', async () => {
    const id = await world.queue('push-unreached');
    await world.until(id, ({ state, pushes }) => state === 'recording' && pushes[0]?.state === 'reconnecting');
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    expect((await world.until(id, is('finishing'))).pushes[0]).toMatchObject({ state: 'ended', error: { code: 'push_unreachable', retryable: true } });
  });

  it('that is only pushed ends with its last push, whose error is there by then', async () => {
    const { pushes, error, attempt } = await world.until(await world.queue('push-all-fail'), is('finishing'));
    expect([attempt, error?.code]).toEqual([1, 'push_forbidden']);
    expect(pushes[1]).toMatchObject({ state: 'failed', error: { code: 'push_forbidden', blame: 'caller', retryable: false } });
  });

  it('that ends by itself is finished, and one that stored nothing has failed', async () => {
    expect((await world.until(await world.queue('ends'), is('finishing'))).error).toBeUndefined();
    expect((await world.until(await world.queue('empty'), is('failed'))).error).toMatchObject({ code: 'nothing_recorded' });
    expect((await world.until(await world.queue('fails'), is('failed'))).error).toMatchObject({ code: 'target_dns', blame: 'target' });
  });

  it('that is stopped before its first picture is canceled', async () => {
    const id = await world.queue('slow');
    await world.until(id, is('starting'));
    await world.store.change(id, { from: ['starting'], desired: 'stopped' });
    await world.until(id, is('canceled'));
    expect(await world.finishing()).toEqual([]);
  });

  it('that nobody wants any more when its turn comes is passed over', async () => {
    const busy = await world.queue('normal');
    await world.until(busy, is('recording'));
    const next = await world.queue('normal');
    await world.store.change(next, { from: ['queued'], to: 'canceled', desired: 'stopped' });
    await world.store.change(busy, { from: ['recording'], desired: 'stopped' });
    const third = await world.queue('ends');
    await world.until(third, is('finishing'));
    expect((await world.store.get(next))?.attempt).toBe(0);
    expect(world.consumer.counts().begun).toBe(2);
  });

  it('that is deleted or canceled ends at once and is not finished', async () => {
    const id = await world.queue('normal');
    await world.until(id, is('recording'));
    await world.store.change(id, { from: ['recording'], desired: 'deleted' });
    await world.until(id, is('canceled'));
    const other = await world.queue('normal');
    await world.until(other, is('recording'));
    await world.store.remove(other);
    await eventually(() => world.consumer.counts().active === 0);
    expect(await world.finishing()).toEqual([]);
    const canceled = await world.queue('normal');
    await world.until(canceled, is('recording'));
    await world.store.change(canceled, { from: ['recording'], desired: 'canceled' });
    expect((await world.until(canceled, is('canceled'))).error).toBeUndefined();
    expect(await world.finishing()).toEqual([`${canceled} discard`]);
  });

  it('that a newer attempt took over is left alone', async () => {
    const id = await world.queue('normal');
    await world.until(id, is('recording'));
    await world.redis.hincrby(`${world.prefix}:r:${id}`, 'attempt', 1);
    await eventually(() => world.consumer.counts().active === 0);
    expect(await world.store.get(id)).toMatchObject({ state: 'recording', attempt: 2 });
    expect(await world.finishing()).toEqual([]);
  });

  it('runs in a process that sees nothing of the environment but what it needs', async () => {
    const id = await world.queue('ends');
    await world.until(id, is('finishing'));
    const line = (await world.messages(id)).find((text) => text.startsWith('environment '));
    expect(line?.split(' ').filter((name) => !name.startsWith('NODE_CHANNEL'))).toEqual(['environment', 'LANG', 'NODE_COMPILE_CACHE', 'PATH', 'TMPDIR']);
  });
});

describe('a process that is lost', () => {
  let world: World;
  beforeEach(async () => {
    world = await start();
  });

  it('is followed by another, which goes on with the recording', async () => {
    const id = await world.queue('crashes');
    const first = await world.until(id, (record) => (record.stats?.bytes ?? 0) > 0);
    const second = await world.until(id, ({ attempt, state, stats }) => attempt === 2 && state === 'recording' && (stats?.bytes ?? 0) > 3000);
    expect(second).toMatchObject({ startedAt: first.startedAt, futile: 0 });
    expect(second.error).toBeUndefined();
    expect(second.warnings).toEqual(expect.arrayContaining([expect.stringMatching(/^Attempt 1 ended: worker_lost: .*SIGKILL/)]));
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    const end = await world.until(id, is('finishing'));
    expect(end.error).toBeUndefined();
    // of the whole timeline, on which the gap lies too
    expect(end.duration).toBeGreaterThan((Date.now() - (first.startedAt ?? 0)) / 1000 - 0.5);
    expect((await world.store.events(id, '0')).flatMap(({ type, data }) => (type === 'state' ? [JSON.parse(data).state] : []))).toEqual([
      'queued', 'starting', 'recording', 'starting', 'recording', 'finishing',
    ]);
    expect(await world.finishing()).toEqual([`${id} finish`]);
  });

  it('eight times in a row before anything is stored is the end', async () => {
    const early = await world.until(await world.queue('crashes-early'), is('failed'));
    expect(early).toMatchObject({ attempt: 8, error: { code: 'worker_lost', message: expect.stringContaining('exited with 7') } });
    expect(early.warnings.filter((line) => line.startsWith('Attempt '))).toHaveLength(7);
    expect(await world.finishing()).toEqual([]);
  }, 15_000);

  it.each(['blocks', 'silent'])('because it %s is killed with its browser', async (behaviour) => {
    const id = await world.queue(behaviour);
    const record = await world.until(id, ({ attempt, state }) => attempt === 2 && state === 'recording');
    expect(record.warnings).toEqual(expect.arrayContaining([expect.stringMatching(/^Attempt 1 ended: worker_lost: .*it said nothing for/)]));
    const browser = browserOf(await world.messages(id));
    expect(browser).toBeGreaterThan(1);
    await eventually(() => !alive(browser));
    // the slot is free again
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    await world.until(await world.queue('ends'), is('finishing'));
  });

  it('because it does not listen is killed, and what is stored is kept', async () => {
    const id = await world.queue('deaf');
    await world.until(id, is('recording'));
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    expect((await world.until(id, is('finishing'))).error).toMatchObject({ code: 'worker_lost', message: expect.stringContaining('did not end when it was told to') });
  });

  it('is not one that only lingers after it told its end', async () => {
    const id = await world.queue('lingers');
    await world.until(id, is('recording'));
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    expect((await world.until(id, is('finishing'))).error).toBeUndefined();
  });
});

describe('a worker', () => {
  it('keeps a process ready for each free slot, and never more processes than slots', async () => {
    const world = await start({ slots: 2 });
    await eventually(() => world.pool.ready() === 2);
    const ids = [await world.queue('normal'), await world.queue('normal'), await world.queue('ends')];
    await world.until(ids[0] as string, is('recording'));
    await world.until(ids[1] as string, is('recording'));
    expect(world.pool.ready()).toBe(0);
    expect((await world.store.get(ids[2] as string))?.state).toBe('queued');
    await world.store.change(ids[0] as string, { from: ['recording'], desired: 'stopped' });
    await world.until(ids[2] as string, is('finishing'));
    await eventually(() => world.pool.ready() === 1);
  });

  it('continues what another worker lost, and keeps what that stored even if it can add nothing', async () => {
    const world = await start();
    const id = await world.queue('', { unqueued: true });
    const startedAt = Date.now() - 30_000;
    const stats = { ...noStats, frames: 10, bytes: 5000 };
    await world.store.claim(id);
    await world.store.change(id, { from: ['starting'], to: 'recording', startedAt, stats, attempt: 1 });
    await world.redis.zadd(`${world.prefix}:beats`, 0, id);
    await world.queue('crashes-early', { id });
    const record = await world.until(id, is('finishing'));
    expect(record).toMatchObject({ attempt: 8, startedAt, stats, error: { code: 'worker_lost' } });

    const other = await world.queue('', { unqueued: true });
    await world.store.claim(other);
    await world.store.change(other, { from: ['starting'], to: 'recording', startedAt, stats, attempt: 1 });
    await world.redis.zadd(`${world.prefix}:beats`, 0, other);
    await world.queue('ends', { id: other });
    const continued = await world.until(other, is('finishing'));
    expect(continued).toMatchObject({ startedAt, stats: { frames: 70, bytes: 6000 } });
    expect(continued.duration).toBeGreaterThanOrEqual(30);
  }, 15_000);

  it.each([
    ['with TLS: then not without it now', [], false],
    ['without TLS, and said so', ['media_insecure'], true],
  ])('continues what another worker had sent %s', async (_how, warned, without) => {
    const world = await start({ allowInsecureWs: true });
    const id = await world.queue('', { unqueued: true });
    await world.store.claim(id);
    await world.store.change(id, { from: ['starting'], to: 'recording', startedAt: Date.now(), stats: { ...noStats, bytes: 5000 }, attempt: 1 });
    for (const code of warned) await world.store.warn(id, code, insecureWarning(`ws://127.0.0.1:9/v1/recordings/${id}/media`));
    await world.redis.zadd(`${world.prefix}:beats`, 0, id);
    await world.queue('ends', { id });
    await world.until(id, is('finishing'));
    expect(await world.messages(id)).toContain(`without TLS ${without}`);
  });

  it('opens what callers gave in confidence and the credential, whichever of its keys they are sealed by, or fails the recording and says so', async () => {
    const older = 'an-older-key-0123456789';
    const world = await start({ secretsKeys: [KEY, older] });
    const plain = { headers: { 'X-Key': 'abc' }, cookies: [] };
    const id = newRecordingId();
    const sealed = await seal([KEY], id, plain);
    const foreign = await world.queue('ends', { sealed });
    expect((await world.until(foreign, is('failed'))).error).toMatchObject({ code: 'internal', message: expect.stringContaining('can not be opened') });

    const opened = async (key: string, credential: string, given: object) => {
      const own = await world.queue('', { unqueued: true });
      await world.queue('ends', { id: own, credential, sealed: await seal([key], own, given) });
      await world.until(own, is('finishing'));
      return (await world.messages(own)).find((message) => message.startsWith('secrets '));
    };
    for (const key of [KEY, older]) expect(await opened(key, IS_SEALED, { ...plain, credential: 'a sealed one' })).toBe(`secrets ${JSON.stringify({ ...plain, credential: 'a sealed one' })}`);
    // of an edge of before
    expect(await opened(KEY, 'in the clear', plain)).toBe(`secrets ${JSON.stringify({ ...plain, credential: 'in the clear' })}`);
  });

  it('fails a recording whose job it can not read', async () => {
    const world = await start();
    const id = await world.queue('', { unqueued: true });
    const queue = createRecordQueue(world.redis, world.prefix, () => {});
    await queue.add('record', { version: 99 } as never, recordJobOptions(id, 0, 0));
    expect((await world.until(id, is('failed'))).error).toMatchObject({ code: 'internal', message: expect.stringContaining('version') });
  });

  it('survives whatever lies in the queue and in records, and takes what is good', async () => {
    const world = await start({ slots: 2 });
    const queue = createRecordQueue(world.redis, world.prefix, () => {});
    const random = seeded(7);
    const good = (await world.store.get(await world.queue('ends', { unqueued: true })))?.job as object;
    const poisoned: string[] = [];
    for (let i = 0; i < 60; i += 1) {
      const id = await world.queue('ends', { unqueued: true });
      const broken = { ...good, recordingId: id, [pick(random, ['version', 'recordingId', 'mediaUrl', 'credential', 'origin', 'spec', 'sealed'])]: pick(random, [undefined, 7, {}, [[]], 'x'.repeat(2_000_000), { version: 2 }, '\0', '../..', '__proto__']) };
      const data = pick(random, [broken, broken, broken, null, [], 'x', 7, { version: 2 }, { __proto__: null }, anything(random)]);
      await queue.add('record', data as never, recordJobOptions(id, 0, 0));
      poisoned.push(id);
    }
    // rubbish in the record itself, whose job is good
    const rubbish: Record<string, (key: string) => Promise<unknown>> = {
      'a string': async (key) => (await world.redis.del(key), world.redis.set(key, 'x')),
      'a list': async (key) => (await world.redis.del(key), world.redis.rpush(key, 'x')),
      'no number': (key) => world.redis.hset(key, 'attempt', 'x'),
      'a huge number': (key) => world.redis.hset(key, 'attempt', '9'.repeat(400)),
      'no state': (key) => world.redis.hset(key, 'state', 'x'),
      'no wish': (key) => world.redis.hset(key, 'desired', 'x'),
      'no job': (key) => world.redis.hset(key, 'job', '{'),
      nothing: (key) => world.redis.del(key),
    };
    for (const spoil of Object.values(rubbish)) {
      const id = await world.queue('ends', { unqueued: true });
      await spoil(`${world.prefix}:r:${id}`);
      await queue.add('record', { ...good, recordingId: id } as never, recordJobOptions(id, 0, 0));
    }
    await queue.add('record', good as never, { ...recordJobOptions(newRecordingId(), 0, 0), jobId: 'x'.repeat(1000) });
    const last = await world.queue('ends');
    await world.until(last, is('finishing'));
    expect(world.consumer.isAlive()).toBe(true);
    for (const id of poisoned) {
      const found = await world.store.get(id);
      // a credential may be any text
      expect([found?.state, found?.error?.code]).toEqual(found?.state === 'failed' ? ['failed', 'internal'] : [expect.stringMatching(/^(queued|finishing)$/), undefined]);
    }
    expect((await Promise.all(poisoned.map((id) => world.store.get(id)))).filter((found) => found?.state === 'failed').length).toBeGreaterThan(40);
  });

  it('that drains lets recordings go on for a while, then hands them over, and takes no more', async () => {
    const world = await start({ drainTimeout: 1 });
    const id = await world.queue('normal');
    const before = await world.until(id, is('recording'));
    const drained = world.consumer.drain();
    const late = await world.queue('ends');
    await world.until(id, (record) => (record.stats?.bytes ?? 0) > 10_000);
    expect((await world.store.get(id))?.state).toBe('recording');
    await drained;
    const left = await world.store.get(id);
    expect(left).toMatchObject({ state: 'starting', attempt: 1, released: 1 });
    expect((await world.store.get(late))?.state).toBe('queued');
    // the first that comes goes on with it, before all that wait
    const other = await start({ prefix: world.prefix });
    const after = await other.until(id, (record) => record.state === 'recording');
    expect(after).toMatchObject({ attempt: 2, startedAt: before.startedAt, stats: { bytes: expect.any(Number) } });
    expect((await world.store.get(late))?.state).toBe('queued');
    await other.until(id, ({ stats }) => (stats?.bytes ?? 0) > (left?.stats?.bytes ?? 0));
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    expect((await other.until(id, is('finishing'))).error).toBeUndefined();
    await other.until(late, is('finishing'));
  });

  it('that drains and has nobody to hand over to ends its recordings in good order', async () => {
    const world = await start({ drainTimeout: 1, handOver: false, slots: 2, times: { firstRetry: 60_000, lastRetry: 60_000 } });
    const unlucky = await world.queue('unreachable');
    await world.until(unlucky, ({ released }) => released === 1);
    const id = await world.queue('normal');
    await world.until(id, is('recording'));
    const drained = world.consumer.drain();
    const late = await world.queue('normal');
    await world.until(id, (record) => (record.stats?.bytes ?? 0) > 10_000);
    expect((await world.store.get(id))?.state).toBe('recording');
    await drained;
    const record = await world.store.get(id);
    expect(record?.state).toBe('finishing');
    expect(record?.warnings).toContain('The worker was shut down before the recording was over');
    expect((await world.store.get(late))?.state).toBe('queued');
    expect(await world.store.get(unlucky)).toMatchObject({ state: 'finishing', attempt: 1 });
    expect((await world.finishing()).toSorted()).toEqual([`${id} finish`, `${unlucky} finish`].toSorted());
  });

  it('that must leave now hands over at once, also a recording without a picture', async () => {
    const world = await start({ drainTimeout: 3600 });
    const id = await world.queue('slow');
    await world.until(id, is('starting'));
    const now = new AbortController();
    const drained = world.consumer.drain(now.signal);
    now.abort();
    await drained;
    expect(await world.store.get(id)).toMatchObject({ state: 'starting', attempt: 1, released: 1 });
    const other = await start({ prefix: world.prefix });
    await other.until(id, ({ attempt }) => attempt === 2);
    // what is wanted holds whoever runs it
    await world.store.change(id, { from: ['starting'], desired: 'stopped' });
    await other.until(id, is('canceled'));
  });

  it('of one recording alone takes no second one, and is spent when that is over', async () => {
    const world = await start({ slots: 1, leaveAfter: 1 });
    const [first, second] = [await world.queue('normal'), await world.queue('normal')];
    await world.until(first, is('recording'));
    expect(world.consumer.counts()).toMatchObject({ active: 1, room: 0, draining: false });
    await world.store.change(first, { from: ['recording'], desired: 'stopped' });
    await world.consumer.spent;
    expect(await world.store.get(first)).toMatchObject({ state: 'finishing' });
    const other = await start({ prefix: world.prefix });
    await other.until(second, is('recording'));
    expect(world.consumer.counts().begun).toBe(1);
  });

  it('that gets a job for the second time ends it quietly', async () => {
    const world = await start({ slots: 2 });
    const id = await world.queue('normal');
    const before = await world.until(id, is('recording'));
    const queue = createRecordQueue(world.redis, world.prefix, () => {});
    await queue.add('record', before.job, againJobOptions(id, 1));
    await eventually(() => world.lines.some((line) => line.includes('recording is not to be run')));
    await world.until(id, ({ stats }) => (stats?.bytes ?? 0) > (before.stats?.bytes ?? 0) + 1000);
    expect(await world.store.get(id)).toMatchObject({ state: 'recording', attempt: 1 });
    expect(await queue.getJob(`${id}-1`)).toBeUndefined();
  });
});

describe('an attempt that ends with an error', () => {
  let world: World;
  beforeEach(async () => {
    world = await start();
  });

  it('of the page before anything is stored is the last, unless another may do better', async () => {
    expect(await world.until(await world.queue('fails'), is('failed'))).toMatchObject({ attempt: 1, error: { code: 'target_dns' } });
    expect(await world.until(await world.queue('unreachable'), is('failed'))).toMatchObject({ attempt: 8, error: { code: 'target_unreachable' } });
  }, 15_000);

  it('of the page once something is stored is not', async () => {
    const id = await world.queue('fails-again');
    const third = await world.until(id, ({ attempt, state }) => attempt === 3 && state === 'recording');
    expect(third.warnings).toEqual(expect.arrayContaining(['Attempt 1 ended: page_crashed: it is page_crashed', 'Attempt 2 ended: target_dns: it is target_dns']));
  });

  it('that another would meet too ends the recording, and what is stored is kept', async () => {
    const id = await world.queue('backlog');
    expect(await world.until(id, is('finishing'))).toMatchObject({ attempt: 1, error: { code: 'media_backlog' }, stats: { bytes: 1000 } });
    await eventually(async () => (await world.finishing()).includes(`${id} finish`));
  });

  it('while it was being stopped is a warning', async () => {
    const id = await world.queue('crashes-at-the-end');
    await world.until(id, ({ stats }) => (stats?.bytes ?? 0) > 0);
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    const record = await world.until(id, is('finishing'));
    expect(record.error).toBeUndefined();
    expect(record.warnings).toContain('Attempt 1 ended: page_crashed: it is page_crashed');
  });

  it.each(['stopped', 'canceled'] as const)('with nothing stored, of one that was %s unheard at that moment, is not its end', async (desired) => {
    const deaf = await start({ times: { beat: 60_000 } });
    const id = await deaf.queue('fails-late');
    await eventually(async () => (await deaf.messages(id)).some((line) => line.startsWith('process ')));
    // written, and its signal lost
    await deaf.redis.hset(`${deaf.prefix}:r:${id}`, 'desired', desired);
    const record = await deaf.until(id, ({ state }) => state === 'canceled' || state === 'failed');
    expect(record).toMatchObject({ state: 'canceled', desired });
    expect(record.error).toBeUndefined();
  });

  it.each([
    ['before its first picture, it is canceled', 'crashes-unseen', 'canceled', null],
    ['and nothing of it could be stored, it has failed', 'unstored', 'failed', 'media_unreachable'],
    ['and nothing of it was acknowledged, what is stored tells', 'unacknowledged', 'finishing', 'media_unreachable'],
  ] as const)('while it was being stopped %s', async (_name, behaviour, state, code) => {
    const id = await world.queue(behaviour);
    await eventually(async () => (await world.messages(id)).some((line) => line.startsWith('process ')));
    if (code !== null) await world.until(id, is('recording'));
    await world.store.change(id, { from: ['starting', 'recording'], desired: 'stopped' });
    const record = await world.until(id, ({ state: now }) => now !== 'starting' && now !== 'recording');
    expect([record.state, record.error?.code ?? null]).toEqual([state, code]);
  });

  it('waits for the next one, during which a stop holds', async () => {
    const patient = await start({ times: { firstRetry: 60_000, lastRetry: 60_000 } });
    const id = await patient.queue('unreachable');
    await patient.until(id, ({ released }) => released === 1);
    await patient.store.change(id, { from: ['starting'], desired: 'stopped' });
    // whoever looks finds it at once, rather than when the next attempt is due
    expect((await patient.store.overdue(10, 1000)).map((one) => one.id)).toEqual([id]);
  });
});

describe('a pause', () => {
  let world: World;
  beforeEach(async () => {
    world = await start();
  });
  const want = (id: string, desired: 'paused' | 'recording' | 'stopped') => world.store.change(id, { from: ['starting', 'recording', 'paused'], desired });
  const rest = () => new Promise((resolve) => setTimeout(resolve, 200));

  it('is cut out of the timeline, as often as it is asked for', async () => {
    const id = await world.queue('normal');
    const { startedAt = 0 } = await world.until(id, is('recording'));
    for (let i = 1; i <= 2; i += 1) {
      await want(id, 'paused');
      const paused = await world.until(id, is('paused'));
      expect(paused.pausedAt).toBeGreaterThan(startedAt);
      await rest();
      await want(id, 'recording');
      const resumed = await world.until(id, is('recording'));
      expect(resumed.pausedAt).toBeUndefined();
      expect(resumed.pauses).toHaveLength(i);
      const last = resumed.pauses?.at(-1);
      expect(last?.duration).toBeGreaterThan(0.19);
      expect(last?.at).toBeCloseTo(((paused.pausedAt ?? 0) - startedAt - (paused.pausedMs ?? 0)) / 1000, 6);
      expect(resumed.pausedMs).toBe(Math.round((resumed.pauses ?? []).reduce((sum, { duration }) => sum + duration * 1000, 0)));
    }
    await want(id, 'paused');
    await world.until(id, is('paused'));
    await want(id, 'stopped');
    const end = await world.until(id, is('finishing'));
    expect(end.duration).toBeCloseTo(((end.pausedAt ?? 0) - startedAt - (end.pausedMs ?? 0)) / 1000, 2);
    expect(end.error).toBeUndefined();
  });

  it('and its end that come one upon the other are both asked about, also where Redis is slow to answer', async () => {
    const quiet = await start({ times: { beat: 60_000, silent: 120_000 } });
    const id = await quiet.queue('restless');
    await quiet.until(id, is('recording'));
    const { beat } = quiet.store;
    let asked = 0;
    quiet.store.beat = async (...about) => {
      asked += 1;
      const answer = await beat(...about);
      await new Promise((resolve) => setTimeout(resolve, 300));
      return answer;
    };
    const change = (desired: 'paused' | 'recording') => quiet.store.change(id, { from: ['starting', 'recording', 'paused'], desired });
    await change('paused');
    await eventually(() => asked === 1);
    await change('recording');
    // a process that takes its time to rest says nothing that would make it look again, and no beat would for a minute
    await eventually(() => asked === 2);
    await eventually(() => quiet.lines.some((line) => line.includes('something else is wanted') && line.includes('"wanted":"recording"')));
  });

  it('lasts whatever becomes of the process meanwhile', async () => {
    const id = await world.queue('normal');
    await world.until(id, is('recording'));
    await want(id, 'paused');
    const paused = await world.until(id, is('paused'));
    const pid = Number((await world.messages(id)).find((line) => line.startsWith('process '))?.slice(8));
    process.kill(pid, 'SIGKILL');
    const again = await world.until(id, ({ attempt, state }) => attempt === 2 && state === 'paused');
    expect(again).toMatchObject({ pausedAt: paused.pausedAt, startedAt: paused.startedAt });
    await want(id, 'recording');
    const resumed = await world.until(id, is('recording'));
    expect(resumed.pauses).toHaveLength(1);
    expect(resumed.pausedMs).toBeGreaterThanOrEqual(again.pausedMs ?? 0);
    expect(resumed).toMatchObject({ attempt: 2, startedAt: paused.startedAt });
  });

  it('that was asked for while nobody ran the recording begins with the next attempt', async () => {
    const id = await world.queue('', { unqueued: true });
    const startedAt = Date.now() - 30_000;
    await world.store.claim(id);
    await world.store.change(id, { from: ['starting'], to: 'recording', startedAt, stats: { ...noStats, bytes: 5000 }, duration: 12, attempt: 1 });
    await want(id, 'paused');
    await world.redis.zadd(`${world.prefix}:beats`, 0, id);
    await world.queue('', { id });
    const paused = await world.until(id, is('paused'));
    expect(paused.attempt).toBe(2);
    expect((paused.pausedAt ?? 0) - startedAt).toBeGreaterThanOrEqual(30_000);
    expect(paused.duration).toBeGreaterThanOrEqual(12);
    await want(id, 'stopped');
    await world.until(id, is('finishing'));
  });

  it('before the first picture cuts nothing out', async () => {
    const id = await world.queue('', { unqueued: true });
    await world.store.change(id, { from: ['queued'], desired: 'paused' });
    await world.queue('', { id });
    const paused = await world.until(id, is('paused'));
    expect(paused).not.toHaveProperty('startedAt');
    expect(paused).not.toHaveProperty('pausedAt');
    await want(id, 'recording');
    const recording = await world.until(id, is('recording'));
    expect(recording.pauses).toBeUndefined();
    expect(recording.startedAt).toBeGreaterThan(Date.now() - 5000);
  });
});

describe.skipIf(!hasRedisServer)('without Redis for a while', () => {
  let own: RealRedis;
  beforeEach(async () => {
    own = await realRedis();
    await own.start();
    closers.push(() => own[Symbol.asyncDispose]());
  });

  it('a recording goes on, and what became of it is written later', async () => {
    const world = await start({ redis: own });
    const id = await world.queue('normal');
    const before = await world.until(id, (record) => record.state === 'recording' && (record.stats?.bytes ?? 0) > 0);
    await own.kill();
    await new Promise((resolve) => setTimeout(resolve, 1000)); // longer than every bound of this test but silence
    await own.start();
    const after = await world.until(id, (record) => (record.stats?.bytes ?? 0) > (before.stats?.bytes ?? 0) + 5000);
    expect(after).toMatchObject({ state: 'recording', attempt: 1 });
    await world.store.change(id, { from: ['recording'], desired: 'stopped' });
    await world.until(id, is('finishing'));
    await eventually(async () => (await world.finishing()).includes(`${id} finish`));
  }, 15_000);

  it('a recording that ends meanwhile is not forgotten', async () => {
    const world = await start({ redis: own });
    const id = await world.queue('crashes');
    await world.until(id, is('recording'));
    await own.kill();
    await eventually(() => world.pool.ready() === 1); // its process is gone and another is there
    await own.start();
    const record = await world.until(id, ({ attempt, state }) => attempt === 2 && state === 'recording');
    expect(record.warnings).toEqual(expect.arrayContaining([expect.stringMatching(/^Attempt 1 ended: worker_lost/)]));
  }, 15_000);
});

describe.skipIf(!hasRedisServer)('a worker without room', () => {
  it('fetches no job, gives back what was on its way before all that wait, and goes on once there is room', async () => {
    let limit = 2;
    const pids: (() => number | null)[] = [];
    let seats = 0;
    const admission = { limit: () => limit, begin: (pid: () => number | null) => (pids.push(pid), (seats += 1), { over: () => (seats -= 1) }) };
    const world = await start({ slots: 3, admission });
    const running = await world.queue('records');
    await world.until(running, ({ state }) => state === 'recording');
    expect(pids[0]?.()).toBeGreaterThan(1);
    // the fetch of a second one is on its way, and blocks
    limit = 1;
    world.consumer.limitChanged();
    expect(world.consumer.counts().room).toBe(0);
    const given = await world.queue('records');
    for (const end = Date.now() + 8000; Date.now() < end && !world.lines.some((line) => line.includes('job is given back')); ) await sleep(20);
    const later = await world.queue('records');
    const interrupted = await world.queue('records', { unqueued: true });
    const queue = createRecordQueue(world.redis, world.prefix, () => {});
    const record = await world.store.get(interrupted);
    await queue.add('record', (record as RecordingRecord).job, againJobOptions(interrupted, 1));
    await sleep(500);
    expect(world.consumer.counts()).toMatchObject({ active: 1, begun: 1 });
    // next is taken from the end
    expect(await world.redis.lrange(`${world.prefix}:record:wait`, '0', '-1')).toEqual([later, given, `${interrupted}-1`]);
    limit = 2;
    world.consumer.limitChanged();
    await world.until(interrupted, ({ state }) => state === 'recording');
    limit = 3;
    world.consumer.limitChanged();
    await world.until(given, ({ state }) => state === 'recording');
    expect(world.consumer.counts()).toMatchObject({ active: 3, begun: 3, room: 0 });
    expect((await world.store.get(later))?.state).toBe('queued');
    await world.store.change(running, { from: ['recording'], desired: 'stopped' });
    await world.until(later, ({ state }) => state === 'recording');
    expect(seats).toBe(3);
    expect(world.consumer.text()).toContain('tabreel_queue_wait_seconds_count 4');
    expect(world.consumer.isAlive()).toBe(true);
    await queue.close();
  });
});
