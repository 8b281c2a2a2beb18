import { Worker } from 'bullmq';
import type { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { TabreelError } from '../../shared/errors.ts';
import { newFinishJob } from '../../shared/job.ts';
import { createLog } from '../../shared/log.ts';
import { createFinishQueue, createRecordQueue, FINISH_QUEUE, finishJobOptions, patientRedis, RECORD_QUEUE } from '../../shared/queue.ts';
import { startReconciler, type Reconciler, type ReconcilerTimes } from '../../shared/reconciler.ts';
import { createRecordingStore } from '../../shared/recording-store.ts';
import { newRecordingId, noStats, type DesiredState } from '../../shared/recording.ts';
import { helpsToRetry, retryDelay } from '../../shared/recovery.ts';
import { hasRedisServer, realRedis, startRedis, type TestRedis } from '../helpers/redis.ts';
import { someJob } from './some-job.ts';

const quick: ReconcilerTimes = { look: 40, steady: 150, slow: 300, hold: 200, round: 80, jobless: 0, removing: 0, taken: 1000, discard: 0 };

let server: TestRedis;
beforeAll(async () => {
  server = await startRedis();
});
afterAll(() => server[Symbol.asyncDispose]());
let closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

let count = 0;
function open(redisServer: TestRedis = server) {
  count += 1;
  const prefix = `tabreel-rc${count}`;
  const connect = (): Redis => {
    const client = patientRedis(redisServer, () => {});
    closers.push(() => client.disconnect());
    return client;
  };
  const redis = connect();
  const store = createRecordingStore(redis, prefix);
  const recordQueue = createRecordQueue(redis, prefix, () => {});
  const finishQueue = createFinishQueue(redis, prefix, () => {});
  const lines: string[] = [];
  const log = createLog('info', (line) => lines.push(line));
  const names = async (queue: typeof recordQueue | typeof finishQueue) => (await queue.getJobs(['waiting', 'delayed', 'prioritized', 'active'])).map((job) => job.id ?? '');
  return {
    prefix, redis, store, recordQueue, finishQueue, lines, connect,
    queued: () => names(recordQueue),
    finishing: () => names(finishQueue),
    reconcile(times: Partial<ReconcilerTimes> = {}, retention: number | null = null): Reconciler {
      const own = connect();
      const reconciler = startReconciler({
        redis: own,
        store: createRecordingStore(own, prefix),
        recordQueue: createRecordQueue(own, prefix, () => {}),
        finishQueue: createFinishQueue(own, prefix, () => {}),
        retention,
        log,
        times: { ...quick, ...times },
      });
      closers.push(() => reconciler[Symbol.asyncDispose]());
      return reconciler;
    },
    async create(more: { priority?: number; startAt?: string } = {}): Promise<string> {
      const id = newRecordingId();
      const origin = { scheme: 'https', host: 'rec.example.com', port: null, source: 'socket' } as const;
      await store.create({ job: someJob(id), origin, metadata: {}, priority: 0, startAt: null, ...more, now: Date.now(), idempotency: null });
      return id;
    },
    /** One whose worker has been silent for a second. */
    async lost(more: { desired?: DesiredState; startedAt?: number; futile?: number } = {}): Promise<string> {
      const id = await this.create();
      await store.claim(id);
      if (more.startedAt !== undefined) await store.change(id, { from: ['starting'], to: 'recording', startedAt: more.startedAt, attempt: 1 });
      if (more.desired !== undefined) await store.change(id, { from: ['starting', 'recording'], desired: more.desired });
      if (more.futile !== undefined) await redis.hset(`${prefix}:r:${id}`, 'futile', more.futile);
      await redis.zadd(`${prefix}:beats`, Date.now() - 1000, id);
      return id;
    },
  };
}

async function eventually(what: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 4000; Date.now() < end; ) {
    if (await what()) return;
    await pause(20);
  }
  throw new Error('it did not come about');
}
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

