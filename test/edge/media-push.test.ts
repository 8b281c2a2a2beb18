/** The Media Push plugin's calls, sent as its README gives them. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { RecordingRecord } from '../../shared/recording-store.ts';
import { pageSecrets } from '../../shared/recording.ts';
import { unseal } from '../../shared/token.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { lacks } from '../helpers/service.ts';
import { testEdge, type TestEdge } from './harness.ts';
import { stubWorker, type StubWorker } from './stub-worker.ts';

const SECRETS = ['media-push-test-secrets-key'];
const page = 'https://antmedia.example.com/LiveApp/play.html?id=stream1';

let redis: TestRedis;
let edge: TestEdge;
let worker: StubWorker;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis, { secretsKeys: SECRETS });
  worker = await stubWorker(edge, {
    standing({ job }) {
      if (job.spec.url.includes('refused')) {
        return { state: 'failed', error: { code: 'push_unauthorized', message: 'antmedia.example.com: it refuses the token', blame: 'caller', retryable: false } };
      }
      return { state: 'live' };
    },
    answer({ script }) {
      return script.includes('throw') ? { error: { code: 'script_threw', message: 'Error: no (line 1)' } } : { result: JSON.parse(script.replace(/^return /, '')) as never };
    },
  });
});
afterAll(async () => {
  await worker[Symbol.asyncDispose]();
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const call = async (path: string, body?: unknown, headers: Record<string, string> = {}, at = edge) =>
  at.api(`/LiveApp/rest/v1/media-push/${path}`, {
    method: 'POST',
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
  });
const refusal = (message: unknown) => ({ success: false, message, dataId: null, errorId: 0 });
const recordingOf = async (streamId: string, app = 'LiveApp'): Promise<RecordingRecord> => {
  const id = await edge.control.redis.get(`${edge.config.queuePrefix}:ams:${app}:${streamId}`);
  return (await edge.control.store.get(id ?? '')) as RecordingRecord;
};

describe.skipIf(await lacks('curl'))("the README's calls", () => {
  /** In a shell, word for word; only the server's address is this test's. */
  const shell = async (command: string, variables: Record<string, string> = {}) => {
    const environment = { ...process.env, ANT_MEDIA_SERVER_BASE_URL: edge.url, APP_NAME: 'WebRTCAppEE', URL_TO_RECORD: page, ...variables };
    const { stdout } = await promisify(execFile)('sh', ['-c', command], { env: environment });
    const [head = '', body = ''] = stdout.split('\r\n\r\n');
    expect(head).toMatch(/^HTTP\/1\.1 200 /);
    expect(head.toLowerCase()).toMatch(/\r\ncontent-type: application\/json/);
    return JSON.parse(body) as { success: boolean; message: string | null; dataId: string; errorId: number };
  };

  test('start, send-command and stop', async () => {
    const started = await shell(
      `curl -i -X POST -H "Accept: Application/json" -H "Content-Type: application/json" "\${ANT_MEDIA_SERVER_BASE_URL}/\${APP_NAME}/rest/v1/media-push/start" -d '{"url": "'"\${URL_TO_RECORD}"'", "width": 1280, "height": 720}'`,
    );
    expect(Object.keys(started)).toEqual(['success', 'message', 'dataId', 'errorId']);
    expect(started).toEqual({ success: true, message: null, dataId: expect.stringMatching(/^[A-Za-z0-9]{12}\d{13}$/), errorId: 0 });
    const { job } = await recordingOf(started.dataId, 'WebRTCAppEE');
    expect(job.spec).toMatchObject({ url: page, width: 1280, height: 720, record: false, maxDuration: edge.config.maxDuration });
    expect(job.spec.push).toEqual([{ type: 'antmedia', url: `${edge.url.replace('http', 'ws')}/WebRTCAppEE/websocket`, streamId: started.dataId }]);

    const command = await shell(
      `curl -i -X POST -H "Accept: Application/json" -H "Content-Type: application/json" "\${ANT_MEDIA_SERVER_BASE_URL}/WebRTCAppEE/rest/v1/media-push/send-command?streamId=\${STREAM_ID}"  -d '{"jsCommand": "return 42"}'`,
      { STREAM_ID: started.dataId },
    );
    expect(command).toEqual({ success: true, message: '42', dataId: started.dataId, errorId: 0 });

    const stop = 'curl -i -X POST -H "Accept: Application/json" "${ANT_MEDIA_SERVER_BASE_URL}/${APP_NAME}/rest/v1/media-push/stop/${STREAM_ID}"';
    expect(await shell(stop, { STREAM_ID: started.dataId })).toEqual({ success: true, message: null, dataId: null, errorId: 0 });
    expect(await shell(stop, { STREAM_ID: started.dataId })).toEqual(refusal(`Driver does not exist for stream id: ${started.dataId}`));
  });

  test('one that the server is to record, with switches for Chrome', async () => {
    const { success, message, dataId } = await shell(
      `curl -i -X POST -H "Accept: Application/json" -H "Content-Type: application/json" "\${ANT_MEDIA_SERVER_BASE_URL}/\${APP_NAME}/rest/v1/media-push/start" -d  '{"url": "'"\${URL_TO_RECORD}"'", "width": 1280, "height": 720, "recordType":"mp4", "extraChromeSwitches":"--start-fullscreen,--disable-gpu"}'`,
    );
    expect([success, message]).toEqual([true, null]);
    const { job } = await recordingOf(dataId, 'WebRTCAppEE');
    expect(job.spec.push[0]).toMatchObject({ recordType: 'mp4' });
    expect(job.spec.switches).toEqual([]);
  });
});

