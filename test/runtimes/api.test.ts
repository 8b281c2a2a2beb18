/** One API on Node, Bun, Deno, workerd and Lambda: the same requests over HTTP to each. */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'bullmq';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { IS_SEALED, parseJob, type RecordingJob } from '../../shared/job.ts';
import { RECORD_QUEUE, patientRedis } from '../../shared/queue.ts';
import { jobSecrets, recording } from '../../shared/recording.ts';
import { unseal, verifyToken } from '../../shared/token.ts';
import { operator, operatorEnvironment } from '../helpers/keys.ts';
import { hasRedisServer, realRedis, startRedis, type RealRedis, type TestRedis } from '../helpers/redis.ts';
import { silencablePath } from '../helpers/silencable-path.ts';
import { INSTALL, missing, runtimeNames, startBun, startDeno, startLambda, startRuntimes, startWorkerd, type Runtime, type RuntimeName } from './runtimes.ts';

const absent = runtimeNames.filter(missing);
if (absent.length > 0) console.warn(`Tests are skipped for want of ${absent.join(', ')}: ${INSTALL}`);

const MEDIA = 'wss://media.example.com:8443/base';
const page = 'https://example.com/page?key=1';

let redis: TestRedis;
let real: RealRedis | null = null;
let started: Awaited<ReturnType<typeof startRuntimes>>;
const directory = mkdtempSync(join(tmpdir(), 'tabreel-runtimes-'));
const run = crypto.randomUUID().slice(0, 8);
const prefixOf = (name: string) => `t${run}-${name}`;
const settings = (name: string) => ({
  ...redis.environment,
  QUEUE_PREFIX: prefixOf(name),
  TOKEN_SECRET: 'runtimes-token-secret',
  SECRETS_KEY: 'runtimes-secrets-key',
  MEDIA_URL: MEDIA,
  ...operatorEnvironment,
});

beforeAll(async () => {
  if (hasRedisServer) {
    real = await realRedis();
    await real.start();
  }
  redis = real ?? (await startRedis());
  started = await startRuntimes(settings, directory);
}, 60_000);
afterAll(async () => {
  await started?.[Symbol.asyncDispose]();
  await redis?.[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
}, 20_000);

type Answer = { status: number; body: any; headers: Headers };

async function ask(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, { redirect: 'manual', ...init, headers: { ...operator.headers, ...(init.headers as Record<string, string> | undefined) } });
  const text = await response.text();
  const body: unknown = /json/.test(response.headers.get('content-type') ?? '') ? JSON.parse(text) : text;
  return { status: response.status, body, headers: response.headers };
}

const post = (url: string, body: unknown, headers: Record<string, string> = {}) =>
  ask(`${url}/v1/recordings`, {
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
    headers: { 'content-type': 'application/json', ...headers },
  });