describe('a recording whose worker died', () => {
  it('is queued once, however many look', async () => {
    const world = open();
    const ids = await Promise.all(Array.from({ length: 5 }, () => world.lost({ startedAt: Date.now() - 10_000 })));
    const alive = await world.create();
    await world.store.claim(alive);
    for (let i = 0; i < 10; i += 1) world.reconcile();
    await eventually(async () => (await world.queued()).length >= 5);
    await pause(500);
    expect((await world.queued()).toSorted()).toEqual(ids.map((id) => `${id}-2`).toSorted());
    expect(world.lines.filter((line) => line.includes('next attempt is queued'))).toHaveLength(5);
    // whoever takes the job has it
    expect(await world.store.claim(ids[0] as string)).toMatchObject({ attempt: 2 });
  });

  it('is queued again where who took the job died before he claimed the recording', async () => {
    const world = open();
    const id = await world.lost();
    const taken = Promise.withResolvers<void>();
    const worker = new Worker(RECORD_QUEUE, () => taken.promise, { connection: world.connect(), prefix: world.prefix });
    closers.push(async () => {
      taken.resolve();
      await worker.close();
    });
    world.reconcile({ taken: 1500 });
    await eventually(async () => (await world.recordQueue.getJobState(`${id}-2`)) === 'active');
    await eventually(async () => (await world.queued()).some((name) => name.startsWith(`${id}-2-`)));
  });

  it.each([
    ['is to be stopped', { desired: 'stopped' }, { state: 'finishing' }, 'finish'],
    ['has no time left', { startedAt: 1 }, { state: 'finishing' }, 'finish'],
    ['was lost eight times', { futile: 8 }, { state: 'finishing', error: { code: 'worker_lost' } }, 'finish'],
    ['is canceled', { desired: 'canceled' }, { state: 'canceled' }, 'discard'],
    ['is deleted', { desired: 'deleted' }, { state: 'canceled' }, 'remove'],
  ] as const)('and that %s is led to its end', async (_what, more, expected, action) => {
    const world = open();
    const id = await world.lost(more);
    for (let i = 0; i < 3; i += 1) world.reconcile();
    await eventually(async () => (await world.store.get(id))?.state === expected.state);
    const record = await world.store.get(id);
    expect(record).toMatchObject(expected);
    if (!('error' in expected)) expect(record?.error).toBeUndefined();
    await eventually(async () => (await world.finishing()).length > 0);
    await pause(200);
    expect(await world.finishing()).toEqual([`${id}-${action}`]);
    expect(await world.queued()).toEqual([]);
    expect(await world.redis.zcard(`${world.prefix}:beats`)).toBe(0);
  });

  it('goes on by itself where it only was late', async () => {
    const world = open();
    const id = await world.lost();
    world.reconcile();
    await eventually(async () => (await world.queued()).length === 1);
    expect(await world.store.beat(id, 1, { stats: noStats, duration: 1, stored: true })).toMatchObject({ outcome: 'changed' });
    expect(await world.store.claim(id)).toBeNull();
  });
});

describe('what nobody works on', () => {
  it('is queued: without a job, finishing, deleted, kept for long enough; also where a job of that name is over', async () => {
    const world = open();
    const [jobless, late, finishing, tried, deleted, kept, young] = [
      await world.create(), await world.create(), await world.create(), await world.create(), await world.create(), await world.create(), await world.create(),
    ];
    await world.store.change(late, { from: ['queued'], to: 'canceled', desired: 'stopped' });
    for (const id of [finishing, tried]) {
      await world.store.claim(id);
      await world.store.change(id, { from: ['starting'], to: 'finishing' });
    }
    await world.store.change(deleted, { from: ['queued'], to: 'canceled', desired: 'deleted' });
    for (const id of [kept, young]) await world.store.change(id, { from: ['queued'], to: 'canceled', desired: 'stopped' });
    await world.redis.zadd(`${world.prefix}:ended`, Date.now() - 3_600_000, kept);
    // finish jobs that are over, one well and one not, and whose outcome was never written
    await world.finishQueue.add('finish', newFinishJob(finishing, 'finish'), finishJobOptions(finishing, 'finish'));
    await world.finishQueue.add('finish', newFinishJob(tried, 'finish'), { ...finishJobOptions(tried, 'finish'), attempts: 1 });
    const worker = new Worker(FINISH_QUEUE, async (job) => { if (job.data.recordingId === tried) throw new TabreelError('internal', 'no'); }, {
      connection: world.connect(), prefix: world.prefix,
    });
    await eventually(async () => (await world.finishQueue.getJobState(`${tried}-finish`)) === 'failed' && (await world.finishQueue.getJobState(`${finishing}-finish`)) === 'completed');
    await worker.close();

    for (let i = 0; i < 3; i += 1) world.reconcile({}, i === 0 ? 1800 : null);
    const wanted = [`${deleted}-remove`, `${finishing}-finish`, `${kept}-remove`, `${tried}-finish`].toSorted();
    await eventually(async () => (await world.finishing()).length >= wanted.length && (await world.queued()).length > 0);
    await pause(300);
    expect((await world.finishing()).toSorted()).toEqual(wanted);
    expect(await world.queued()).toEqual([jobless]);
    expect((await world.store.get(kept))?.desired).toBe('deleted');
    expect((await world.store.get(young))?.desired).toBe('stopped');
    expect(await world.store.since('jobless', 0, 10)).toEqual([]);
  });

  it('is queued by its priority, and for its time', async () => {
    const world = open();
    const first = await world.create({ priority: 9 });
    const later = await world.create({ priority: 3, startAt: new Date(Date.now() + 3_600_000).toISOString() });
    world.reconcile();
    await eventually(async () => (await world.queued()).length === 2);
    expect(await world.recordQueue.getJobState(first)).toBe('prioritized');
    expect((await world.recordQueue.getJob(first))?.opts.priority).toBe(9);
    expect(await world.recordQueue.getJobState(later)).toBe('delayed');
    const { priority, delay } = (await world.recordQueue.getJob(later))?.opts ?? {};
    expect({ priority, inAnHour: Math.abs((delay ?? 0) - 3_600_000) < 5000 }).toEqual({ priority: 3, inAnHour: true });
  });
});