describe('start', () => {
  test('goes to the application behind the host that the caller used', async () => {
    await using keyed = await testEdge(redis, { queuePrefix: edge.config.queuePrefix, secretsKeys: SECRETS }, { keyed: true });
    const { body } = await call('start?streamId=outside', { url: page }, { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'media.example.com:5443' }, keyed);
    expect(body).toEqual({ success: true, message: null, dataId: 'outside', errorId: 0 });
    const { job } = await recordingOf('outside');
    expect(job.spec.push[0]?.url).toBe('wss://media.example.com:5443/LiveApp/websocket');
    expect(job.mediaUrl).toBe('wss://media.example.com:5443/LiveApp/websocket');
    expect([job.spec.width, job.spec.height]).toEqual([1280, 720]);
  });

  test('takes what Jackson takes: numbers in quotes, null for nothing; odd sizes are made even', async () => {
    const { body } = await call('start', { url: page, width: '641', height: 361, token: null, recordType: '', extraChromeSwitches: null, jsCommand: null });
    expect(body).toMatchObject({ success: true });
    const { spec } = (await recordingOf(body.dataId)).job;
    expect([spec.width, spec.height, spec.push[0]?.recordType]).toEqual([640, 360, undefined]);
    const zero = await call('start', { url: page, width: 0, height: 360 });
    expect((await recordingOf(zero.body.dataId)).job.spec).toMatchObject({ width: 1280, height: 720 });
  });

  test('keeps the token sealed, and out of logs and records', async () => {
    const { body } = await call('start', { url: page, token: 'Sesame-Token' });
    const record = await recordingOf(body.dataId);
    const { push } = pageSecrets.parse(await unseal(SECRETS, record.id, record.job.sealed ?? ''));
    expect(push?.[0]?.token).toBe('Sesame-Token');
    expect(JSON.stringify([body, record, edge.logs])).not.toContain('Sesame-Token');
  });

  test('passes on the switches that can do no harm, and names the others', async () => {
    const extraChromeSwitches = '--accept-lang=de, --no-sandbox,,--proxy-server=http://evil.example.com,--disable-web-security,--force-dark-mode,--load-extension=/tmp/x,--accept-lang=de --no-sandbox';
    const { body } = await call('start', { url: page, extraChromeSwitches });
    expect(body).toMatchObject({
      success: true,
      message: 'Chrome switches that are not passed on: --no-sandbox, --proxy-server=http://evil.example.com, --disable-web-security, --load-extension=/tmp/x, --accept-lang=de --no-sandbox',
    });
    expect((await recordingOf(body.dataId)).job.spec.switches).toEqual(['--accept-lang=de', '--force-dark-mode']);
  });

  test.each([
    [{}, 'Incoming url: null is not a valid url'],
    [{ url: 'example' }, 'Incoming url: example is not a valid url'],
    [{ url: 'file:///etc/passwd' }, 'Incoming url: file:///etc/passwd is not a valid url'],
    [{ url: page, recordType: 'avi' }, 'recordType: must be one of mp4, webm'],
    [{ url: page, width: 10_000, height: 720 }, expect.stringMatching(/^width: /)],
    [{ url: page, width: 2, height: 2 }, expect.stringMatching(/^width: .*height: /)],
    [{ url: 'https://u:p@example.com/' }, expect.stringMatching(/^url: must not carry/)],
    [{ url: `${page}&refused` }, 'antmedia.example.com: it refuses the token'],
  ])('%j is answered as the plugin answers a failure', async (request, message) => {
    const { status, body } = await call('start', request);
    expect([status, body]).toEqual([200, refusal(message)]);
  });

  test('names fields as the plugin does', async () => {
    expect((await call(`start?streamId=${encodeURIComponent('a b')}`, { url: page })).body).toEqual(refusal(expect.stringMatching(/^streamId: must have/)));
    await using bare = await testEdge(redis);
    expect((await call('start', { url: page, token: 't' }, {}, bare)).body).toEqual(refusal(expect.stringMatching(/^token: .*SECRETS_KEY/)));
  });

  test.each([
    ['{', 400, 'invalid_json'],
    ['', 400, 'invalid_json'],
    ['{"url": "https://example.com/", "colour": "red"}', 400, 'invalid_request'],
    ['{"url": "https://example.com/", "width": "wide"}', 400, 'invalid_request'],
  ])('a body that no handler of the plugin sees, %s, is answered %i', async (text, status, code) => {
    const answer = await call('start', text);
    expect([answer.status, answer.body.code]).toEqual([status, code]);
  });

  test('takes no other method, type or application', async () => {
    expect((await edge.api('/LiveApp/rest/v1/media-push/start')).status).toBe(405);
    expect((await call('start', '{}', { 'content-type': 'text/plain' })).status).toBe(415);
    const odd = await edge.api('/Live:App/rest/v1/media-push/start', { method: 'POST', body: JSON.stringify({ url: page }), headers: { 'content-type': 'application/json' } });
    expect(odd.body).toEqual(refusal(expect.stringMatching(/^app: /)));
  });

  test('a stream has one session at a time in its application, whoever comes at once', async () => {
    const all = await Promise.all(Array.from({ length: 6 }, () => call('start?streamId=single', { url: page })));
    const taken = refusal('Session with the same streamId: single already exists. Please stop it first');
    expect(all.filter(({ body }) => body.success)).toHaveLength(1);
    expect(all.filter(({ body }) => !body.success).map(({ body }) => body)).toEqual(Array.from({ length: 5 }, () => taken));
    const other = await edge.api('/live/rest/v1/media-push/start?streamId=single', { method: 'POST', body: JSON.stringify({ url: page }), headers: { 'content-type': 'application/json' } });
    expect(other.body).toMatchObject({ success: true, dataId: 'single' });
    expect((await call('stop/single')).body.success).toBe(true);
    expect((await call('start?streamId=single', { url: page })).body.success).toBe(true);
  });

  test('one that failed leaves its stream id free', async () => {
    expect((await call('start?streamId=again', { url: `${page}&refused` })).body.success).toBe(false);
    expect((await call('start?streamId=again', { url: 'https://u:p@example.com/' })).body.success).toBe(false);
    expect((await call('start?streamId=again', { url: page })).body.success).toBe(true);
  });
});