for (const name of runtimeNames) describe.skipIf(missing(name))(name, () => {
  const serverless = name !== 'node';
  let runtime: Runtime;
  let url: string;
  beforeAll(() => {
    runtime = started.runtimes.get(name) as Runtime;
    url = runtime.url;
  });
  const prefix = prefixOf(name.split(' ')[0] ?? '');

  test('a request becomes a recording and a job that a worker can read', async () => {
    const { status, body, headers } = await post(url, { url: page, maxDuration: 60, metadata: { a: 'ü' }, headers: { authorization: 'Bearer s' } });
    expect({ status, body }).toMatchObject({ status: 202 });
    const created = recording.parse(body);
    expect(headers.get('location')).toBe(`${runtime.origin}/v1/recordings/${created.id}`);
    expect(created).toMatchObject({ state: 'queued', url: page, metadata: { a: 'ü' }, mediaUrl: `${MEDIA}/v1/recordings/${created.id}/media` });
    expect(created.links.live).toContain(`${runtime.origin}/v1/recordings/${created.id}/live.m3u8?token=`);
    const job = await consume(prefix, created.id);
    expect(job).toMatchObject({ recordingId: created.id, mediaUrl: created.mediaUrl, spec: { url: page, maxDuration: 60 } });
    const { TOKEN_SECRET, SECRETS_KEY } = settings(name);
    const { credential = '', headers: confided } = jobSecrets.parse(await unseal([SECRETS_KEY], created.id, job.sealed ?? ''));
    expect([job.credential, confided]).toEqual([IS_SEALED, { authorization: 'Bearer s' }]);
    expect(await verifyToken([TOKEN_SECRET], credential, created.id, 'media')).toBe(true);
  });

  test('what is wrong with a request is said', async () => {
    expect(await post(url, { url: 'ftp://x/', width: 641, colour: 1 })).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
    expect((await post(url, {})).headers.get('content-type')).toBe('application/problem+json');
    expect((await post(url, { url: 'ftp://x/', colour: 1 })).body.errors.map(({ path }: { path: string }) => path).sort()).toEqual(['colour', 'url']);
    expect(await post(url, '{"url":')).toMatchObject({ status: 400, body: { code: 'invalid_json' } });
    expect(await post(url, 'url=x', { 'content-type': 'text/plain' })).toMatchObject({ status: 415 });
    expect(await post(url, { url: page, metadata: { a: 'x'.repeat(300_000) } })).toMatchObject({ status: 413 });
    expect(await ask(`${url}/v1/recordings/rec_00000000000000000000000000`)).toMatchObject({ status: 404, body: { code: 'recording_not_found' } });
    expect(await ask(`${url}/nothing`)).toMatchObject({ status: 404, body: { code: 'not_found' } });
    expect(await ask(`${url}/v1/recordings`, { method: 'PUT', body: '{}' })).toMatchObject({ status: 405 });
  });

  test('an Idempotency-Key makes one recording of one request', async () => {
    const key = { 'idempotency-key': crypto.randomUUID() };
    const first = await post(url, { url: page }, key);
    const again = await post(url, { url: page }, key);
    expect([first.status, again.status, again.body.id]).toEqual([202, 200, first.body.id]);
    expect(await post(url, { url: 'https://example.com/other' }, key)).toMatchObject({ status: 409, body: { code: 'idempotency_conflict' } });
  });

  test('recordings are got, listed, stopped and deleted', async () => {
    const { body } = await post(url, { url: page });
    const self = `${url}/v1/recordings/${body.id}`;
    expect(await ask(self)).toMatchObject({ status: 200, body: { id: body.id, state: 'queued', links: { self: `${runtime.origin}/v1/recordings/${body.id}` } } });
    const listed = await ask(`${url}/v1/recordings?state=queued&limit=1`);
    expect(listed).toMatchObject({ status: 200, body: { recordings: [{ id: body.id }], cursor: expect.any(String) } });
    expect(await ask(`${self}/stop`, { method: 'POST' })).toMatchObject({ status: 200, body: { state: 'canceled' } });
    expect((await ask(self, { method: 'DELETE' })).status).toBe(204);
    expect((await ask(self)).status).toBe(404);
  });

  test('the origin is what the platform or a trusted proxy tells, never what a client of a platform says', async () => {
    const forwarded = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'rec.example.com' };
    const plain = await ask(`${url}/v1/origin`);
    const { scheme, host, port, prefix: path } = plain.body;
    expect(plain).toMatchObject({ status: 200 });
    expect(`${scheme}://${host}${port === null ? '' : `:${port}`}${path}`).toBe(runtime.origin);
    const behind = await ask(`${url}/v1/origin`, { headers: forwarded });
    // on these a process's own peer, loopback here, is a proxy that is trusted by default
    if (['node', 'bun', 'deno'].includes(name)) expect(behind.body).toMatchObject({ scheme: 'https', host: 'rec.example.com', port: null, websocket: expect.stringMatching(/^wss:/) });
    else expect(behind.body).toMatchObject({ scheme, host, port, prefix: path });
  });

  // a platform before Lambda makes the event
  if (!name.startsWith('lambda')) test('a request line or a Host that lies leads nowhere', async () => {
    const { host } = new URL(url);
    const two = await rawly(url, 'GET /v1/origin HTTP/1.1', 'Host: a.example', 'Host: b.example');
    expect(two).toMatch(/^HTTP\/1\.1 400 /);
    const absolute = await rawly(url, 'GET http://evil.example/v1/origin HTTP/1.1', `Host: ${host}`);
    expect(absolute).toMatch(/^HTTP\/1\.1 (200|400) /);
    expect(absolute).not.toMatch(/"host":"evil/);
    for (const line of ['GET /v1/recordings/rec_01jd0000000000000000000000/recording.mp4?token=a HTTP/1.1', 'GET http://evil.example/v1/recordings/rec_01jd0000000000000000000000/recording.mp4?token=a HTTP/1.1']) {
      expect(await rawly(url, line, 'Host: evil.example')).toMatch(/^location: https:\/\/media\.example\.com:8443\/base\/v1\/recordings\/rec_01jd0000000000000000000000\/recording\.mp4\?token=a\r$/im);
    }
    // as old health checks ask; workerd itself refuses it
    if (name !== 'workerd') expect(await rawly(url, 'GET /healthz HTTP/1.0')).toMatch(/^HTTP\/1\.[01] 200 /);
  });

  test('it describes itself, lives, and is ready', async () => {
    const described = await ask(`${url}/openapi.json`);
    expect(described).toMatchObject({ status: 200, body: { openapi: '3.1.0' } });
    expect(Object.keys(described.body.paths)).toEqual(expect.arrayContaining(['/v1/recordings', '/v1/recordings/{id}/stop']));
    expect((await ask(`${url}/docs`)).body).toContain('<title>Tabreel API</title>');
    expect(await ask(`${url}/healthz`)).toMatchObject({ status: 200, body: { status: 'ok' } });
    expect(await ask(`${url}/readyz`)).toMatchObject({ status: 200, body: { checks: { redis: { ok: true }, storage: { ok: true } } } });
    const { body: metrics } = await ask(`${url}/metrics`);
    expect(metrics).toMatch(/^tabreel_recordings\{state="queued"\} \d/m);
    // counts of one sandbox of many would be noise
    expect(metrics.includes('tabreel_http_request_seconds')).toBe(['node', 'bun', 'deno'].includes(name));
    expect(metrics.includes('tabreel_media_sockets')).toBe(name === 'node');
  });

  test('what another deployment holds is asked for there', async () => {
    for (const path of ['events', 'live.m3u8', 'live/x.m4s', 'recording.mp4', 'thumbnail.jpg', 'manifest.json']) {
      const target = `/v1/recordings/rec_00000000000000000000000000/${path}?token=a.b-c&x=1`;
      const answer = await ask(`${url}${target}`, { headers: { 'x-forwarded-host': 'evil.example' } });
      expect([path, answer.status, answer.headers.get('location')]).toEqual([path, 307, `https://media.example.com:8443/base${target}`]);
    }
  });

  test("the Media Push plugin's calls work, but for those that a page's worker has to answer", async () => {
    // workerd believes no forwarding header, and comes by loopback here
    await using public_ = name === 'workerd' ? await startWorkerd({ ...settings(name), PUBLIC_URL: 'https://rec.example.com' }, directory) : null;
    const at = public_?.url ?? url;
    const send = (path: string, body: unknown) =>
      ask(`${at}/LiveApp/rest/v1/media-push/${path}`, {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'rec.example.com' },
      });
    const streamId = `s${crypto.randomUUID()}`;
    const started = send(`start?streamId=${streamId}`, { url: page });
    const found = async () => (await ask(`${url}/v1/recordings?state=queued&limit=100`)).body.recordings.find((each: any) => each.push[0]?.streamId === streamId);
    await expect.poll(found, { timeout: 20_000 }).toMatchObject({ push: [{ url: expect.stringMatching(/^wss:.*\/LiveApp\/websocket$/), state: 'waiting' }] });
    expect((await send(`start?streamId=${streamId}`, { url: page })).body).toMatchObject({ success: false, message: expect.stringContaining('already exists') });
    expect(await send(`stop/${streamId}`, {})).toMatchObject({ status: 200, body: { success: true } });
    expect(await started).toMatchObject({ status: 200, body: { success: false, message: expect.stringContaining('stopped'), dataId: null, errorId: 0 } });
    const command = await send(`send-command?streamId=${streamId}`, { jsCommand: 'return 1' });
    if (serverless) expect(command).toMatchObject({ status: 501, body: { code: 'unsupported_here', detail: expect.stringContaining('Node edge') } });
    else expect(command).toMatchObject({ status: 200, body: { success: false, message: expect.stringContaining('Driver does not exist') } });
  });

  if (serverless) test('what the runtime can not do is answered with the reason', async () => {
    for (const path of ['/v1/recordings/rec_00000000000000000000000000/media', '/dashboard', '/dashboard/api/queues']) {
      const answer = await ask(`${url}${path}`);
      expect(answer.headers.get('content-type')).toBe('application/problem+json');
      expect(answer).toMatchObject({ status: 501, body: { code: 'unsupported_here', blame: 'service', retryable: false } });
      expect(answer.body.detail).toMatch(path.startsWith('/dashboard') ? /Node/ : /WebSocket/);
    }
  });
});

