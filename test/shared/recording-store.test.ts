import type { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { patientRedis } from '../../shared/queue.ts';
import { ALIVE_MS, createRecordingStore, statsOf, type RecordingStore } from '../../shared/recording-store.ts';
import { newRecordingId, noStats, recordingStates, type RecordingState } from '../../shared/recording.ts';
import { redisServers, type TestRedis } from '../helpers/redis.ts';
import { someJob } from './some-job.ts';

for (const { server, start, there } of redisServers) {
  describe.skipIf(!there)(`the record of recordings, in ${server}`, () => {
    let running: TestRedis;
    let redis: Redis;
    let admin: Redis;
    beforeAll(async () => {
      running = await start();
      redis = patientRedis(running, () => undefined);
      admin = patientRedis(running.admin, () => undefined);
    });
    afterAll(async () => {
      redis.disconnect();
      admin.disconnect();
      await running[Symbol.asyncDispose]();
    });

    let prefixes = 0;
    /** A store with nothing in it. */
    const empty = () => {
      prefixes += 1;
      const prefix = `tabreel-t${prefixes}`;
      return { prefix, store: createRecordingStore(redis, prefix) };
    };
    const create = async (store: RecordingStore, { id = newRecordingId(), now = Date.now() } = {}): Promise<string> => {
      await store.create({ ...fields(id), now });
      return id;
    };
    const fields = (id: string) => ({
      job: someJob(id),
      origin: { scheme: 'https', host: 'rec.example.com', port: null, source: 'socket' } as const,
      metadata: { order: '17', 'a b': 'ü' },
      priority: 5,
      startAt: null,
      now: 1_753_900_000_000,
      idempotency: null,
    });
    /** What five silent seconds do. */
    const loseHeartbeat = async (prefix: string, id: string) => {
      expect(await redis.zadd(`${prefix}:beats`, 'CH', Date.now() - 1, id)).toBe(1);
    };
    const kinds = async (store: RecordingStore, id: string) =>
      (await store.events(id, '0')).map(({ type, data }) => {
        const parsed = JSON.parse(data) as { state?: string; message?: string };
        return `${type} ${parsed.state ?? parsed.message ?? ''}`.trim();
      });

    test('gives back what was created', async () => {
      const { store } = empty();
      const id = newRecordingId();
      const startAt = '2030-01-01T00:00:00.000Z';
      expect(await store.create({ ...fields(id), startAt })).toEqual({ outcome: 'created', id });
      const record = await store.get(id);
      expect(record).toEqual({
        id,
        state: 'queued',
        desired: 'recording',
        attempt: 0,
        job: someJob(id),
        origin: fields(id).origin,
        metadata: { order: '17', 'a b': 'ü' },
        priority: 5,
        createdAt: 1_753_900_000_000,
        startAt,
        warnings: [],
        pushes: {},
      });
      expect(record && statsOf(record)).toEqual(noStats);
      expect(await kinds(store, id)).toEqual(['state queued']);
      expect(await store.get(newRecordingId())).toBeNull();
    });

    test('creates once for one Idempotency-Key, whoever comes first', async () => {
      const { store } = empty();
      const ids = Array.from({ length: 20 }, () => newRecordingId());
      const idempotency = { key: 'key', bodyHash: 'body' };
      const results = await Promise.all(ids.map((id) => store.create({ ...fields(id), idempotency })));
      const created = results.filter(({ outcome }) => outcome === 'created');
      expect(created).toHaveLength(1);
      const [first] = created;
      const id = first?.outcome === 'created' ? first.id : '';
      expect(new Set(results.map((result) => ('id' in result ? result.id : null)))).toEqual(new Set([id]));
      expect((await store.list({ limit: 100 })).items.map((item) => item.id)).toEqual([id]);

      expect(await store.create({ ...fields(newRecordingId()), idempotency: { key: 'key', bodyHash: 'another' } })).toEqual({ outcome: 'conflict' });
      const other = newRecordingId();
      expect(await store.create({ ...fields(other), idempotency: { key: 'key2', bodyHash: 'body' } })).toEqual({ outcome: 'created', id: other });
      expect((await store.counts()).queued).toBe(2);
    });

    test('lets one of a hundred workers have a recording', async () => {
      const { store, prefix } = empty();
      const id = await create(store);
      const clients = Array.from({ length: 4 }, () => patientRedis(running, () => undefined));
      try {
        const stores = clients.map((client) => createRecordingStore(client, prefix));
        const claims = await Promise.all(Array.from({ length: 100 }, (_, i) => (stores[i % 4] as RecordingStore).claim(id)));
        expect(claims.flatMap((claim) => (claim === null ? [] : [claim.attempt]))).toEqual([1]);
      } finally {
        for (const client of clients) client.disconnect();
      }
      expect(await store.get(id)).toMatchObject({ state: 'starting', attempt: 1 });
      expect(await kinds(store, id)).toEqual(['state queued', 'state starting']);
    });

    test('a stop and a start at the same moment: one of them holds', async () => {
      const { store } = empty();
      for (let i = 0; i < 20; i += 1) {
        const id = await create(store);
        const stop = () => store.change(id, { from: ['queued'], to: 'canceled', desired: 'stopped' });
        const [claim, { outcome }] = await (i % 2 === 0
          ? Promise.all([store.claim(id), stop()])
          : Promise.all([stop(), store.claim(id)]).then(([stopped, claimed]) => [claimed, stopped] as const));
        expect([claim?.attempt, outcome]).toEqual(claim === null ? [undefined, 'changed'] : [1, 'refused']);
        expect((await store.get(id))?.state).toBe(claim === null ? 'canceled' : 'starting');
      }
    });

    test('a recording that nobody is to run is claimed by nobody', async () => {
      const { store } = empty();
      expect(await store.claim(newRecordingId())).toBeNull();
      const stopped = await create(store);
      await store.change(stopped, { from: ['queued'], desired: 'stopped' });
      expect(await store.claim(stopped)).toBeNull();
      const canceled = await create(store);
      await store.change(canceled, { from: ['queued'], to: 'canceled' });
      expect(await store.claim(canceled)).toBeNull();
      expect((await store.get(canceled))?.attempt).toBe(0);
    });

    test('an attempt that beats keeps its recording; one that stops is taken over and can do no harm', async () => {
      const { store, prefix } = empty();
      const id = await create(store);
      expect(await store.claim(id)).toMatchObject({ attempt: 1 });
      await store.change(id, { from: ['starting'], to: 'recording', attempt: 1, engine: 'tab', startedAt: 1000 });
      const stats = { ...noStats, frames: 30, fps: 29.97 };
      expect(await store.beat(id, 1, { stats, duration: 1.25, stored: true })).toEqual({ outcome: 'changed', state: 'recording', desired: 'recording' });
      const left = Number(await redis.zscore(`${prefix}:beats`, id)) - Date.now();
      expect(left).toBeGreaterThan(ALIVE_MS - 1000);
      expect(left).toBeLessThanOrEqual(ALIVE_MS);
      expect(await store.claim(id)).toBeNull();
      expect(await store.get(id)).toMatchObject({ stats, duration: 1.25, engine: 'tab', startedAt: 1000 });

      await loseHeartbeat(prefix, id);
      expect(await store.claim(id)).toMatchObject({ attempt: 2 });
      // the first one was only frozen
      expect(await store.beat(id, 1, { stats: noStats, duration: 99, stored: true })).toEqual({ outcome: 'fenced', state: 'starting', desired: 'recording' });
      expect(await store.change(id, { from: ['starting', 'recording'], to: 'finishing', attempt: 1 })).toEqual({ outcome: 'fenced', state: 'starting', desired: 'recording' });
      expect(await store.get(id)).toMatchObject({ state: 'starting', attempt: 2, duration: 1.25 });
      // and does not keep the second one's place warm
      await loseHeartbeat(prefix, id);
      expect(await store.beat(id, 1, null)).toMatchObject({ outcome: 'fenced' });
      expect(await store.claim(id)).toMatchObject({ attempt: 3 });
      expect(await store.change(id, { from: ['starting'], to: 'recording', attempt: 3 })).toMatchObject({ outcome: 'changed' });
      expect(await kinds(store, id)).toEqual(['state queued', 'state starting', 'state recording', 'stats', 'state starting', 'state recording']);
    });

    test('an attempt that gives its recording up leaves it to the next, from then on', async () => {
      const { store, prefix } = empty();
      const id = await create(store);
      await store.claim(id);
      await store.change(id, { from: ['starting'], to: 'recording', attempt: 1, startedAt: 1000 });
      const told = { stats: { ...noStats, bytes: 7 }, duration: 3, stored: true };
      expect(await store.release(id, 1, 60_000, told)).toEqual({ outcome: 'changed', state: 'starting', desired: 'recording' });
      // once more, as where the answer was lost
      expect(await store.release(id, 1, 60_000, told)).toMatchObject({ outcome: 'changed' });
      expect(await store.get(id)).toMatchObject({ released: 1, futile: 0, stats: { bytes: 7 }, duration: 3 });
      expect(await store.overdue(10, 1000)).toEqual([]);
      expect(await store.beat(id, 1, null)).toMatchObject({ outcome: 'fenced' });
      expect(await store.claim(id, false)).toMatchObject({ attempt: 2 });
      expect(await store.get(id)).toMatchObject({ futile: 1 });
      expect((await store.get(id))?.released).toBeUndefined();
      expect(await store.release(id, 1, 0, null)).toMatchObject({ outcome: 'fenced' });
      await store.warn(id, 'late', 'of a lost worker', 1);
      await store.log(id, 'of a lost worker', 1);
      expect((await store.get(id))?.warnings).toEqual([]);

      // a stop between two attempts is seen to at once
      await store.release(id, 2, 60_000, null);
      expect((await store.deadlines()).overdue).toBe(0);
      await store.change(id, { from: ['starting'], desired: 'stopped' });
      expect((await store.deadlines()).overdue).toBe(1);
      expect(await store.claim(id)).toBeNull();
      expect(await store.release(newRecordingId(), 1, 0, null)).toMatchObject({ outcome: 'missing' });
      await store.change(id, { from: ['starting'], to: 'finishing' });
      expect(await store.release(id, 2, 0, null)).toMatchObject({ outcome: 'refused', state: 'finishing' });
      expect(await redis.zcard(`${prefix}:beats`)).toBe(0);
      expect(await kinds(store, id)).toEqual(['state queued', 'state starting', 'state recording', 'state starting', 'state finishing']);
    });

    test('a stop is waited for less long than a beat, where nobody answers it', async () => {
      const { store, prefix } = empty();
      const id = await create(store);
      await store.claim(id);
      const deadline = async () => Number(await redis.zscore(`${prefix}:beats`, id));
      const far = (await store.deadlines()).now + 60_000;
      await redis.zadd(`${prefix}:beats`, far, id);
      await store.change(id, { from: ['starting'], desired: 'paused' });
      expect(await deadline()).toBe(far);
      await store.change(id, { from: ['starting'], desired: 'stopped' });
      const stopped = await deadline();
      expect(stopped).toBeLessThanOrEqual((await store.deadlines()).now + 3000);
      // who lives answers
      await store.beat(id, 1, null);
      expect(await deadline()).toBeGreaterThan(stopped);
      await loseHeartbeat(prefix, id);
      await store.change(id, { from: ['starting'], desired: 'canceled' });
      expect((await store.deadlines()).overdue).toBe(1);
    });

    test('one that only stopped beating is claimed by those alone who know that it is dead', async () => {
      const { store, prefix } = empty();
      const id = await create(store);
      await store.claim(id, false);
      await loseHeartbeat(prefix, id);
      expect(await store.claim(id, false)).toBeNull();
      // the job of another attempt, as of one that was queued before
      expect(await store.claim(id, false, 1)).toBeNull();
      expect(await store.claim(id, false, 3)).toBeNull();
      expect(await store.claim(id, false, 2)).toMatchObject({ attempt: 2 });
      expect(await store.claim(id, true, 3)).toBeNull();
      await loseHeartbeat(prefix, id);
      expect(await store.claim(id, true)).toMatchObject({ attempt: 3 });
    });

    test('of many who look for the overdue one is told of each, and another where that one does nothing', async () => {
      const { store, prefix } = empty();
      expect(await store.deadlines()).toEqual({ now: expect.any(Number), overdue: 0, next: null });
      const ids = await Promise.all(Array.from({ length: 6 }, () => create(store)));
      for (const id of ids) await store.claim(id);
      const { next } = await store.deadlines();
      expect(next).toBeGreaterThan(ALIVE_MS - 2000);
      expect(next).toBeLessThanOrEqual(ALIVE_MS);
      for (const [i, id] of ids.slice(0, 5).entries()) await redis.zadd(`${prefix}:beats`, Date.now() - 10_000 + i * 1000, id);
      expect(await store.deadlines()).toMatchObject({ overdue: 5 });
      const told = (await Promise.all(Array.from({ length: 8 }, () => store.overdue(2, 300)))).flat();
      expect(told.map(({ id }) => id)).toEqual(ids.slice(0, 5));
      expect(told[0]?.late).toBeGreaterThanOrEqual(10_000);
      await new Promise((resolve) => setTimeout(resolve, 350));
      expect((await store.overdue(10, 300)).map(({ id }) => id)).toEqual(ids.slice(0, 5));
      const mine = await Promise.all(Array.from({ length: 5 }, () => store.isMine('task', 200)));
      expect(mine.filter(Boolean)).toHaveLength(1);
    });

    test('a recording that nobody runs is led to its end, unless somebody does after all', async () => {
      const { store, prefix } = empty();
      const error = { code: 'worker_lost', message: 'gone', blame: 'service', retryable: true } as const;
      const id = await create(store);
      await store.claim(id);
      expect(await store.orphan(id, 1, error)).toMatchObject({ outcome: 'fenced', state: 'starting' });
      await loseHeartbeat(prefix, id);
      await store.claim(id);
      await loseHeartbeat(prefix, id);
      expect(await store.orphan(id, 1, error)).toMatchObject({ outcome: 'fenced' });
      expect(await store.orphan(id, 2, error)).toEqual({ outcome: 'changed', state: 'finishing', desired: 'recording' });
      expect(await store.get(id)).toMatchObject({ state: 'finishing', error });
      expect(await store.orphan(id, 2, null)).toMatchObject({ outcome: 'refused' });
      expect(await store.someIn('finishing', 10)).toEqual([id]);
      const gone = newRecordingId();
      await redis.zadd(`${prefix}:beats`, 1, gone);
      expect(await store.orphan(gone, 0, null)).toMatchObject({ outcome: 'missing' });
      expect(await redis.zcard(`${prefix}:beats`)).toBe(0);
    });

    test('moments are marked on the timeline, which stands still in a pause', async () => {
      const { store } = empty();
      const id = await create(store);
      expect(await store.mark(id, 'early')).toEqual({ outcome: 'refused', state: 'queued' });
      await store.claim(id);
      const startedAt = Date.now() - 10_000;
      await store.change(id, { from: ['starting'], to: 'recording', startedAt, pausedMs: 2000, attempt: 1 });
      const running = await store.mark(id, 'one');
      expect(running.outcome === 'changed' && running.at).toBeGreaterThanOrEqual(8);
      await store.change(id, { from: ['recording'], to: 'paused', pausedAt: startedAt + 5000 });
      expect(await store.mark(id, 'two "quoted"')).toEqual({ outcome: 'changed', at: 3 });
      expect((await store.get(id))?.markers).toEqual([{ label: 'one', at: expect.any(Number) }, { label: 'two "quoted"', at: 3 }]);
      await store.change(id, { from: ['paused'], to: 'recording', pausedAt: null });
      expect(await store.get(id)).not.toHaveProperty('pausedAt');
      expect(await store.mark(newRecordingId(), 'none')).toMatchObject({ outcome: 'missing' });
    });

    test('what waits to be seen to is found by its age', async () => {
      const { store } = empty();
      const [without, deleted, over] = [await create(store), await create(store), await create(store)];
      expect(await store.since('jobless', -1000, 2)).toHaveLength(2);
      expect(await store.since('jobless', 60_000, 10)).toEqual([]);
      await store.enqueued(over);
      await store.claim(deleted);
      expect(await store.since('jobless', -1000, 10)).toEqual([without]);
      await store.change(deleted, { from: ['starting'], desired: 'deleted' });
      await store.change(over, { from: ['queued'], to: 'canceled' });
      expect(await store.since('removing', -1000, 10)).toEqual([deleted]);
      expect(await store.since('ended', -1000, 10)).toEqual([over]);
      for (const id of [without, deleted, over]) await store.remove(id);
      for (const set of ['jobless', 'removing', 'ended'] as const) expect(await store.since(set, -1000, 10)).toEqual([]);
    });

    test('a lost attempt of a recording that is no longer wanted is not taken over', async () => {
      const { store, prefix } = empty();
      const id = await create(store);
      await store.claim(id);
      await store.change(id, { from: ['starting'], desired: 'stopped' });
      await loseHeartbeat(prefix, id);
      expect(await store.claim(id)).toBeNull();
      const finishing = await create(store);
      await store.claim(finishing);
      await store.change(finishing, { from: ['starting'], to: 'finishing' });
      await loseHeartbeat(prefix, finishing);
      expect(await store.claim(finishing)).toBeNull();
    });

    test('a stop that comes while the browser boots reaches it with the next beat', async () => {
      const { store } = empty();
      const id = await create(store);
      await store.claim(id);
      expect(await store.change(id, { from: ['starting', 'recording', 'paused'], desired: 'stopped' })).toEqual({ outcome: 'changed', state: 'starting', desired: 'stopped' });
      expect(await store.beat(id, 1, null)).toEqual({ outcome: 'changed', state: 'starting', desired: 'stopped' });
      // and holds when the recording begins after all
      expect(await store.change(id, { from: ['starting'], to: 'recording', attempt: 1 })).toEqual({ outcome: 'changed', state: 'recording', desired: 'stopped' });
    });

    test('watchers hear of every event and of what is wanted', async () => {
      const { store } = empty();
      const id = await create(store);
      const watcher = patientRedis(running, () => undefined);
      try {
        const heard: string[] = [];
        const all = Promise.withResolvers<void>();
        await watcher.subscribe(store.channel(id));
        watcher.on('message', (_channel, kind: string) => {
          heard.push(kind);
          if (heard.length === 7) all.resolve();
        });
        await store.claim(id);
        await store.beat(id, 1, { stats: noStats, duration: 0, stored: true });
        await store.beat(id, 1, null);
        await store.log(id, 'line');
        await store.warn(id, 'deaf', 'no sound');
        await store.warn(id, 'deaf', 'no sound');
        await store.change(id, { from: ['starting'], to: 'finishing', desired: 'stopped' });
        await store.remove(id);
        await all.promise;
        expect(heard).toEqual(['state', 'stats', 'log', 'log', 'desired', 'state', 'state']);
      } finally {
        watcher.disconnect();
      }
    });

    test('a change happens from the states it is meant for only', async () => {
      const { store } = empty();
      const id = await create(store);
      expect(await store.change(id, { from: ['recording', 'paused'], to: 'finishing' })).toEqual({ outcome: 'refused', state: 'queued', desired: 'recording' });
      expect(await store.change(newRecordingId(), { from: ['queued'], to: 'canceled' })).toEqual({ outcome: 'missing', state: null, desired: null });
      await expect(store.change(id, { from: ['queued'], to: 'completed' })).rejects.toThrow("a recording can't go from queued to completed");
      await expect(store.change(id, { from: ['starting', 'failed'], to: 'recording' })).rejects.toThrow(TypeError);
      expect(await kinds(store, id)).toEqual(['state queued']);

      // to where it is already: the fields, and no event
      await store.claim(id);
      await store.change(id, { from: ['starting'], to: 'starting', engine: 'self' });
      expect(await store.get(id)).toMatchObject({ state: 'starting', engine: 'self' });
      expect(await kinds(store, id)).toEqual(['state queued', 'state starting']);
    });

    test('an end has its time, its files or its error', async () => {
      const { store } = empty();
      const done = await create(store);
      await store.claim(done);
      await store.change(done, { from: ['starting'], to: 'finishing' });
      expect(await store.get(done)).not.toHaveProperty('endedAt');
      const files = [{ name: 'recording.mp4', type: 'video/mp4', bytes: 7, sha256: 'ab' }];
      const before = Date.now();
      await store.change(done, { from: ['finishing'], to: 'completed', files, duration: 12.5 });
      const record = await store.get(done);
      expect(record).toMatchObject({ state: 'completed', files, duration: 12.5 });
      expect(record?.endedAt).toBeGreaterThanOrEqual(before);
      expect(await store.change(done, { from: recordingStates, to: 'completed' }).catch((error: unknown) => error)).toBeInstanceOf(TypeError);

      const failed = await create(store);
      const error = { code: 'target_dns', message: 'no "such" host', blame: 'target', retryable: false } as const;
      await store.change(failed, { from: ['queued'], to: 'failed', error, endedAt: 5 });
      expect(await store.get(failed)).toMatchObject({ state: 'failed', error, endedAt: 5 });
      const last = (await store.events(failed, '0')).at(-1);
      expect(JSON.parse(last?.data ?? '')).toEqual({ state: 'failed', at: expect.stringMatching(/^\d{4}-.*Z$/), error });
    });

    test('every recording is counted in one state, and listed in it', async () => {
      const { store } = empty();
      const paths: RecordingState[][] = [
        ['queued'],
        ['queued', 'canceled'],
        ['queued', 'failed'],
        ['queued', 'starting'],
        ['queued', 'starting', 'recording'],
        ['queued', 'starting', 'recording', 'paused'],
        ['queued', 'starting', 'recording', 'paused', 'recording', 'finishing'],
        ['queued', 'starting', 'recording', 'finishing', 'completed'],
        ['queued', 'starting', 'finishing', 'failed'],
      ];
      const ends = new Map<string, RecordingState>();
      for (const path of paths) {
        const id = await create(store);
        for (const [i, to] of path.slice(1).entries()) expect(await store.change(id, { from: [path[i] as RecordingState], to })).toMatchObject({ outcome: 'changed', state: to });
        ends.set(id, path.at(-1) as RecordingState);
      }
      const counts = await store.counts();
      expect(Object.keys(counts)).toEqual(recordingStates);
      for (const state of recordingStates) {
        const ids = [...ends].filter(([, end]) => end === state).map(([id]) => id);
        expect(counts[state], state).toBe(ids.length);
        expect((await store.list({ state, limit: 10 })).items.map(({ id }) => id).toSorted(), state).toEqual(ids.toSorted());
      }
    });

    describe('a list', () => {
      /** Newest first; some were made in the same millisecond. */
      const many = async (store: RecordingStore, count: number): Promise<string[]> => {
        const ids = Array.from({ length: count }, (_, i) => newRecordingId(1_753_900_000_000 + Math.floor(i / 3)));
        await Promise.all(ids.map((id, i) => create(store, { id, now: 1_753_900_000_000 + Math.floor(i / 3) })));
        return ids.toSorted().reverse();
      };

      test('comes in pages, newest first, with nothing twice and nothing left out', async () => {
        const { store } = empty();
        const ids = await many(store, 25);
        expect(await store.list({ limit: 25 })).toMatchObject({ cursor: null });
        const pages: string[][] = [];
        let cursor: string | null = null;
        do {
          const page = await store.list({ limit: 10, ...(cursor === null ? {} : { cursor }) });
          pages.push(page.items.map(({ id }) => id));
          cursor = page.cursor;
          // what begins meanwhile belongs in front
          await create(store, { now: Date.now() });
        } while (cursor !== null);
        expect(pages.map((page) => page.length)).toEqual([10, 10, 5]);
        expect(pages.flat()).toEqual(ids);
      });

      test('of one state goes on in its place when the page before left that state', async () => {
        const { store } = empty();
        const ids = await many(store, 24);
        const first = await store.list({ state: 'queued', limit: 10 });
        expect(first.items.map(({ id }) => id)).toEqual(ids.slice(0, 10));
        // the cursor's own recording, and others of its millisecond
        for (const id of ids.slice(7, 10)) await store.change(id, { from: ['queued'], to: 'canceled' });
        const second = await store.list({ state: 'queued', limit: 10, cursor: first.cursor ?? '' });
        expect(second.items.map(({ id }) => id)).toEqual(ids.slice(10, 20));
        await store.remove(second.cursor ?? '');
        const third = await store.list({ state: 'queued', limit: 10, cursor: second.cursor ?? '' });
        expect(third).toMatchObject({ cursor: null });
        expect(third.items.map(({ id }) => id)).toEqual(ids.slice(20));
        expect(await store.list({ limit: 10, cursor: newRecordingId(0) })).toEqual({ items: [], cursor: null });
      });
    });

    test('who was cut off from the events goes on where he was', async () => {
      const { store } = empty();
      const id = await create(store);
      for (let i = 0; i < 5; i += 1) await store.log(id, `line ${i}`);
      const all = await store.events(id, '0');
      expect(all.map(({ type }) => type)).toEqual(['state', 'log', 'log', 'log', 'log', 'log']);
      expect(await store.events(id, all[2]?.id ?? '')).toEqual(all.slice(3));
      expect(await store.events(id, all.at(-1)?.id ?? '')).toEqual([]);
      expect(JSON.parse(all[1]?.data ?? '')).toEqual({ level: 'info', message: 'line 0', at: expect.stringMatching(/Z$/) });
    });

    test('a recording of days keeps the events of late', { timeout: 60_000 }, async () => {
      const { store } = empty();
      const id = await create(store);
      const lines = 2500;
      for (let i = 0; i < lines; i += 100) await Promise.all(Array.from({ length: 100 }, (_, j) => store.log(id, `line ${i + j}`)));
      const kept: string[] = [];
      for (let cursor = '0'; ; ) {
        const events = await store.events(id, cursor);
        const last = events.at(-1);
        if (last === undefined) break;
        cursor = last.id;
        kept.push(...events.map(({ data }) => (JSON.parse(data) as { message: string }).message));
      }
      expect(kept.length).toBeGreaterThanOrEqual(1000);
      expect(kept.length).toBeLessThan(1500);
      expect(kept).toEqual(Array.from({ length: kept.length }, (_, i) => `line ${lines - kept.length + i}`));
    });

    test('a warning is given once for each code', async () => {
      const { store } = empty();
      const id = await create(store);
      await Promise.all(Array.from({ length: 10 }, () => store.warn(id, 'deaf', 'no sound')));
      await store.warn(id, 'deaf', 'still no sound');
      await store.warn(id, 'slow', 'a slow machine');
      expect((await store.get(id))?.warnings.toSorted()).toEqual(['a slow machine', 'no sound']);
      expect(await kinds(store, id)).toEqual(['state queued', 'log no sound', 'log a slow machine']);
    });

    test('a recording that was removed leaves nothing, and late words about it bring nothing back', async () => {
      const { store, prefix } = empty();
      const before = await admin.keys(`${prefix}:*`);
      for (const state of ['queued', 'recording', 'completed'] as const) {
        const id = await create(store);
        if (state !== 'queued') {
          await store.claim(id);
          await store.change(id, { from: ['starting'], to: 'recording', attempt: 1 });
          await store.beat(id, 1, { stats: noStats, duration: 1, stored: true });
          await store.warn(id, 'deaf', 'no sound');
        }
        if (state === 'completed') {
          await store.change(id, { from: ['recording'], to: 'finishing' });
          await store.change(id, { from: ['finishing'], to: 'completed' });
        }
        await store.remove(id);
        expect(await store.beat(id, 1, { stats: noStats, duration: 2, stored: true })).toEqual({ outcome: 'missing', state: null, desired: null });
        expect(await store.change(id, { from: recordingStates, desired: 'stopped' })).toMatchObject({ outcome: 'missing' });
        expect(await store.claim(id)).toBeNull();
        await store.log(id, 'late');
        await store.warn(id, 'late', 'late');
        await store.remove(id);
        expect(await store.get(id)).toBeNull();
      }
      expect(await admin.keys(`${prefix}:*`)).toEqual(before);
      expect((await store.list({ limit: 10 })).items).toEqual([]);
    });
  });
}
