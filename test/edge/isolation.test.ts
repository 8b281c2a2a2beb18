/**
 * What one key has, another has not: on every route that is served. Each is judged here by name, so that a new one fails this test
 * until somebody has said how it keeps keys apart. Who may call a route at all is access.test.ts's.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { createDashboard } from '../../edge/dashboard.ts';
import { ATTEMPT_HEADER, MEDIA_SUBPROTOCOL } from '../../shared/media-protocol.ts';
import { newRecordingId } from '../../shared/recording.ts';
import { signToken } from '../../shared/token.ts';
import { keySetting, testKey, type TestKey } from '../helpers/keys.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { makeCmaf, type CmafPart } from './cmaf.ts';
import { dial, eventually, testEdge, type TestEdge } from './harness.ts';
import { stubWorker, type StubWorker } from './stub-worker.ts';

const keys = {
  owner: await testKey('team-a', ['record', 'read']),
  reader: await testKey('team-a', ['read']),
  recorder: await testKey('team-a', ['record']),
  other: await testKey('team-b', ['record', 'read']),
  otherReader: await testKey('team-b', ['read']),
  otherRecorder: await testKey('team-b', ['record']),
  admin: await testKey('ops', ['admin']),
};
const others = [keys.other, keys.otherReader, keys.otherRecorder];
const apiKeys = keySetting(...Object.values(keys));
const page = 'https://example.com/';

/** How far a recording is: with it change what there is to be seen of it. */
type Standing = 'queued' | 'live' | 'done';
type Judged =
  /** Shows nothing of any recording; is an admin's alone; makes one; lists them: each has a test of its own below. */
  | 'nobodys' | 'admins' | 'made' | 'listed'
  /** Names a recording. `owner`: what its owner is answered, of one that stands so. */
  | { owner: number; of: Standing; body?: object }
  /** Names a stream. `owner`: whether it succeeds for its owner. */
  | { stream: (id: string) => string; body: object };
const judged: Readonly<Record<string, Judged>> = {
  'GET /healthz': 'nobodys',
  'GET /readyz': 'nobodys',
  'GET /v1/origin': 'nobodys',
  'GET /metrics': 'admins',
  'POST /v1/recordings': 'made',
  'GET /v1/recordings': 'listed',
  'GET /v1/recordings/{id}': { owner: 200, of: 'live' },
  'POST /v1/recordings/{id}/stop': { owner: 200, of: 'live' },
  'POST /v1/recordings/{id}/pause': { owner: 200, of: 'live' },
  'POST /v1/recordings/{id}/resume': { owner: 200, of: 'live' },
  'POST /v1/recordings/{id}/cancel': { owner: 200, of: 'live' },
  'POST /v1/recordings/{id}/markers': { owner: 200, of: 'live', body: { label: 'a' } },
  'POST /v1/recordings/{id}/commands': { owner: 200, of: 'live', body: { script: '1' } },
  'DELETE /v1/recordings/{id}': { owner: 204, of: 'queued' },
  'GET /v1/recordings/{id}/events': { owner: 200, of: 'live' },
  'GET /v1/recordings/{id}/live.m3u8': { owner: 200, of: 'live' },
  'GET /v1/recordings/{id}/live/{name}': { owner: 200, of: 'live' },
  'GET /v1/recordings/{id}/recording.mp4': { owner: 200, of: 'done' },
  'GET /v1/recordings/{id}/thumbnail.jpg': { owner: 200, of: 'done' },
  'GET /v1/recordings/{id}/manifest.json': { owner: 200, of: 'done' },
  'POST /{app}/rest/v1/media-push/start': 'made',
  'POST /{app}/rest/v1/media-push/stop/{streamId}': { stream: (id) => `stop/${id}`, body: {} },
  'POST /{app}/rest/v1/media-push/send-command': { stream: (id) => `send-command?streamId=${id}`, body: { jsCommand: 'return 1' } },
};