describe('settings without which a serverless edge would do harm', () => {
  test.skipIf(missing('workerd'))('without MEDIA_URL it takes no recordings, on workerd', async () => {
    await using worker = await startWorkerd({ ...settings('workerd'), MEDIA_URL: '' }, directory);
    await refusesCreate(worker.url);
  });

  test('without MEDIA_URL it takes no recordings, on Lambda', async () => {
    await using lambda = await startLambda({ ...settings('lambda'), MEDIA_URL: '' }, directory);
    await refusesCreate(lambda.urls['function-url'] ?? '');
  });

  async function refusesCreate(url: string) {
    const answer = await post(url, { url: page });
    expect(answer).toMatchObject({ status: 501, body: { code: 'unsupported_here' } });
    expect(answer.body.detail).toContain('MEDIA_URL');
    expect(await ask(`${url}/v1/recordings/rec_00000000000000000000000000/recording.mp4`)).toMatchObject({ status: 501, body: { detail: expect.stringContaining('MEDIA_URL') } });
    expect((await ask(`${url}/readyz`)).status).toBe(503);
    expect((await ask(`${url}/v1/recordings`)).status).toBe(200);
  }

  test('without TOKEN_SECRET it does not start', async () => {
    const { TOKEN_SECRET: _, ...without } = settings('node');
    const starts = [
      startLambda(without, directory),
      ...(missing('bun') ? [] : [startBun(without)]),
      ...(missing('deno') ? [] : [startDeno(without)]),
    ];
    for (const { status, ...outcome } of await Promise.allSettled(starts)) {
      expect(status).toBe('rejected');
      expect(String((outcome as { reason?: unknown }).reason)).toContain('TOKEN_SECRET is not set');
    }
  });

  test.skipIf(missing('workerd'))('a Worker, which has no start, answers 500 and says what is wrong in its log', async () => {
    const { TOKEN_SECRET: _, ...without } = settings('workerd');
    await using worker = await startWorkerd(without, directory);
    const answer = await ask(`${worker.url}/v1/recordings`);
    expect(answer).toMatchObject({ status: 500, body: { code: 'internal' } });
    expect(JSON.stringify(answer.body)).not.toContain('TOKEN_SECRET');
    expect(worker.output()).toContain('TOKEN_SECRET is not set');
  });
});