describe.skipIf(!hasRedisServer)('after Redis was away', () => {
  it.each(['frozen', 'killed'])('and was %s, nobody is taken for dead until all had time to say that they live', async (how) => {
    const redis = await realRedis();
    await redis.start();
    closers.push(() => redis[Symbol.asyncDispose]());
    const world = open(redis);
    const reconciler = world.reconcile({ steady: 600, look: 100 });
    await eventually(() => reconciler.steady());
    const id = await world.create();
    await world.store.claim(id);
    // as if Redis had been away for longer than the beat holds
    await world.redis.zadd(`${world.prefix}:beats`, Date.now() + 300, id);
    if (how === 'frozen') redis.freeze();
    else await redis.kill();
    await pause(600);
    expect(reconciler.steady()).toBe(false);
    if (how === 'frozen') redis.thaw();
    else await redis.start();
    // a worker comes back a little later than the reconciler
    await world.store.deadlines();
    await pause(300);
    expect(reconciler.steady()).toBe(false);
    expect(await world.store.claim(id, reconciler.steady())).toBeNull();
    await world.store.beat(id, 1, null);
    await eventually(() => reconciler.steady());
    await pause(200);
    expect(await world.queued()).toEqual([]);
    expect(await world.store.get(id)).toMatchObject({ attempt: 1 });
  });
});

describe('the rules of trying again', () => {
  const error = (code: 'target_dns' | 'target_unreachable' | 'media_backlog' | 'storage_full' | 'start_selector_invalid' | 'page_crashed' | 'media_tls_expired') =>
    new TabreelError(code, code).toRecordingError();

  it('a bad target fails at once, unless something is kept already', () => {
    expect(helpsToRetry(error('target_dns'), false)).toBe(false);
    expect(helpsToRetry(error('target_dns'), true)).toBe(true);
    expect(helpsToRetry(error('media_tls_expired'), false)).toBe(false);
    for (const code of ['target_unreachable', 'page_crashed'] as const) expect(helpsToRetry(error(code), false)).toBe(true);
    for (const code of ['media_backlog', 'storage_full', 'start_selector_invalid'] as const) {
      expect([helpsToRetry(error(code), false), helpsToRetry(error(code), true)]).toEqual([false, false]);
    }
  });

  it('waits longer each time in a row that nothing was stored, half of it by chance', () => {
    expect(retryDelay(0)).toBe(0);
    for (const [futile, most] of [[1, 500], [2, 1000], [3, 2000], [7, 30_000], [100, 30_000]] as const) {
      for (let i = 0; i < 50; i += 1) {
        expect(retryDelay(futile)).toBeGreaterThanOrEqual(most / 2);
        expect(retryDelay(futile)).toBeLessThanOrEqual(most);
      }
    }
  });
});