describe('from another edge', () => {
  test('a stream is known there, and ends there', async () => {
    await using second = await testEdge(redis, { queuePrefix: edge.config.queuePrefix, secretsKeys: SECRETS });
    expect((await call('start?streamId=shared', { url: page })).body.success).toBe(true);
    expect((await call('start?streamId=shared', { url: page }, {}, second)).body.message).toContain('already exists');
    expect((await call('send-command?streamId=shared', { jsCommand: 'return [1, "a"]' }, {}, second)).body).toEqual({ success: true, message: '[1,"a"]', dataId: 'shared', errorId: 0 });
    expect((await call('stop/shared', undefined, {}, second)).body.success).toBe(true);
    expect((await recordingOf('shared')).desired).toBe('stopped');
    expect((await call('send-command?streamId=shared', { jsCommand: 'return 1' })).body).toEqual(refusal('Driver does not exist for stream id: shared'));
  });
});

describe('send-command', () => {
  test.each([
    ['return "text"', 'text'],
    ['return 1.5', '1.5'],
    ['return true', 'true'],
    ['return null', ''],
    ['return {"a":1}', '{"a":1}'],
  ])('%s comes back as %j', async (jsCommand, message) => {
    const streamId = (await call('start', { url: page })).body.dataId as string;
    expect((await call(`send-command?streamId=${streamId}`, { jsCommand })).body).toEqual({ success: true, message, dataId: streamId, errorId: 0 });
    expect(worker.commands.at(-1)).toEqual({ script: jsCommand, isBody: true, timeout: 30 });
  });

  test('tells what is missing and what a command throws', async () => {
    await call('start?streamId=throws', { url: page });
    expect((await call('send-command', { jsCommand: 'return 1' })).body).toEqual(refusal('streamId query parameter is mandatory.'));
    expect((await call('send-command?streamId=throws', {})).body).toEqual(refusal('jsCommand is mandatory.'));
    expect((await call('send-command?streamId=nobody', { jsCommand: 'return 1' })).body).toEqual(refusal('Driver does not exist for stream id: nobody'));
    expect((await call('send-command?streamId=throws', { jsCommand: 'throw new Error("no")' })).body).toEqual(refusal('Command cannot be executed: Error: no (line 1)'));
  });
});

test('is described', async () => {
  const { body } = await edge.api('/openapi.json');
  const paths = Object.keys(body.paths).filter((path) => path.includes('media-push'));
  expect(paths.sort()).toEqual(['send-command', 'start', 'stop/{streamId}'].map((name) => `/{app}/rest/v1/media-push/${name}`));
});
