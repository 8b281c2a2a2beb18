/**
 * Where secrets are not: command lines and environments of what runs, Redis, logs, answers, files. With the processes of a deployment,
 * while a recording is made that has one of each kind, and when it is over.
 */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { unseal } from '../../shared/token.ts';
import { startAntMedia } from '../antmedia/server.ts';
import { contents } from '../edge/webhook-harness.ts';
import { startDeployment } from '../helpers/deployment.ts';
import { keyList, testKey } from '../helpers/keys.ts';
import { startPages } from '../helpers/pages.ts';
import { below, commandOf, processTable } from '../helpers/processes.ts';
import { lacks } from '../helpers/service.ts';

const random = (name: string) => `${name}${randomBytes(15).toString('hex')}`;
const environOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1');
  } catch {
    return ''; // it has ended meanwhile
  }
};

describe.skipIf(await lacks('ffmpeg', 'headless shell', 'redis-server'))('secrets', () => {
  it('are nowhere in the clear while a recording is made, nor when it is over', async () => {
    await using stack = new AsyncDisposableStack();
    const caller = await testKey('caller', ['record', 'read']);
    const admin = await testKey('admin', ['admin']);
    const own = { password: random('redispassword'), token: random('tokensecret'), seal: random('secretskey'), s3: random('s3key') };
    const given = {
      header: random('header'), cookie: random('cookie'), pushToken: random('pushtoken'), pushQuery: random('pushquery'), subscriberCode: random('subscriber'),
      refusedToken: random('refusedtoken'), webhookPath: random('webhookpath'), webhookSecret: `whsec_${randomBytes(24).toString('base64')}`,
    };
    const secrets: Record<string, string> = { ...given, ...own, callerKey: caller.key, adminKey: admin.key };

    const pages = stack.use(await startPages());
    const media = stack.use(await startAntMedia({ token: given.pushToken }));
    const told: string[] = [];
    const receiver = createServer((request, response) => {
      told.push(request.url ?? '');
      request.resume();
      // the first of each kind fails, and is told of
      response.writeHead(told.length === 1 ? 500 : 204).end();
    }).listen(0, '127.0.0.1');
    stack.defer(() => void receiver.close());
    const deployment = stack.use(
      await startDeployment({
        redisPassword: own.password,
        environment: { SECRETS_KEY: own.seal, SLOTS: '2' },
        storing: { TOKEN_SECRET: own.token, API_KEYS: keyList(caller, admin), AWS_SECRET_ACCESS_KEY: own.s3 },
      }),
    );
    const { directory, edge, finaliser, worker, until } = deployment;
    const services = [edge, finaliser, worker];
    const answers: string[] = [];
    const api = async (path: string, init: Parameters<typeof deployment.call>[2] = {}, key = caller): Promise<string> => {
      const { status, text, headers } = await deployment.call(path, key, init);
      answers.push(`${path} ${status} ${JSON.stringify([...headers])} ${text}`);
      return text;
    };
    const post = async (body: object, key = 'once') => JSON.parse(await api('/v1/recordings', { method: 'POST', body, headers: { 'idempotency-key': key } })) as Recording;
    const asked = {
      url: pages.url('/headers'), width: 320, height: 240, maxDuration: 60,
      headers: { 'x-secret': given.header }, cookies: [{ name: 'sid', value: given.cookie }],
      push: [
        { type: 'antmedia', url: `${media.websocketUrl}?rtoken=${given.pushQuery}`, streamId: 'good', token: given.pushToken, subscriberId: 'me', subscriberCode: given.subscriberCode },
        { type: 'antmedia', url: media.websocketUrl, streamId: 'refused', token: given.refusedToken },
      ],
      webhook: { url: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/${given.webhookPath}`, secret: given.webhookSecret },
    };
    const { id } = await post(asked);
    await until(id, 'recording', caller);
    await media.until('push live', () => (media.streams.get('good')?.sessions.at(-1)?.video.length ?? 0) > 0);

    const client = new Redis(deployment.redisUrl);
    stack.defer(() => client.disconnect());
    const sealed = (JSON.parse((await client.hget(`tabreel:r:${id}`, 'job')) ?? '{}') as { sealed?: string }).sealed ?? '';
    const opened = (await unseal([own.seal], id, sealed)) as { credential: string };
    secrets['credential'] = opened.credential;
    const forms = Object.entries(secrets).flatMap(([name, secret]) => [secret, encodeURIComponent(secret), Buffer.from(secret).toString('base64').replace(/=+$/, ''), Buffer.from(secret).toString('hex')].map((form) => [name, form] as const));
    /** Names of secrets that a text has, and of credentials of ours that nobody may read. */
    const found = (text: string, links = false): string[] => [
      ...new Set([
        ...forms.flatMap(([name, form]) => (text.includes(form) ? [name] : [])),
        ...[...text.matchAll(/eyJ[\w-]+\.(eyJ[\w-]+)\.[\w-]+/g)].flatMap(([, claims = '']) => {
          const { use } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { use?: string };
          return links && use === 'view' ? [] : [`token for ${use}`];
        }),
      ]),
    ];
    expect(found(`x ${given.header} ${Buffer.from(own.seal).toString('hex')} ${opened.credential}`)).toEqual(['header', 'seal', 'credential', 'token for media']);

    const look = async () => {
      const table = processTable();
      const running = services.flatMap(({ child }) => [child.pid as number, ...below(table, child.pid as number).map(({ pid }) => pid)]);
      for (const pid of running) expect([commandOf(pid), found(commandOf(pid))]).toEqual([commandOf(pid), []]);
      const ofWorker = below(table, worker.child.pid as number).map(({ pid }) => pid);
      // what the worker was started with stays in its own environment
      for (const pid of ofWorker) expect([commandOf(pid).slice(0, 80), found(environOf(pid))]).toEqual([commandOf(pid).slice(0, 80), []]);
      const kept = await contents(client, 'tabreel');
      expect(Object.keys(kept).length).toBe(await client.dbsize());
      for (const [key, value] of Object.entries(kept)) expect([key, found(key + value)]).toEqual([key, []]);
      for (const { output } of services) for (const line of output().split('\n')) if (found(line).length > 0) expect([line, found(line)]).toEqual([line, []]);
      for (const path of ['/v1/recordings', `/v1/recordings/${id}`, `/v1/recordings/${id}/files`, '/v1/origin', '/metrics', '/openapi.json', '/v1/recordings/rec_nope', '/healthz']) await api(path);
      for (const path of ['/dashboard', '/dashboard/api/queues', `/dashboard/api/queues/tabreel%3Arecord/${id}`, '/metrics', '/doctor/page']) await api(path, {}, admin);
      await post(asked);
      await post({ ...asked, url: 'ftp://x' }, 'wrong');
      for (const answer of answers.splice(0)) expect([answer.slice(0, 60), found(answer, true)]).toEqual([answer.slice(0, 60), []]);
      return { browsers: ofWorker.filter((pid) => commandOf(pid).includes('--user-data-dir=')), ofWorker, keys: Object.keys(kept).length };
    };
    const during = await look();
    expect(during.browsers.length).toBeGreaterThan(0);
    // of all that a service is told, a browser is told nothing
    for (const pid of during.browsers) expect(environOf(pid).split('\0').filter((entry) => /^(REDIS|TOKEN|SECRETS|API_|AWS|STORAGE|OUTBOUND|LOG_)/.test(entry))).toEqual([]);
    expect(during.keys).toBeGreaterThan(5);

    await api(`/v1/recordings/${id}/stop`, { method: 'POST' });
    await until(id, 'completed', caller);
    for (const end = Date.now() + 30_000; told.length < 2 && Date.now() < end; ) await sleep(100);
    expect(told[0]).toContain(given.webhookPath);
    await look();
    const events = await api(`/v1/recordings/${id}/events`);
    expect(events).toContain('completed');
    expect(events).toContain('push');
    expect(found(events, true)).toEqual([]);
    for (const name of readdirSync(join(directory, 'storage', id))) {
      if (/\.(json|m3u8)$/.test(name)) expect([name, found(readFileSync(join(directory, 'storage', id, name), 'utf8'))]).toEqual([name, []]);
    }
    // who was meant to have them had them
    expect(pages.requests.some(({ headers }) => headers['x-secret'] === given.header && headers.cookie?.includes(given.cookie) === true)).toBe(true);
    expect(media.streams.get('refused')?.sessions ?? []).toEqual([]);
  });
});
