/** Redis over TLS, with an authority that only REDIS_CA names and the user of docs/redis.md: what is served, and what is said of refusals. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { createLog } from '../../shared/log.ts';
import { createRecordQueue, patientRedis, recordJobOptions, type RedisAddress } from '../../shared/queue.ts';
import { readRedisTls } from '../../shared/redis-tls.ts';
import { redisTroubleLog } from '../../shared/redis-trouble.ts';
import { createRecordingStore } from '../../shared/recording-store.ts';
import { newRecordingId } from '../../shared/recording.ts';
import { createAuthority, type Authority } from '../helpers/certificates.ts';
import { hasTlsRedis, realRedis, startRedis, tlsSetup, type RealRedis } from '../helpers/redis.ts';
import { someJob } from './some-job.ts';

const fields = (id: string) => ({
  job: someJob(id),
  origin: { scheme: 'https', host: 'rec.example.com', port: null, source: 'socket' } as const,
  metadata: {}, priority: 5, startAt: null, now: Date.now(), idempotency: null,
});

describe.skipIf(!hasTlsRedis)('a Redis with TLS, a private authority and users', () => {
  let redis: RealRedis;
  let other: Authority;
  beforeAll(async () => {
    [redis, other] = await Promise.all([realRedis(tlsSetup), createAuthority('Somebody else')]);
    await redis.start();
  });
  afterAll(async () => {
    await redis[Symbol.asyncDispose]();
    await other[Symbol.asyncDispose]();
  });

  /** What a process of these settings says of Redis, first of all. */
  async function complaint(environment: Record<string, string>, use: (address: RedisAddress) => Promise<unknown> = async () => undefined): Promise<string> {
    const address = { redisUrl: environment['REDIS_URL'] ?? '', ...(await readRedisTls(environment)) };
    const said = Promise.withResolvers<string>();
    const log = createLog('debug', (line) => said.resolve(line));
    const client = patientRedis(address, redisTroubleLog(log));
    onTestFinished(() => client.disconnect());
    use(address).catch((error: unknown) => redisTroubleLog(log)(error as Error));
    return said.promise;
  }
  const withUrl = (change: (url: URL) => void): string => {
    const url = new URL(redis.redisUrl);
    change(url);
    return url.href;
  };

  test('serves whoever trusts its authority: a file or the PEM itself', async () => {
    const { REDIS_CA = '', REDIS_URL } = redis.environment;
    for (const ca of [REDIS_CA, await readFile(REDIS_CA, 'utf8')]) {
      const client = patientRedis({ redisUrl: REDIS_URL, ...(await readRedisTls({ REDIS_URL, REDIS_CA: ca })) }, () => undefined);
      onTestFinished(() => client.disconnect());
      expect(await client.ping()).toBe('PONG');
    }
  });

  test('what is refused is said with what mends it, and never with a password', async () => {
    const { REDIS_CA = '', REDIS_URL } = redis.environment;
    const port = new URL(REDIS_URL).port;
    const lines = await Promise.all([
      complaint({ REDIS_URL }),
      complaint({ REDIS_URL, REDIS_CA: other.caPath }),
      complaint({ REDIS_URL: withUrl((url) => (url.password = 'a-wrong-one')), REDIS_CA }),
      complaint({ REDIS_URL: withUrl((url) => (url.password = url.username = '')), REDIS_CA }),
      complaint({ REDIS_URL: `redis://127.0.0.1:${port}` }),
    ]);
    const untrusted = `The authority of the certificate at 127.0.0.1:${port} is not trusted: set REDIS_CA to a PEM file of that authority`;
    for (const [i, part] of [
      untrusted,
      untrusted,
      'Redis refuses the password of REDIS_URL, or has no user tabreel',
      'Redis wants a password: REDIS_URL has none (rediss://USER:PASSWORD@HOST:PORT)',
      `127.0.0.1:${port} hung up at the first word: where it speaks TLS, REDIS_URL has to begin with rediss://`,
    ].entries()) {
      expect(lines[i]).toContain(part);
    }
    expect(lines.join('\n')).not.toMatch(/a-wrong-one|test-password/);
  });

  test('TLS where none is spoken is told as that', async () => {
    if (process.env['TABREEL_TEST_REDIS'] === 'tls') return;
    await using plain = await startRedis();
    const line = await complaint({ REDIS_URL: plain.redisUrl.replace('redis:', 'rediss:') });
    expect(line).toMatch(/speaks no TLS: its URL is redis:|Nothing answered in TLS at /);
  });

  test('a certificate of the process is shown where the server wants one', async () => {
    const setup = await tlsSetup();
    const settings = setup.settings.with(setup.settings.indexOf('--tls-auth-clients') + 1, 'yes');
    const { REDIS_CA = '', REDIS_URL } = setup.address.environment;
    const file = (name: string) => settings[settings.indexOf(name) + 1] ?? '';
    await using strict = await realRedis(async () => ({ ...setup, settings, answers: async () => true, verify: async () => undefined }));
    await strict.start();
    expect(await complaint({ REDIS_URL, REDIS_CA })).toMatch(/wants a certificate of this process|ECONNREFUSED/);
    const own = await readRedisTls({ REDIS_URL, REDIS_CA, REDIS_CERT: file('--tls-cert-file'), REDIS_KEY: file('--tls-key-file') });
    const client = patientRedis({ redisUrl: REDIS_URL, ...own }, () => undefined);
    onTestFinished(() => client.disconnect());
    expect(await client.ping()).toBe('PONG');
  });

  test.each([
    [{ REDIS_CA: '/no/such.pem' }, /REDIS_CA="\/no\/such\.pem": must be a file with certificates in PEM \(ENOENT/],
    [{ REDIS_CA: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----' }, /REDIS_CA=\(PEM\): .*certificate 1 in it is not valid/],
    [{ REDIS_CERT: '/etc/hosts' }, /REDIS_KEY is not set: a certificate and its key go together/],
    [{ REDIS_URL: 'redis://h', REDIS_CA: '/etc/hosts' }, /REDIS_CA is set, and REDIS_URL is not rediss:\/\//],
  ])('%j stops a process at once', async (more, message) => {
    await expect(readRedisTls({ REDIS_URL: 'rediss://h', ...more })).rejects.toThrow(message);
  });

  test('a rule that its user lacks is named', async () => {
    const setup = await tlsSetup();
    const settings = setup.settings.flatMap((each) => (each === '+zadd' ? [] : each === '&tabreel:*' || each === '&tabreel-*:*' ? [] : [each]));
    await using poor = await realRedis(async () => ({ ...setup, settings, verify: async () => undefined }));
    await poor.start();
    const { environment } = setup.address;
    const create = (prefix: string) => async (address: RedisAddress) => {
      const client = patientRedis(address, () => undefined);
      onTestFinished(() => client.disconnect());
      await createRecordingStore(client, prefix).create(fields(newRecordingId()));
    };
    const lines = await Promise.all([
      complaint(environment, create('else')),
      complaint(environment, create('tabreel')),
      complaint(environment, async (address) => {
        const client = patientRedis(address, () => undefined);
        onTestFinished(() => client.disconnect());
        await client.subscribe('tabreel:changed');
      }),
    ]);
    expect(lines[0]).toMatch(/may not touch the key else:\S*: it lacks ~else:\*; docs\/redis\.md has the rules/);
    expect(lines[1]).toMatch(/may not run ZADD: it lacks \+zadd|tabreel lacks a right/);
    expect(lines[2]).toMatch(/may not use the channel tabreel:changed: it lacks &tabreel:\*/);
    for (const line of lines) expect(line).toContain('"level":"error"');
  });

  test('a restart loses nothing, as the rules of the documentation leave the default user its commands', async () => {
    await using own = await realRedis(tlsSetup);
    await own.start();
    const client = patientRedis(own, () => undefined);
    onTestFinished(() => client.disconnect());
    const queue = createRecordQueue(client, 'tabreel', () => undefined);
    const store = createRecordingStore(client, 'tabreel');
    const id = newRecordingId();
    await store.create(fields(id));
    await queue.add('record', someJob(id), recordJobOptions(id, 0, 0));
    await client.multi().set('tabreel:both', '1').set('tabreel:of-it', '2').exec();
    await own.kill();
    await own.start();
    expect(await client.get('tabreel:both')).toBe('1');
    expect(await store.get(id)).not.toBeNull();
    expect(await queue.getJob(id)).toBeDefined();
    await queue.close();
  });
});
