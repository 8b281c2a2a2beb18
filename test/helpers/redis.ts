/**
 * A Redis for one test file: a real redis-server where one is on the PATH, else the embedded one. Loopback only.
 * With TABREEL_TEST_REDIS=tls it speaks TLS alone, with a certificate of an authority that nothing trusts, and what is
 * tested is the user of docs/redis.md, who may do no more than its rules say.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { createRedisMock } from 'js-redis-server';
import { freePort } from '../../bin/local-redis.ts';
import { failFastRedis, type RedisAddress } from '../../shared/queue.ts';
import { readRedisTls } from '../../shared/redis-tls.ts';
import { createAuthority, hasOpenssl, type Authority, type Leaf } from './certificates.ts';

/** Whether Redis can be killed, frozen and started again in a test. */
export const hasRedisServer = spawnSync('redis-server', ['--version']).status === 0;

/** Whether it can speak TLS: Debian's does. */
export const hasTlsRedis = hasOpenssl && hasRedisServer && spawnSync('redis-server', ['--port', '0', '--tls-port', '0', '--unheard-of', 'x']).stderr.toString().includes('unheard-of');

const overTls = process.env['TABREEL_TEST_REDIS'] === 'tls';

export type TestRedis = AsyncDisposable &
  RedisAddress & {
    /** Where all is said by a URL: without TLS. */
    readonly url: string;
    /** The settings of a process that uses it. */
    readonly environment: { REDIS_URL: string; REDIS_CA?: string };
    /** For what a test does to Redis by its own hand, which the user of a fleet may not. */
    readonly admin: RedisAddress;
  };

export type RealRedis = TestRedis & {
  start(): Promise<void>;
  /** SIGKILL; what was written is kept for the next start. */
  kill(): Promise<void>;
  /** SIGSTOP: connections stay open and nothing is answered. */
  freeze(): void;
  thaw(): void;
};

export async function startRedis(): Promise<TestRedis> {
  if (hasRedisServer) {
    const redis = await realRedis();
    await redis.start();
    return redis;
  }
  return startEmbeddedRedis();
}

/** What serves where there is no redis-server. */
export async function startEmbeddedRedis(): Promise<TestRedis> {
  const mock = await createRedisMock();
  const address = mock.addresses()[0];
  if (address === undefined) throw new Error('the embedded Redis does not listen');
  return { ...plain(`redis://${address.host}:${address.port}`), [Symbol.asyncDispose]: () => mock.close() };
}

const plain = (url: string) => ({ url, redisUrl: url, environment: { REDIS_URL: url }, admin: { redisUrl: url } });

/** Both kinds, for tests of what Redis itself has to do right. */
export const redisServers = [
  { server: 'redis-server', start: startRedis, there: hasRedisServer },
  { server: 'the embedded Redis', start: startEmbeddedRedis, there: !overTls },
];

/** Where a server listens, what it is started with, and how it is asked whether it answers. */
type Setup = {
  address: Omit<TestRedis, keyof AsyncDisposable>;
  settings: readonly string[];
  answers(): Promise<boolean>;
  /** @throws where the user of a fleet was refused anything */
  verify(): Promise<void>;
};

/** Not started yet. */
export async function realRedis(setup: () => Promise<Setup> = overTls ? tlsSetup : plainSetup): Promise<RealRedis> {
  const { address, settings, answers, verify } = await setup();
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-redis-'));
  let child: ChildProcess | null = null;
  let frozen = false;
  const kill = async () => {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
    child = null;
  };
  // a test that crashes must not leave a server behind
  const onExit = () => child?.kill('SIGKILL');
  process.once('exit', onExit);
  return {
    ...address,
    async start() {
      child = spawn(
        'redis-server',
        [...settings, '--bind', '127.0.0.1', '--dir', directory, '--save', '', '--appendonly', 'yes', '--appendfsync', 'always'],
        { stdio: 'ignore' },
      );
      while (!(await answers())) {
        if (child.exitCode !== null) throw new Error('redis-server ended');
        await sleep(20);
      }
    },
    kill,
    freeze() {
      frozen = true;
      child?.kill('SIGSTOP');
    },
    thaw() {
      frozen = false;
      child?.kill('SIGCONT');
    },
    async [Symbol.asyncDispose]() {
      try {
        if (child?.exitCode === null && !frozen) await verify();
      } finally {
        await kill();
        process.off('exit', onExit);
        rmSync(directory, { recursive: true, force: true });
      }
    },
  };
}

async function plainSetup(): Promise<Setup> {
  const port = await freePort();
  return {
    address: plain(`redis://127.0.0.1:${port}`),
    settings: ['--port', String(port)],
    answers: () => pong(connect(port, '127.0.0.1'), 'PING\r\n'),
    verify: async () => {},
  };
}

export type AclLogEntry = { reason: string; object: string; context: string };

