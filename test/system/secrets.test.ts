/**
 * Where secrets are not: command lines and environments of what runs, Redis, logs, answers, files. With the processes of a deployment,
 * while recordings are made that have one of each kind, some of which fail, and when they are over.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { describe, expect, it } from 'vitest';
import { freePort } from '../../bin/local-redis.ts';
import { isEnd, type Recording } from '../../shared/recording.ts';
import { unseal } from '../../shared/token.ts';
import { startAntMedia } from '../antmedia/server.ts';
import { contents } from '../edge/webhook-harness.ts';
import { startDeployment } from '../helpers/deployment.ts';
import { inherited } from '../helpers/environment.ts';
import { keyList, testKey } from '../helpers/keys.ts';
import { startPages } from '../helpers/pages.ts';
import { below, commandOf, processTable } from '../helpers/processes.ts';
import { listenToRedis } from '../helpers/redis.ts';
import { createFinder, filesBelow, markedSecret } from '../helpers/secrets.ts';
import { lacks } from '../helpers/service.ts';

const environOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1');
  } catch {
    return ''; // it has ended meanwhile
  }
};

const isProfile = (name: string): boolean => name.includes('tabreel-profile-');

describe.skipIf(await lacks('ffmpeg', 'headless shell', 'redis-server'))('secrets', () => {
  it('are nowhere in the clear while recordings are made and fail, nor when they are over', async () => {
    await using stack = new AsyncDisposableStack();
    const [caller, admin] = [await testKey('caller', ['record', 'read']), await testKey('admin', ['admin'])];
    const own = { password: markedSecret('password'), token: markedSecret('token'), seal: markedSecret('seal'), s3: markedSecret('s3') };
    const header = markedSecret('header');
    const cookie = markedSecret('cookie');
    const pushToken = markedSecret('pushtoken');
    const webhookSecret = `whsec_${Buffer.from(markedSecret('webhook')).toString('base64')}`;
    // what a caller gives in the open is kept from logs, the dashboard and files all the same
    const pageToken = markedSecret('page');
    const finder = createFinder();
    for (const [name, secret] of Object.entries({ caller: caller.key, admin: admin.key, webhookSecret })) finder.add(name, secret);

    const pages = stack.use(await startPages());
    const media = stack.use(await startAntMedia({ token: pushToken }));
    const told: string[] = [];
    const receiver = createServer((request, response) => {
      told.push(request.url ?? '');
      request.resume();
      // the first fails, and is told of
      response.writeHead(told.length === 1 ? 500 : 204).end();
    }).listen(0, '127.0.0.1');
    stack.defer(() => void receiver.close());
    const nobody = await freePort();
    const deployment = stack.use(
      await startDeployment({
        redisPassword: own.password,
        environment: { SECRETS_KEY: own.seal, SLOTS: '3', HEALTH_PORT: '0' },
        storing: { TOKEN_SECRET: own.token, API_KEYS: keyList(caller, admin), AWS_SECRET_ACCESS_KEY: own.s3 },
      }),
    );
    const { directory, edge, finaliser, worker } = deployment;
    const services = [edge, finaliser, worker];
    const client = new Redis(deployment.redisUrl);
    stack.defer(() => client.disconnect());
    // all that anybody says to Redis, what is gone again at once included
    const { said } = stack.use(await listenToRedis(deployment.redisUrl));

    const answers: string[] = [];
    const ask = async (path: string, init: Parameters<typeof deployment.call>[2] = {}, key = caller): Promise<string> => {
      const { status, text, headers } = await deployment.call(path, key, init);
      answers.push(`${init.method ?? 'GET'} ${path} ${status} ${JSON.stringify([...headers])} ${text}`);
      return text;
    };
    const post = async (body: object, key: string): Promise<Recording> => JSON.parse(await ask('/v1/recordings', { method: 'POST', body, headers: { 'idempotency-key': key } })) as Recording;
    const common = {
      width: 320, height: 240, maxDuration: 60,
      headers: { 'x-secret': header, authorization: `Bearer ${markedSecret('bearer')}` }, cookies: [{ name: 'sid', value: cookie }],
      webhook: { url: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/${markedSecret('path')}?token=${markedSecret('query')}`, secret: webhookSecret },
    };
    const good = {
      ...common,
      url: pages.url(`/static.html?token=${pageToken}`),
      push: [
        { type: 'antmedia', url: `${media.websocketUrl}?rtoken=${markedSecret('rtoken')}`, streamId: 'good', token: pushToken, subscriberId: 'me', subscriberCode: markedSecret('code') },
        {
          type: 'antmedia', url: `${media.websocketUrl}?x=${markedSecret('x')}`, streamId: 'refused', token: markedSecret('refused'),
          iceServers: [{ urls: `turn:127.0.0.1:${nobody}?transport=tcp`, username: markedSecret('turn'), credential: markedSecret('turnpassword') }],
        },
        { type: 'antmedia', url: `ws://127.0.0.1:${nobody}/live/websocket?token=${markedSecret('away')}`, streamId: 'away', token: markedSecret('awaytoken') },
      ],
    };
    const { id } = await post(good, 'good');
    const hook = `http://127.0.0.1:${nobody}/hook?token=${markedSecret('deadhook')}`;
    const refused = await post({ ...common, url: pages.url(`/status/403?token=${pageToken}`), webhook: { url: hook, secret: webhookSecret } }, 'refused');
    const away = await post({ ...common, url: `https://127.0.0.1:${nobody}/?token=${pageToken}` }, 'away');
    const sealed = (JSON.parse((await client.hget(`tabreel:r:${id}`, 'job')) ?? '{}') as { sealed?: string }).sealed ?? '';
    const { credential } = (await unseal([own.seal], id, sealed)) as { credential: string };
    finder.add('credential', credential);
    // it finds what it looks for
    const planted = [`a ${header}`, Buffer.from(`Basic ${cookie}`).toString('base64'), Buffer.from(own.seal).toString('hex'), Buffer.from(own.token, 'utf16le'), `x${caller.key}`, credential];
    for (const each of planted) expect(finder.in(each)).not.toEqual([]);

    await deployment.until(id, 'recording', caller);
    await deployment.until(refused.id, 'failed', caller);
    await media.until('push live', () => (media.streams.get('good')?.sessions.at(-1)?.video.length ?? 0) > 0);
    /** A recording once that is so of it, or time is over. */
    const eventually = async (of: string, holds: (recording: Recording) => boolean): Promise<Recording> => {
      for (const end = Date.now() + 30_000; ; await sleep(100)) {
        const recording = JSON.parse((await deployment.call(`/v1/recordings/${of}`, caller)).text) as Recording;
        if (holds(recording) || Date.now() > end) return recording;
      }
    };
    expect((await eventually(away.id, ({ warnings }) => warnings.length > 0)).warnings).toContainEqual(expect.stringMatching(/^Attempt 1 ended: target_unreachable/));
    await eventually(id, ({ stats, push }) => stats.bytes > 0 && push[1]?.state === 'failed');

    const clean = (what: string, text: string | Buffer, options: Parameters<typeof finder.in>[1] = {}) => expect([what, finder.in(text, options)]).toEqual([what, []]);
    const look = async () => {
      const table = processTable();
      const ofWorker = below(table, worker.child.pid as number).map(({ pid }) => pid);
      for (const pid of [...services.map(({ child }) => child.pid as number), ...ofWorker]) clean(commandOf(pid).slice(0, 80), commandOf(pid));
      for (const pid of ofWorker) clean(`environment of ${commandOf(pid).slice(0, 80)}`, environOf(pid));
      // a service has what it was told, and a worker none of what storing and signing need
      clean('environment of the worker', environOf(worker.child.pid as number), { but: [own.password, own.seal] });
      for (const { child } of [edge, finaliser]) clean('environment of an edge', environOf(child.pid as number), { but: Object.values(own) });

      const kept = await contents(client, 'tabreel');
      expect((await client.keys('*')).filter((key) => !key.startsWith('tabreel:'))).toEqual([]);
      for (const [key, value] of Object.entries(kept)) clean(key, key + value, { but: [pageToken] });
      for (const each of said.splice(0)) clean('said to Redis', each, { but: [pageToken] });
      for (const { output } of services) for (const line of output().split('\n')) clean(line, line);
      const files = filesBelow(directory);
      for (const [name, bytes] of files) clean(name, bytes, { but: isProfile(name) ? [pageToken] : [] });

      for (const path of ['/v1/recordings', `/v1/recordings/${id}`, `/v1/recordings/${refused.id}`, `/v1/recordings/${id}/recording.mp4`, `/v1/recordings/${id}/live.m3u8`, '/v1/recordings/rec_nope', '/v1/origin', '/readyz']) await ask(path);
      for (const body of [{ ...good, url: 'ftp://x' }, { ...good, colour: 1 }, { ...good, webhook: { url: good.webhook.url, secret: `${markedSecret('bad')}\u0001` } }, { ...good, push: [{ ...good.push[0], token: `${pushToken}\n` }] }, { ...good, headers: { ...good.headers, cookie } }]) {
        await ask('/v1/recordings', { method: 'POST', body });
      }
      await ask('/LiveApp/rest/v1/media-push/start', { method: 'POST', body: { url: good.url, token: `${pushToken}\n` } });
      await post({ ...good, width: 640 }, 'good');
      await post(good, 'good');
      await ask('/v1/recordings', {}, { ...caller, headers: { authorization: `Bearer ${markedSecret('wrongkey')}` } });
      for (const answer of answers.splice(0)) clean(answer.slice(0, 80), answer, { links: true, but: [pageToken] });
      // what an operator sees has less of a page's address
      for (const path of ['/dashboard', '/dashboard/api/queues?activeQueue=record&status=latest&page=1', `/dashboard/api/queues/record/${id}`, `/dashboard/queue/record/${id}`, '/metrics', '/doctor/page']) await ask(path, {}, admin);
      const board = answers.splice(0);
      expect(board.filter((answer) => answer.includes(id)).length).toBeGreaterThanOrEqual(2);
      for (const answer of board) clean(answer.slice(0, 80), answer);
      for (const { output } of services) {
        const port = /"(?:probes are answered|health listens)".*?"port":(\d+)/.exec(output())?.[1];
        for (const path of ['metrics', 'readyz']) clean(path, await (await fetch(`http://127.0.0.1:${port}/${path}`)).text());
      }
      return { browsers: ofWorker.filter((pid) => commandOf(pid).includes('--user-data-dir=')), profiles: [...files.keys()].filter(isProfile).length, stored: [...files.keys()].filter((name) => name.startsWith('storage/')).length };
    };
    const { browsers, ...during } = await look();
    expect([browsers.length > 0, during.profiles > 5, during.stored > 0]).toEqual([true, true, true]);
    // of all that a service is told, a browser is told nothing
    const documented = new Set([...readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8').matchAll(/`([A-Z][A-Z0-9_]+)`/g)].map(([, name]) => name));
    expect(documented.size).toBeGreaterThan(40);
    for (const pid of browsers) expect(environOf(pid).split('\0').map((entry) => entry.split('=')[0]).filter((name) => documented.has(name))).toEqual([]);
    const doctor = spawn(process.execPath, ['bin/tabreel.ts', 'doctor', deployment.url], { env: { ...inherited, TABREEL_KEY: caller.key }, stdio: ['ignore', 'pipe', 'pipe'] });
    const output: string[] = [];
    for (const stream of [doctor.stdout, doctor.stderr]) stream.on('data', (chunk: Buffer) => output.push(chunk.toString()));

    for (const each of [id, away.id]) await ask(`/v1/recordings/${each}/stop`, { method: 'POST' });
    await deployment.until(id, 'completed', caller);
    await eventually(away.id, ({ state }) => isEnd(state) && told.length > 4);
    if (doctor.exitCode === null) await once(doctor, 'exit');
    expect(output.join('')).toContain('All links hold');
    clean('doctor', output.join(''));
    for (const each of [id, refused.id, away.id]) await ask(`/v1/recordings/${each}/events`);
    expect(answers.at(-3)).toMatch(/event: push[^]*completed/);
    await ask(`/v1/recordings/${id}/manifest.json`);
    expect(await look()).toEqual({ browsers: [], profiles: 0, stored: expect.any(Number) });

    // who was meant to have them had them
    for (const path of ['/static.html', '/status/403']) expect(pages.requests.find(({ url, headers }) => url.startsWith(path) && headers['x-secret'] === header && headers.cookie?.includes(cookie))?.url).toContain(pageToken);
    expect(told[0]).toContain(new URL(common.webhook.url).search);
    expect(media.streams.get('refused')?.sessions ?? []).toEqual([]);
    const logs = services.map((each) => each.output()).join('');
    for (const line of ['webhook failed', '403', 'push_unauthorized', 'push_unreachable', 'target_unreachable']) expect(logs).toContain(line);
  });
});
