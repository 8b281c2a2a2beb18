import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readEdgeConfig, readFinaliserConfig } from '../../edge/config.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { eventually } from './harness.ts';

let redis: TestRedis;
beforeAll(async () => {
  redis = await startRedis();
});
const children: ChildProcess[] = [];
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  await redis[Symbol.asyncDispose]();
});

function start(entry: string, environment: Record<string, string>) {
  const child = spawn(process.execPath, [fileURLToPath(new URL(`../../edge/${entry}`, import.meta.url))], { env: environment });
  children.push(child);
  let output = '';
  child.stdout.on('data', (data) => (output += String(data)));
  child.stderr.on('data', (data) => (output += String(data)));
  return { child, output: () => output, exit: once(child, 'exit') as Promise<[number | null, string | null]> };
}

test.each(['SIGTERM', 'SIGINT'] as const)('%s ends edge and finaliser in order', async (signal) => {
  const environment = { ...redis.environment, PORT: '0', STORAGE_URL: 'file:///tmp/tabreel-none' };
  const edge = start('node.ts', environment);
  const finaliser = start('finaliser.ts', environment);
  await eventually(async () => edge.output(), (text) => text.includes('edge listens'));
  await eventually(async () => finaliser.output(), (text) => text.includes('finaliser runs'));
  expect(edge.output().match(/TOKEN_SECRET/g)).toHaveLength(1);
  edge.child.kill(signal);
  finaliser.child.kill(signal);
  expect(await edge.exit).toEqual([0, null]);
  expect(await finaliser.exit).toEqual([0, null]);
});

test('a wrong setting ends the process at once, with one line for each', async () => {
  const edge = start('node.ts', { REDIS_URL: 'http://x', PORT: '99999', TOKEN_SECRET: 'short' });
  expect(await edge.exit).toEqual([1, null]);
  expect(edge.output().trim().split('\n')).toHaveLength(3);
  expect(edge.output()).not.toContain('short"');
});

