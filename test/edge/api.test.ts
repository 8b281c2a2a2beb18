import { request as httpRequest } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { diskStorage } from '../../edge/storage/disk.ts';
import { IS_SEALED } from '../../shared/job.ts';
import { createPresence } from '../../shared/presence.ts';
import { recording } from '../../shared/recording.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { eventually, testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis);
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const url = 'https://example.com/';

describe('creating a recording', () => {
  test('answers 202, where it is, and queues a job that has all a worker needs', async () => {
    const { status, body, headers } = await edge.post({ url: `${url}?q=1`, width: 640, height: 360, priority: 3, metadata: { a: 'b' } });
    expect(status).toBe(202);
    const created = recording.parse(body);
    expect(headers.get('location')).toBe(`${edge.url}/v1/recordings/${created.id}`);
    expect(created).toMatchObject({ state: 'queued', width: 640, height: 360, metadata: { a: 'b' }, attempts: 0, files: [] });
    expect(created.mediaUrl).toBe(`${edge.url.replace('http', 'ws')}/v1/recordings/${created.id}/media`);
    const job = await edge.control.recordQueue.getJob(created.id);
    expect(job?.data).toMatchObject({ recordingId: created.id, mediaUrl: created.mediaUrl, sealed: null, spec: { url: `${url}?q=1`, maxDuration: 14_400 } });
    expect(job?.opts.priority).toBe(3);
    expect(JSON.stringify(body)).not.toContain(job?.data.credential);
  });

  test('follows the origin that a trusted proxy tells', async () => {
    await using keyed = await testEdge(redis, {}, { keyed: true });
    const { body } = await keyed.post({ url }, { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'rec.example.com' });
    expect(body.mediaUrl).toBe(`wss://rec.example.com/v1/recordings/${body.id}/media`);
    expect(body.links.self).toBe(`https://rec.example.com/v1/recordings/${body.id}`);
    expect(body.origin).toEqual({ scheme: 'https', host: 'rec.example.com', port: null, source: 'x-forwarded' });
  });

  test.each([
    [{}, ['url']],
    [{ url: 'ftp://x/' }, ['url']],
    [{ url, width: 641, height: 'x', colour: 1 }, ['colour', 'height', 'width']],
    [{ url, maxDuration: 14_401 }, ['maxDuration']],
    [{ url, startAt: new Date(Date.now() + 31 * 86_400_000).toISOString() }, ['startAt']],
    [{ url, headers: { a: 'b' }, cookies: [{ name: 'c', value: 'd' }] }, ['cookies', 'headers']],
    [{ url, headers: { Host: 'b' } }, ['headers.Host']],
    [[], ['']],
  ])('%j: every field that is wrong is named', async (body, paths) => {
    const answer = await edge.post(body);
    expect(answer.status).toBe(400);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expect(answer.body).toMatchObject({ type: 'about:blank', code: 'invalid_request', blame: 'caller', retryable: false, status: 400 });
    expect(answer.body.errors.map(({ path }: { path: string }) => path).sort()).toEqual(paths);
  });

  test('without SECRETS_KEY, headers are refused by that name', async () => {
    expect((await edge.post({ url, headers: { authorization: 'x' } })).body.detail).toContain('SECRETS_KEY');
  });

  test.each([
    ['{"url":', { 'content-type': 'application/json' }, 400, 'invalid_json'],
    ['url=x', { 'content-type': 'application/x-www-form-urlencoded' }, 415, 'unsupported_media_type'],
    [JSON.stringify({ url, metadata: { a: 'x'.repeat(300_000) } }), {}, 413, 'body_too_large'],
    ['{}', { 'idempotency-key': 'k'.repeat(256) }, 400, 'invalid_request'],
    [JSON.stringify({ url }), { 'idempotency-key': 'k'.repeat(256) }, 400, 'invalid_request'],
  ])('a body or header that can not be read: %#', async (body, headers, status, code) => {
    expect(await edge.post(body, headers as Record<string, string>)).toMatchObject({ status, body: { code } });
  });

  test('a body without a length is bounded too', async () => {
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const request = httpRequest(`${edge.url}/v1/recordings`, { method: 'POST', headers: { 'content-type': 'application/json' } }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      request.on('error', reject);
      for (let i = 0; i < 8; i += 1) request.write('x'.repeat(64 * 1024));
      request.end();
    });
    expect(status).toBe(413);
  });

  test('one key: the same body answers the same recording, another is a conflict', async () => {
    const key = { 'idempotency-key': crypto.randomUUID() };
    const first = await edge.post({ url, width: 640, height: 360 }, key);
    const again = await edge.post({ height: 360, width: 640, url }, key);
    expect([first.status, again.status]).toEqual([202, 200]);
    expect(again.body.id).toBe(first.body.id);
    expect(await edge.post({ url }, key)).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } });
    expect(await edge.control.recordQueue.getJobCounts('waiting')).toBeDefined();
  });

  test('a job that never got into the queue gets there when the request is repeated', async () => {
    const key = { 'idempotency-key': crypto.randomUUID() };
    const { body } = await edge.post({ url, priority: 7 }, key);
    await edge.control.recordQueue.remove(body.id);
    expect(await edge.control.recordQueue.getJob(body.id)).toBeUndefined();
    expect(await edge.post({ url, priority: 7 }, key)).toMatchObject({ status: 200, body: { id: body.id } });
    expect(await edge.control.recordQueue.getJob(body.id)).toMatchObject({ data: { recordingId: body.id }, opts: { priority: 7 } });
    // of one that has its job nobody needs to think any more
    expect(await edge.control.store.since('jobless', 0, 1000)).not.toContain(body.id);
  });

  test('a request that is repeated before its time queues it for that time, and one after its end does not queue it again', async () => {
    const key = { 'idempotency-key': crypto.randomUUID() };
    const asked = { url, startAt: new Date(Date.now() + 3600_000).toISOString() };
    const { body } = await edge.post(asked, key);
    await edge.control.recordQueue.remove(body.id);
    await edge.post(asked, key);
    const job = await edge.control.recordQueue.getJob(body.id);
    expect(await job?.getState()).toBe('delayed');
    expect(Math.abs((job?.opts.delay ?? 0) - 3600_000)).toBeLessThan(5000);
    await edge.api(`/v1/recordings/${body.id}/stop`, { method: 'POST' });
    expect(await edge.post(asked, key)).toMatchObject({ status: 200, body: { id: body.id, state: 'canceled' } });
    expect(await edge.control.recordQueue.getJob(body.id)).toBeUndefined();
  });

  test('startAt delays the job; one in the past does not', async () => {
    const later = await edge.create({ startAt: new Date(Date.now() + 3600_000).toISOString() });
    expect(await (await edge.control.recordQueue.getJob(later.id))?.getState()).toBe('delayed');
    const past = await edge.create({ startAt: '2020-01-01T00:00:00Z' });
    expect(await (await edge.control.recordQueue.getJob(past.id))?.getState()).toBe('waiting');
    expect(past.startAt).toBe('2020-01-01T00:00:00.000Z');
  });

  test('what is given in confidence is sealed', async () => {
    await using sealing = await testEdge(redis, { secretsKeys: ['seal-key-0123456789abcdef'] });
    const created = await sealing.create({ headers: { authorization: 'Bearer topsecret' }, cookies: [{ name: 'sid', value: 'topsecret' }] });
    const job = await sealing.control.recordQueue.getJob(created.id);
    expect(job?.data.sealed).toMatch(/^v1\./);
    expect(JSON.stringify(job?.data)).not.toContain('topsecret');
    expect(job?.data.credential).toBe(IS_SEALED);
    expect(JSON.stringify(job?.data)).not.toContain(await sealing.control.credential(created.id));
    expect(sealing.logs.join()).not.toContain('topsecret');
  });

  test('a full storage takes no more', async () => {
    const storage = { ...diskStorage(edge.directory), freeBytes: async () => 1000, check: async () => ({ freeBytes: 1000 }) };
    await using full = await testEdge(redis, {}, { storage });
    expect(await full.post({ url })).toMatchObject({ status: 507, body: { code: 'storage_full', blame: 'service', retryable: true } });
    expect(await full.api('/readyz')).toMatchObject({ status: 503, body: { status: 'not ready', checks: { storage: { ok: false }, redis: { ok: true } } } });
  });
});