/** TLS alone, a private authority, and two users: the one of docs/redis.md and one that may do everything. */
export async function tlsSetup(): Promise<Setup> {
  const port = await freePort();
  const { authority, leaf } = await (certificates ??= issueCertificates());
  const url = (user: string) => `rediss://${user}:${PASSWORDS[user as keyof typeof PASSWORDS]}@127.0.0.1:${port}`;
  const environment = { REDIS_URL: url('tabreel'), REDIS_CA: authority.caPath };
  const tls = await readRedisTls(environment);
  const admin = { redisUrl: url('admin'), ...tls };
  return {
    address: { url: environment.REDIS_URL, redisUrl: environment.REDIS_URL, ...tls, environment, admin },
    settings: [
      ['--port', '0', '--tls-port', String(port), '--tls-cert-file', leaf.certPath, '--tls-key-file', leaf.keyPath],
      ['--tls-ca-cert-file', authority.caPath, '--tls-auth-clients', 'no'],
      ['--user', 'default', 'off', '~*', '&*', '+@all', '--user', 'admin', 'on', `>${PASSWORDS.admin}`, '~*', '&*', '+@all'],
      ['--user', 'tabreel', ...documentedRules().map((rule) => (rule.startsWith('>') ? `>${PASSWORDS.tabreel}` : rule))],
    ].flat(),
    answers: () => pong(connectTls({ port, host: '127.0.0.1', ca: authority.ca }), `AUTH admin ${PASSWORDS.admin}\r\nPING\r\n`),
    async verify() {
      const client = failFastRedis(admin, () => undefined);
      try {
        const log = (await client.call('ACL', 'LOG', '100')) as (AclLogEntry | unknown[])[];
        const refused = log.map(entryOf).filter(({ reason }) => reason !== 'auth').map(({ reason, object, context }) => `${reason} ${object} (${context})`);
        if (refused.length > 0) throw new Error(`the user of docs/redis.md was refused: ${refused.join(', ')}`);
      } finally {
        client.disconnect();
      }
    },
  };
}

const PASSWORDS = { tabreel: 'test-password-of-tabreel', admin: 'test-password-of-admin' } as const;

/** The rules of `ACL SETUSER tabreel`, for the prefixes that tests have: `tabreel` itself and those that begin with `tabreel-`. */
export function documentedRules(): string[] {
  const text = readFileSync(new URL('../../docs/redis.md', import.meta.url), 'utf8').replaceAll('\\\n', ' ');
  const rules = /ACL SETUSER tabreel (.*)/.exec(text)?.[1]?.replaceAll(/['"]/g, '').trim().split(/\s+/);
  if (rules === undefined) throw new Error('docs/redis.md has no ACL SETUSER tabreel');
  return rules.flatMap((rule) => (/^[~&]tabreel:\*$/.test(rule) ? [rule, rule.replace(':*', '-*:*')] : [rule]));
}

/** RESP3's maps come as objects or as flat lists. */
const entryOf = (entry: AclLogEntry | unknown[]): AclLogEntry =>
  Array.isArray(entry) ? (Object.fromEntries(entry.flatMap((name, i) => (i % 2 === 0 ? [[name, entry[i + 1]]] : []))) as AclLogEntry) : entry;

/** Of this process. */
let certificates: Promise<{ authority: Authority; leaf: Leaf }> | undefined;
async function issueCertificates() {
  const authority = await createAuthority("Redis' own authority");
  process.once('exit', () => void authority[Symbol.asyncDispose]());
  return { authority, leaf: await authority.issue(['localhost', '127.0.0.1']) };
}

/**
 * All that anybody says to a Redis without TLS, as its MONITOR writes it, a command a line, from now on. A socket of its own:
 * ioredis takes what comes together with MONITOR's own answer for answers to nothing.
 */
export async function listenToRedis(redisUrl: string): Promise<Disposable & { readonly said: string[] }> {
  const { hostname, port, password } = new URL(redisUrl);
  const socket = connect(Number(port), hostname);
  const said: string[] = [];
  const answers = createInterface(socket);
  answers.on('line', (line) => void said.push(line));
  // it ends with its Redis
  socket.on('error', () => undefined);
  socket.write(`${password === '' ? '' : `AUTH ${password}\r\n`}MONITOR\r\n`);
  const wanted = password === '' ? ['+OK'] : ['+OK', '+OK'];
  while (said.length < wanted.length) await once(answers, 'line');
  const first = said.splice(0, wanted.length);
  if (first.join() !== wanted.join()) throw new Error(`Redis is not to be listened to: ${first.join()}`);
  return { said, [Symbol.dispose]: () => void socket.destroy() };
}

const pong = (socket: ReturnType<typeof connect>, question: string): Promise<boolean> =>
  new Promise((resolve) => {
    let answer = '';
    socket.write(question);
    socket.setTimeout(500);
    const end = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.on('data', (data) => {
      answer += data.toString();
      if (/\+PONG|^-/m.test(answer)) end(answer.includes('+PONG'));
    });
    socket.on('error', () => end(false));
    socket.on('timeout', () => end(false));
  });