describe.skipIf(!hasRedisServer)('while Redis is away every runtime says so within two seconds, and goes on once it is back', () => {
  const all = (of: (url: string, name: RuntimeName) => Promise<unknown>) => Promise.all([...started.runtimes].map(([name, { url }]) => of(url, name)));

  async function refusesFast(url: string, name: RuntimeName) {
    const timed = async (call: Promise<Answer>) => {
      const begin = performance.now();
      const { status, body, headers } = await call;
      return { status, code: body.code, type: headers.get('content-type'), retry: headers.get('retry-after'), fast: performance.now() - begin < 2000 };
    };
    const answers = await Promise.all([timed(post(url, { url: page })), timed(ask(`${url}/v1/recordings`))]);
    expect((await ask(`${url}/healthz`)).status).toBe(200);
    expect(await ask(`${url}/readyz`)).toMatchObject({ status: 503, body: { checks: { redis: { ok: false } } } });
    for (const answer of answers) {
      expect({ name, ...answer }).toEqual({ name, status: 503, code: 'redis_unavailable', type: 'application/problem+json', retry: '1', fast: true });
    }
  }
  async function recovers(url: string, name: RuntimeName) {
    const until = performance.now() + 6000;
    for (;;) {
      const { status } = await post(url, { url: page });
      if (status === 202) return;
      if (performance.now() > until) throw new Error(`${name} still answers ${status}`);
    }
  }

  test('frozen', async () => {
    real?.freeze();
    try {
      await all(refusesFast);
    } finally {
      real?.thaw();
    }
    await all(recovers);
  }, 20_000);

  // between two requests a function is frozen, for minutes maybe: what it held is worth nothing then
  test.for(['lambda', 'workerd'] as const)('%s: a connection that was forgotten on the way costs no request', async (name, { skip }) => {
    if (name === 'workerd' && missing(name)) skip();
    await using path = await silencablePath(Number(new URL(redis.url).port));
    const over = { ...settings(name), REDIS_URL: `redis://127.0.0.1:${path.port}` };
    await using runtime = name === 'lambda' ? await startLambda(over, directory) : await startWorkerd(over, directory);
    const url = 'urls' in runtime ? (runtime.urls['function-url'] ?? '') : runtime.url;
    expect((await ask(`${url}/v1/recordings`)).status).toBe(200);
    path.silence();
    expect((await ask(`${url}/v1/recordings`)).status).toBe(200);
  });

  test('gone', async () => {
    await real?.kill();
    await all(refusesFast);
    await real?.start();
    await all(recovers);
  }, 20_000);
});

/** What no HTTP client would send. */
function rawly(url: string, ...lines: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1', () => socket.write([...lines, 'Connection: close', '', ''].join('\r\n')));
    let text = '';
    socket.on('data', (data) => (text += String(data)));
    socket.on('error', reject);
    socket.on('close', () => resolve(text));
  });
}

/** Takes jobs until it finds this one, as a worker would read it. */
async function consume(prefix: string, id: string): Promise<RecordingJob> {
  const connection = patientRedis(redis.url, () => undefined);
  const found = Promise.withResolvers<RecordingJob>();
  const worker = new Worker(
    RECORD_QUEUE,
    async ({ data }) => {
      const job = parseJob(data);
      if (job.recordingId === id) found.resolve(job);
    },
    { connection, prefix },
  );
  worker.on('failed', (_job, error) => found.reject(error));
  try {
    return await found.promise;
  } finally {
    await worker.close();
    connection.disconnect();
  }
}