describe('settings', () => {
  const base = { REDIS_URL: 'redis://127.0.0.1' };
  const read = (more: Record<string, string>) => readEdgeConfig({ ...base, ...more }, 'file:///tmp/r');

  test('have defaults', () => {
    expect(read({})).toMatchObject({ host: '127.0.0.1', port: 8080, queuePrefix: 'tabreel', storageUrl: 'file:///tmp/r', maxDuration: 14_400, publicUrl: null, tokenSecrets: null });
    expect(readFinaliserConfig(base, 'file:///tmp/r')).toEqual({ redisUrl: 'redis://127.0.0.1', queuePrefix: 'tabreel', storageUrl: 'file:///tmp/r', tokenSecrets: null, secretsKeys: null, retention: null, outboundAllow: [], healthPort: null });
    expect(read({ PUBLIC_URL: 'https://rec.example.com/x/' }).publicUrl).toBe('https://rec.example.com/x');
    expect(read({})).toMatchObject({ allowedHosts: null, wsScheme: 'auto', allowInsecureWs: false });
    expect(read({ ALLOWED_HOSTS: 'rec.example.com, *.example.org' }).allowedHosts).toEqual(['rec.example.com', '*.example.org']);
    expect(['never', '90', '90m', '12h', '30d'].map((text) => read({ RETENTION: text }).retention)).toEqual([null, 90, 5400, 43_200, 2_592_000]);
    expect(['0', '1000', '100M', '2G'].map((text) => read({ MIN_FREE_SPACE: text }).minFreeBytes)).toEqual([0, 1000, 100 * 2 ** 20, 2 ** 31]);
    expect(read({ MEDIA_URL: 'ws://127.0.0.1:9000/' }).mediaUrl).toBe('ws://127.0.0.1:9000');
    const keys = { API_KEYS: '{"keys":[]}', TOKEN_SECRET: '0123456789abcdef' };
    expect(read(keys).host).toBe('0.0.0.0');
    expect(read({ ...keys, HOST: '127.0.0.1' }).host).toBe('127.0.0.1');
    expect(read({ API_KEYS: '/etc/keys.json', TOKEN_SECRET: '0123456789abcdef' }).apiKeys).toEqual({ file: '/etc/keys.json' });
    expect(read({ MEDIA_URL: 'ws://media', ALLOW_INSECURE_WS: 'true' }).mediaUrl).toBe('ws://media');
  });

  test('of an object store are read where there is one', () => {
    const variables = { S3_ENDPOINT: 'http://127.0.0.1:9000/', AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'secret', AWS_REGION: 'eu-north-1' };
    const settings = { bucket: 'bucket', endpoint: 'http://127.0.0.1:9000', region: 'eu-north-1', credentials: { accessKeyId: 'id', secretAccessKey: 'secret' }, checksums: 'when_supported' };
    expect(read({ STORAGE_URL: 's3://bucket/a/b/', ...variables }).s3).toEqual({ ...settings, prefix: 'a/b/' });
    expect(read({ STORAGE_URL: 's3://bucket', ...variables, AWS_REQUEST_CHECKSUM_CALCULATION: 'WHEN_REQUIRED' }).s3).toEqual({ ...settings, prefix: '', checksums: 'when_required' });
    expect(readFinaliserConfig({ ...base, STORAGE_URL: 's3://bucket' }, '').s3).toEqual({ bucket: 'bucket', prefix: '', endpoint: null, region: 'us-east-1', credentials: null, checksums: 'when_supported' });
    expect(read({ ...variables, AWS_REGION: '??' }).s3).toBeUndefined();
  });

  test.each([
    [{ HOST: '0.0.0.0' }, /HOST="0\.0\.0\.0".*API_KEYS/],
    [{ API_KEYS: '/etc/keys.json' }, /TOKEN_SECRET is not set.*0\.0\.0\.0/],
    [{ API_KEYS: '{"keys":[' }, /API_KEYS: must be JSON/],
    [{ API_KEYS: '{"keys":[{"name":"a","sha256":"tbr_hunter2","scopes":["read"]}]}' }, /^(?!.*hunter2)API_KEYS: keys\.0\.sha256: must be the SHA-256/],
    [{ API_KEYS: '{"keys":[{"name":"~a","scopes":["write"],"limit":{}}]}' }, /keys\.0\.name: must have.*keys\.0\.sha256.*keys\.0\.scopes\.0.*limit/s],
    [{ CORS_ORIGINS: 'https://a.example/' }, /CORS_ORIGINS="https:\/\/a\.example\/": must be origins/],
    [{ HEALTH_PORT: 'x' }, /HEALTH_PORT/],
    [{ PORT: '-1' }, /PORT/],
    [{ PUBLIC_URL: 'ws://x' }, /PUBLIC_URL/],
    [{ PUBLIC_URL: 'https://x/?a' }, /PUBLIC_URL/],
    [{ MEDIA_URL: 'https://x' }, /MEDIA_URL/],
    [{ PUBLIC_URL: 'https://:hunter2@x' }, /^(?!.*hunter2)PUBLIC_URL="\(hidden\)@x"/],
    [{ MEDIA_URL: 'ws://media.example.com' }, /MEDIA_URL="ws:\/\/media\.example\.com".*wss:\/\/.*ALLOW_INSECURE_WS/],
    [{ TRUSTED_PROXIES: 'loopback,somebody' }, /somebody/],
    [{ ALLOWED_HOSTS: 'rec.example.com, https://x' }, /ALLOWED_HOSTS: "https:\/\/x"/],
    [{ ALLOWED_HOSTS: ' , ' }, /ALLOWED_HOSTS=" , ": must be one or more/],
    [{ WS_SCHEME: 'https' }, /WS_SCHEME="https": must be auto, wss or ws/],
    [{ STORAGE_URL: 'https://bucket' }, /STORAGE_URL="https:\/\/bucket": must be a file:\/\/\/ URL, or s3/],
    [{ STORAGE_URL: 's3://' }, /STORAGE_URL/],
    [{ STORAGE_URL: 's3://bucket/../x' }, /STORAGE_URL="s3:\/\/bucket\/\.\.\/x": must be s3/],
    [{ STORAGE_URL: 's3://bucket', S3_ENDPOINT: 'minio:9000' }, /S3_ENDPOINT/],
    [{ STORAGE_URL: 's3://bucket', S3_ENDPOINT: 'http://user:hunter2@minio' }, /^(?!.*hunter2).*S3_ENDPOINT/],
    [{ STORAGE_URL: 's3://bucket', AWS_ACCESS_KEY_ID: 'a' }, /AWS_SECRET_ACCESS_KEY must be set/],
    [{ STORAGE_URL: 's3://bucket', AWS_SECRET_ACCESS_KEY: 'hunter2' }, /^(?!.*hunter2).*AWS_ACCESS_KEY_ID/],
    [{ STORAGE_URL: 's3://bucket', AWS_REQUEST_CHECKSUM_CALCULATION: 'off' }, /AWS_REQUEST_CHECKSUM_CALCULATION="off"/],
    [{ RETENTION: '30 days' }, /RETENTION="30 days": must be never/],
    [{ RETENTION: '0' }, /RETENTION/],
    [{ MIN_FREE_SPACE: '10%' }, /MIN_FREE_SPACE/],
    [{ WEBRTC: 'on' }, /WEBRTC/],
    [{ MAX_DURATION: '0' }, /MAX_DURATION/],
    [{ TOKEN_SECRET: 'abc' }, /TOKEN_SECRET=\(hidden\)/],
  ])('%j is refused', (more, message) => {
    expect(() => read(more as unknown as Record<string, string>)).toThrow(message);
  });
});