describe('reading and ending', () => {
  test('lists newest first, page by page, by state', async () => {
    await using own = await testEdge(redis);
    const ids: string[] = [];
    for (let i = 0; i < 5; i += 1) ids.unshift((await own.create()).id);
    const first = await own.api('/v1/recordings?limit=2');
    expect(first.body.recordings.map(({ id }: { id: string }) => id)).toEqual(ids.slice(0, 2));
    const second = await own.api(`/v1/recordings?limit=2&cursor=${first.body.cursor}`);
    expect(second.body.recordings.map(({ id }: { id: string }) => id)).toEqual(ids.slice(2, 4));
    await own.api(`/v1/recordings/${ids[0]}/stop`, { method: 'POST' });
    await own.api(`/v1/recordings/${ids[1]}`, { method: 'DELETE' });
    expect((await own.api('/v1/recordings?state=canceled')).body.recordings.map(({ id }: { id: string }) => id)).toEqual([ids[0]]);
    expect((await own.api('/v1/recordings?state=queued&limit=3')).body).toMatchObject({ recordings: [{ id: ids[2] }, { id: ids[3] }, { id: ids[4] }], cursor: null });
    expect((await own.api('/v1/recordings?limit=0&state=x')).body.errors).toHaveLength(2);
  });

  test('a queued one is canceled, and its job removed', async () => {
    const { id } = await edge.create();
    const stopped = await edge.api(`/v1/recordings/${id}/stop`, { method: 'POST' });
    expect(stopped).toMatchObject({ status: 200, body: { state: 'canceled' } });
    expect(stopped.body.endedAt).not.toBeNull();
    expect(await edge.control.recordQueue.getJob(id)).toBeUndefined();
    expect((await edge.api(`/v1/recordings/${id}/stop`, { method: 'POST' })).status).toBe(200);
  });

  test('a running one is told, and stays told', async () => {
    const { id } = await edge.create();
    const attempt = await edge.control.run(id);
    expect(await edge.api(`/v1/recordings/${id}/stop`, { method: 'POST' })).toMatchObject({ status: 200, body: { state: 'recording' } });
    expect(await edge.control.store.beat(id, attempt, null)).toMatchObject({ desired: 'stopped' });
  });

  test('a deleted one is gone at once for everybody, and its files soon', async () => {
    await using finaliser = await edge.finaliser();
    void finaliser;
    const { id, links } = await edge.create();
    expect((await edge.api(`/v1/recordings/${id}`, { method: 'DELETE' })).status).toBe(204);
    for (const path of [links.self, links.live, links.file, links.thumbnail, links.events]) expect((await edge.api(path)).status).toBe(404);
    for (const [path, method] of [[links.stop, 'POST'], [links.self, 'DELETE']] as const) expect((await edge.api(path, { method })).status).toBe(404);
    await eventually(() => edge.control.store.get(id), (record) => record === null);
    const running = await edge.create();
    const attempt = await edge.control.run(running.id);
    expect((await edge.api(`/v1/recordings/${running.id}`, { method: 'DELETE' })).status).toBe(204);
    expect(await edge.control.store.beat(running.id, attempt, null)).toMatchObject({ desired: 'deleted' });
    expect(await (await edge.control.finishQueue.getJob(`${running.id}-remove`))?.getState()).toBe('delayed');
  });

  test('what is not there is a problem, whatever the method', async () => {
    const missing = '/v1/recordings/rec_00000000000000000000000000';
    for (const path of [missing, '/v1/recordings/nonsense', `${missing}/live.m3u8`, `${missing}/events`]) {
      expect(await edge.api(path)).toMatchObject({ status: 404, body: { code: 'recording_not_found' } });
    }
    expect(await edge.api('/nowhere')).toMatchObject({ status: 404, body: { code: 'not_found' } });
    const wrong = await edge.api('/v1/recordings', { method: 'PATCH' });
    expect(wrong).toMatchObject({ status: 405, body: { status: 405 } });
    expect(wrong.headers.get('allow')).toContain('POST');
    expect((await edge.api(`${missing}/live/..%2f..%2fetc`)).status).toBe(404);
  });

  test('a token in a link must be good, and for this recording', async () => {
    const [one, other] = [await edge.create(), await edge.create()];
    const token = new URL(other.links.file).searchParams.get('token');
    expect(await edge.api(`/v1/recordings/${one.id}/live.m3u8?token=${token}`)).toMatchObject({ status: 401, body: { code: 'unauthorized' } });
    expect((await edge.api(`/v1/recordings/${one.id}/live.m3u8?token=x`)).status).toBe(401);
    expect((await edge.api(one.links.live)).body.code).toBe('file_not_ready');
    expect((await edge.api(`/v1/recordings/${one.id}/live.m3u8`)).body.code).toBe('file_not_ready');
  });
});