let redis: TestRedis;
let edge: TestEdge;
let elsewhere: TestEdge;
let worker: StubWorker;
let finaliser: AsyncDisposable;
let parts: CmafPart[];
let segment = '';
beforeAll(async () => {
  redis = await startRedis();
  const secretsKeys = ['isolation-test-secrets-key'];
  edge = await testEdge(redis, { apiKeys, secretsKeys });
  elsewhere = await testEdge(redis, { apiKeys, secretsKeys, queuePrefix: edge.config.queuePrefix, mediaUrl: 'wss://media.example.com' });
  // takes pushes and what says so; the others are begun by hand
  worker = await stubWorker(edge, { standing: ({ metadata, job }) => (metadata['standing'] === 'live' || job.spec.push.length > 0 ? { state: 'live' } : null) });
  finaliser = await edge.finaliser();
  ({ parts } = await makeCmaf({ seconds: 2 }));
});
afterAll(async () => {
  for (const each of [finaliser, worker, elsewhere, edge, redis]) await each?.[Symbol.asyncDispose]();
});

const json = { 'content-type': 'application/json' };
const create = async (by: TestKey, body: Record<string, unknown> = {}): Promise<string> => {
  const { status, body: created } = await edge.post({ url: page, ...body }, by.headers);
  expect(status).toBe(202);
  return created.id as string;
};
/** A recording of the owner's that stands so, with media where there would be any. */
async function owned(standing: Standing): Promise<string> {
  const id = await create(keys.owner, { metadata: { standing }, webhook: { url: 'https://hooks.example.com/', secret: 'a-secret-of-the-owner' } });
  if (standing === 'queued') return id;
  const running = () => edge.control.store.get(id);
  const attempt = standing === 'done' ? await edge.control.run(id) : ((await eventually(running, (record) => record?.state === 'recording' && worker.attempts.get(id) !== 0))?.attempt ?? 0);
  const { body } = await edge.api(`/v1/recordings/${id}`, keys.owner);
  const sender = await dial(edge, body, attempt);
  const thumbnail = { header: { type: 'thumbnail' as const, seq: parts.length }, payload: new Uint8Array([0xff, 0xd8, 0xff, 0xd9]) };
  const last = parts.at(-1) as CmafPart;
  const sent = [...parts.slice(0, -1), thumbnail, ...(standing === 'done' ? [{ ...last, header: { ...last.header, seq: parts.length + 1 } }] : [])];
  sender.send(...sent);
  await sender.acked(sent.length);
  if (standing === 'live') return id;
  await edge.control.finish(id);
  await eventually(running, (record) => record?.state === 'completed');
  return id;
}

type Answer = { status: number; headers: [string, string][]; body: string };

/** All of an answer but the time; a stream's beginning. */
async function ask(at: TestEdge, path: string, init: RequestInit): Promise<Answer> {
  const cut = new AbortController();
  const response = await fetch(`${at.url}${path}`, { redirect: 'manual', ...init, signal: cut.signal });
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') === true;
  const body = isStream ? '' : await response.text();
  cut.abort();
  return { status: response.status, headers: [...response.headers].filter(([name]) => name !== 'date'), body };
}
const send = (name: string, id: string, by: { headers?: Record<string, string> }, { at = edge, body, query = '', headers = {}, ...how }: { at?: TestEdge; method?: string; body?: object | undefined; query?: string; headers?: Record<string, string> } = {}) => {
  const [own = '', path = ''] = name.split(' ');
  const method = how.method ?? own;
  const content = body === undefined ? {} : { body: JSON.stringify(body) };
  return ask(at, `${path.replace('{id}', id).replace('{name}', segment)}${query}`, { method, ...content, headers: { ...(body === undefined ? {} : json), ...headers, ...by.headers } });
};
/** The same answer, had it been about another. */
const instead = (answer: Answer, id: string, of: string): unknown => JSON.parse(JSON.stringify(answer).replaceAll(id, of));

const named = <T extends object>(has: string) => Object.entries(judged).flatMap(([name, judgement]) => (typeof judgement === 'object' && has in judgement ? [[name, judgement as T] as const] : []));
const byId = named<{ owner: number; of: Standing; body?: object }>('owner');