describe('operation', () => {
  test('is alive, ready, and counted', async () => {
    await edge.create();
    expect(await edge.api('/healthz')).toMatchObject({ status: 200, body: { status: 'ok' } });
    expect(await edge.api('/readyz')).toMatchObject({ status: 200, body: { status: 'ready', checks: { redis: { ok: true }, storage: { ok: true } } } });
    const { body, headers } = await edge.api('/metrics');
    expect(headers.get('content-type')).toContain('text/plain');
    expect(body).toMatch(/tabreel_recordings\{state="queued"\} [1-9]/);
    expect(body).toMatch(/tabreel_http_request_seconds_count\{method="POST",route="\/v1\/recordings",status="202"\} [1-9]/);
    expect(body).toContain('bullmq_job_count{queue="finish"');
    expect(body).toMatch(/^tabreel_slots\{state="free"\} 0$/m);
    expect(body.match(/# TYPE bullmq_job_count/g)).toHaveLength(1);
    expect(body).not.toContain('rec_');
  });

  test('tells how many slots there are, and how many are needed: waiting, due soon, and taken where workers stay', async () => {
    const fleet = await testEdge(redis);
    try {
      const metric = async (name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec((await fleet.api('/metrics')).body)?.[1]);
      expect(await metric('tabreel_demand')).toBe(0);
      const inSeconds = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString();
      await fleet.create();
      await fleet.create({ priority: 5 });
      await fleet.create({ startAt: inSeconds(170) });
      await fleet.create({ startAt: inSeconds(190) });
      expect(await metric('tabreel_demand')).toBe(3);
      const presence = createPresence(fleet.control.redis, fleet.config.queuePrefix);
      await presence.beat('a', 'stays', { slots: 4, running: 2, room: 1, leaving: false });
      await presence.leave('b', 'leaves', { slots: 4, running: 3, room: 0, leaving: true });
      expect(await metric('tabreel_demand')).toBe(5);
      expect(await metric('tabreel_workers')).toBe(2);
      const states = ['free', 'busy', 'leaving', 'closed'] as const;
      const slots = await Promise.all(states.map((state) => metric(`tabreel_slots\\{state="${state}"\\}`)));
      expect(slots).toEqual([1, 2, 3, 1]);
      // no room is left beside what runs: as good as taken
      await presence.beat('a', 'stays', { slots: 4, running: 2, room: 0, leaving: false });
      expect(await metric('tabreel_demand')).toBe(7);
    } finally {
      await fleet[Symbol.asyncDispose]();
    }
  });

  test('describes itself as OpenAPI 3.1', async () => {
    const { body } = await edge.api('/openapi.json');
    expect(body.openapi).toMatch(/^3\.1/);
    const routes = Object.entries<Record<string, unknown>>(body.paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method} ${path}`));
    expect(routes.sort()).toEqual([
      'delete /v1/recordings/{id}',
      'get /healthz',
      'get /metrics',
      'get /readyz',
      'get /v1/origin',
      'get /v1/recordings',
      'get /v1/recordings/{id}',
      'get /v1/recordings/{id}/events',
      'get /v1/recordings/{id}/live.m3u8',
      'get /v1/recordings/{id}/live/{name}',
      'get /v1/recordings/{id}/manifest.json',
      'get /v1/recordings/{id}/recording.mp4',
      'get /v1/recordings/{id}/thumbnail.jpg',
      'post /v1/recordings',
      'post /v1/recordings/{id}/cancel',
      'post /v1/recordings/{id}/commands',
      'post /v1/recordings/{id}/markers',
      'post /v1/recordings/{id}/pause',
      'post /v1/recordings/{id}/resume',
      'post /v1/recordings/{id}/stop',
      'post /{app}/rest/v1/media-push/send-command',
      'post /{app}/rest/v1/media-push/start',
      'post /{app}/rest/v1/media-push/stop/{streamId}',
    ]);
    const post = body.paths['/v1/recordings'].post;
    expect(post.requestBody.content['application/json'].schema).toMatchObject({ required: ['url'], properties: { width: { minimum: 16, default: 1280 } } });
    expect(Object.keys(post.responses)).toEqual(expect.arrayContaining(['200', '202', '400', '409', '413', '415', '503', '507']));
    expect(post.responses['400'].content['application/problem+json'].schema.properties.errors).toBeDefined();
  });

  test('pages load nothing from elsewhere and may not', async () => {
    for (const path of ['/docs', '/dashboard', '/dashboard/']) {
      const { status, body, headers } = await edge.api(path);
      expect([path, status]).toEqual([path, 200]);
      expect(body).not.toMatch(/(src|href)="(https?:)?\/\//);
      expect(headers.get('content-security-policy')).toMatch(/default-src 'none'.*script-src 'self'/);
    }
    for (const path of ['/docs/page.js', '/docs/page.css']) expect((await edge.api(path)).status).toBe(200);
    expect((await edge.api('/healthz')).headers.get('content-security-policy')).toContain("default-src 'none'");
  });

  test('the dashboard shows no credential and changes nothing', async () => {
    const { id } = await edge.create();
    const { body } = await edge.api('/dashboard/api/queues?activeQueue=record');
    expect(JSON.stringify(body)).toContain(id);
    expect(JSON.stringify(body)).not.toContain(await edge.control.credential(id));
    expect(body.queues.map(({ name, readOnlyMode }: { name: string; readOnlyMode: boolean }) => [name, readOnlyMode])).toEqual([['record', true], ['finish', true]]);
    await edge.api(`/dashboard/api/queues/record/${id}/clean`, { method: 'PUT' });
    expect(await edge.control.recordQueue.getJob(id)).toBeDefined();
  });
});