test('every route that is served is judged, and no other', async () => {
  const { body } = await edge.api('/openapi.json');
  const served = Object.entries(body.paths as Record<string, object>).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`));
  expect(served.toSorted()).toEqual(Object.keys(judged).toSorted());
  // what names something of somebody's is asked for it below
  for (const name of served) expect([name, typeof judged[name]]).toEqual([name, /\{id\}|\{streamId\}|send-command/.test(name) ? 'object' : 'string']);
});

describe("another key's recording", () => {
  test.each(['queued', 'live', 'done'] as const)('that is %s is as one that never was, byte by byte, on every route; nothing that is asked of it is done', async (standing) => {
    const id = await owned(standing);
    const mine = await create(keys.other);
    const { body } = await edge.api(`/v1/recordings/${id}`, keys.owner);
    segment = standing === 'queued' ? '1-1-0-init.mp4' : (/live\/([^?\n"]+)/.exec((await send('GET /v1/recordings/{id}/live.m3u8', id, keys.owner)).body)?.[1] ?? '');
    const before = await edge.control.redis.hgetall(`${edge.config.queuePrefix}:r:${id}`);
    const view = await signToken(edge.config.tokenSecrets ?? [], mine, 'view', Date.now() + 60_000);
    const media = await edge.control.credential(mine);
    for (const [name, { body: asked }] of byId) {
      const never = newRecordingId();
      const same = async (by: { headers?: Record<string, string> }, how: Parameters<typeof send>[3] = {}) => {
        const [theirs, nones] = [await send(name, id, by, { body: asked, ...how }), await send(name, never, by, { body: asked, ...how })];
        expect({ name, ...(instead(theirs, id, never) as Answer) }).toEqual({ name, ...nones });
        return theirs.status;
      };
      const isRead = name.startsWith('GET');
      // one of the three lacks the scope, whoever the recording is of
      const statuses = [];
      for (const key of others) statuses.push(await same(key));
      expect([name, statuses]).toEqual([name, isRead ? [404, 404, 403] : [404, 403, 404]]);
      expect([name, await same(keys.other, { at: elsewhere })]).toEqual([name, 404]);
      expect([name, await same(keys.other, { headers: { range: 'bytes=0-0', 'if-none-match': '*', 'last-event-id': '0-0' } })]).toEqual([name, 404]);
      if (isRead) expect([name, await same(keys.other, { method: 'HEAD' })]).toEqual([name, 404]);
      else await same(keys.other, { body: { unheard: 'of' } });
      // by a link, or a credential, of a recording of its own
      for (const token of [view, media]) expect([name, await same({}, { query: `?token=${token}` })]).toEqual([name, 401]);
    }
    expect(await edge.control.redis.hgetall(`${edge.config.queuePrefix}:r:${id}`)).toEqual(before);
    expect((await edge.api(`/v1/recordings/${id}`, keys.owner)).body).toMatchObject({ state: body.state, desired: body.desired });
  });

  test('is there for its owner, whatever the route: so it is the key that hides it', async () => {
    const done = await owned('done');
    for (const [name, { owner, of, body }] of byId) {
      const id = of === 'done' ? done : await owned(of);
      if (name.includes('{name}')) segment = /live\/([^?\n"]+)/.exec((await send('GET /v1/recordings/{id}/live.m3u8', id, keys.reader)).body)?.[1] ?? '';
      const isRead = name.startsWith('GET');
      for (const key of isRead ? [keys.reader, keys.admin] : [keys.recorder]) expect([name, (await send(name, id, key, { body })).status]).toEqual([name, owner]);
    }
  });

  test('takes no media by the credential of another one', async () => {
    const [id, mine] = [await owned('live'), await create(keys.other)];
    const credential = await edge.control.credential(mine);
    const refused = (of: string) => {
      const ws = new WebSocket(`${edge.url.replace('http', 'ws')}/v1/recordings/${of}/media`, MEDIA_SUBPROTOCOL, { headers: { authorization: `Bearer ${credential}`, [ATTEMPT_HEADER]: '1' } });
      return new Promise<string>((resolve, reject) => {
        ws.on('unexpected-response', (_request, response) => {
          let text = `${response.statusCode} `;
          response.on('data', (data) => (text += String(data)));
          response.on('end', () => resolve(text));
        });
        ws.on('open', () => reject(new Error('it was opened')));
        ws.on('error', () => undefined);
      });
    };
    const never = newRecordingId();
    const theirs = await refused(id);
    expect(theirs).toMatch(/^401 /);
    expect(theirs.replaceAll(id, never)).toBe(await refused(never));
  });
});

describe('what a key makes', () => {
  test('is told by Idempotency-Keys of its own', async () => {
    const key = { 'idempotency-key': crypto.randomUUID() };
    const first = await edge.post({ url: page }, { ...keys.owner.headers, ...key });
    const theirs = await edge.post({ url: 'https://example.com/other' }, { ...keys.other.headers, ...key });
    expect([first.status, theirs.status]).toEqual([202, 202]);
    expect(theirs.body.id).not.toBe(first.body.id);
    expect(await edge.post({ url: page }, { ...keys.recorder.headers, ...key })).toMatchObject({ status: 200, body: { id: first.body.id } });
  });

  test('is all that its list has, page by page and by state; an admin lists all', async () => {
    await using own = await testEdge(redis, { apiKeys });
    const post = async (by: TestKey) => (await own.post({ url: page }, by.headers)).body.id as string;
    const mine: string[] = [];
    for (let i = 0; i < 5; i += 1) {
      mine.unshift(await post(keys.owner));
      await post(keys.other);
    }
    const list = async (by: TestKey, query: string) => (await own.api(`/v1/recordings?${query}`, { headers: by.headers })).body as { recordings: { id: string }[]; cursor: string | null };
    const walk = async (by: TestKey, query: string) => {
      const ids: string[] = [];
      let cursor: string | null = '';
      while (cursor !== null) {
        const answer = await list(by, `${query}&limit=2${cursor === '' ? '' : `&cursor=${cursor}`}`);
        ids.push(...answer.recordings.map(({ id }) => id));
        ({ cursor } = answer);
      }
      return ids;
    };
    expect(await walk(keys.reader, '')).toEqual(mine);
    expect(await walk(keys.reader, 'state=queued')).toEqual(mine);
    await own.control.run(mine[1] as string);
    await own.api(`/v1/recordings/${mine[3]}/stop`, { method: 'POST', headers: keys.owner.headers });
    expect(await walk(keys.reader, 'state=recording')).toEqual([mine[1]]);
    expect(await walk(keys.reader, 'state=canceled')).toEqual([mine[3]]);
    expect(await walk(keys.reader, 'state=queued')).toEqual([mine[0], mine[2], mine[4]]);
    expect(await walk(keys.other, 'state=recording')).toEqual([]);
    expect(await walk(keys.admin, '')).toHaveLength(10);
    // a cursor of somebody else's is a place in time, whether or not it is there
    const after = (by: TestKey, cursor: string) => list(by, `cursor=${cursor}`);
    const theirs = (await after(keys.other, mine[1] as string)).recordings.map(({ id }) => id);
    expect(theirs).toHaveLength(3);
    expect(theirs.filter((id) => mine.includes(id))).toEqual([]);
    expect(await walk(keys.other, 'limit=100&state=failed')).toEqual([]);
    await own.control.store.remove(mine[0] as string);
    expect(await walk(keys.reader, '')).toEqual(mine.slice(1));
    const left = await own.control.redis.keys(`${own.config.queuePrefix}:owned:team-a:*`);
    for (const key of left.filter((each) => !each.endsWith('recent'))) expect(await own.control.redis.zscore(key, mine[0] as string)).toBeNull();
  });

  test('before there were keys is an admin’s', async () => {
    await using own = await testEdge(redis, { apiKeys });
    await using before = await testEdge(redis, { queuePrefix: own.config.queuePrefix });
    const { id } = await before.create();
    expect((await own.api(`/v1/recordings/${id}`, { headers: keys.owner.headers })).status).toBe(404);
    expect((await own.api(`/v1/recordings/${id}`, { headers: keys.admin.headers })).status).toBe(200);
    expect((await own.api('/v1/recordings', { headers: keys.owner.headers })).body.recordings).toEqual([]);
  });

  test('has no signed links for a key that may not look at it', async () => {
    const { status, body } = await edge.post({ url: page }, keys.recorder.headers);
    expect(status).toBe(202);
    expect(body.links.file).toMatch(/recording\.mp4$/);
    expect((await edge.api(`/v1/recordings/${body.id}`, { headers: keys.reader.headers })).body.links.file).toMatch(/recording\.mp4\?token=/);
  });
});

describe("another key's stream", () => {
  const push = (path: string, by: TestKey, body: object) => ask(edge, `/LiveApp/rest/v1/media-push/${path}`, { method: 'POST', headers: { ...json, ...by.headers }, body: JSON.stringify(body) });

  test('is as one that never was, and its id is free; its owner and an admin have it', async () => {
    const body = { url: page, token: 'a-token' };
    expect(JSON.parse((await push('start?streamId=s1', keys.owner, body)).body)).toMatchObject({ success: true });
    const streams = named<{ stream: (id: string) => string; body: object }>('stream');
    expect(streams).toHaveLength(2);
    const ran = worker.commands.length;
    for (const [name, { stream, body: asked }] of streams) {
      const [theirs, nones] = [await push(stream('s1'), keys.otherRecorder, asked), await push(stream('s9'), keys.otherRecorder, asked)];
      expect([name, JSON.parse(JSON.stringify(theirs).replaceAll('s1', 's9'))]).toEqual([name, nones]);
      expect(JSON.parse(theirs.body)).toMatchObject({ success: false, message: expect.stringContaining('Driver does not exist') });
    }
    expect(worker.commands).toHaveLength(ran);
    expect(JSON.parse((await push('start?streamId=s1', keys.other, body)).body)).toMatchObject({ success: true });
    expect(JSON.parse((await push('start?streamId=s1', keys.owner, body)).body).message).toContain('already exists');
    const stop = async (by: TestKey) => JSON.parse((await push('stop/s1', by, {})).body);
    expect(JSON.parse((await push('send-command?streamId=s1', keys.owner, { jsCommand: 'return 1' })).body)).toMatchObject({ success: true });
    // of two with one id, an admin has the later
    expect(await stop(keys.admin)).toMatchObject({ success: true });
    expect(await stop(keys.other)).toMatchObject({ success: false });
    expect(await stop(keys.owner)).toMatchObject({ success: true });
  });
});

describe('the dashboard and the metrics', () => {
  test('are an admin’s: no other key is answered anything, by any of their paths', async () => {
    const id = await create(keys.owner);
    const board = createDashboard([edge.control.recordQueue, edge.control.finishQueue], async () => undefined, true);
    const queue = edge.control.recordQueue.name;
    const paths = [...new Set(board.routes.filter(({ method }) => method !== 'ALL').map(({ method, path }) => `${method} ${path}`))];
    expect(paths.length).toBeGreaterThan(10);
    for (const each of paths) {
      const [method = 'GET', path = ''] = each.split(' ');
      const at = `/dashboard${path.replace(':queueName', queue).replace(':jobId', id).replaceAll(/:\w+/g, 'x').replace('*', 'x.js')}`;
      for (const key of [keys.other, keys.owner]) expect([each, (await ask(edge, at, { method, headers: key.headers })).status]).toEqual([each, 401]);
    }
    for (const key of [keys.other, keys.owner]) {
      expect((await ask(edge, '/metrics', key)).status).toBe(403);
      expect((await ask(edge, '/dashboard/login', { method: 'POST', body: new URLSearchParams({ key: key.key }) })).status).toBe(403);
    }
    expect((await ask(edge, `/dashboard/api/queues/${queue}/${id}`, keys.admin)).body).toContain(id);
  });
});

test('what routes without an owner answer has no recording’s id in it', async () => {
  const id = await create(keys.owner);
  for (const path of ['/healthz', '/readyz', '/v1/origin', '/openapi.json', '/docs', '/doctor/page']) {
    expect([path, (await ask(edge, path, keys.other)).body.includes(id)]).toEqual([path, false]);
  }
  expect((await ask(edge, '/metrics', keys.admin)).body).not.toMatch(/rec_[0-9a-z]{26}|team-/);
});
