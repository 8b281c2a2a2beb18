/** A Redis for one test file: a real redis-server where one is on the PATH, else the embedded one. Loopback only. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createRedisMock } from 'js-redis-server';
import { freePort } from '../../bin/local-redis.ts';

/** Whether Redis can be killed, frozen and started again in a test. */
export const hasRedisServer = spawnSync('redis-server', ['--version']).status === 0;

export type TestRedis = AsyncDisposable & { readonly url: string };

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
  return { url: `redis://${address.host}:${address.port}`, [Symbol.asyncDispose]: () => mock.close() };
}

/** Both kinds, for tests of what Redis itself has to do right. */
export const redisServers = [
  { server: 'redis-server', start: startRedis, there: hasRedisServer },
  { server: 'the embedded Redis', start: startEmbeddedRedis, there: true },
];

/** Not started yet. */
export async function realRedis(): Promise<RealRedis> {
  const port = await freePort();
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-redis-'));
  let child: ChildProcess | null = null;
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
    url: `redis://127.0.0.1:${port}`,
    async start() {
      child = spawn(
        'redis-server',
        ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--save', '', '--appendonly', 'yes', '--appendfsync', 'always'],
        { stdio: 'ignore' },
      );
      while (!(await answers(port))) {
        if (child.exitCode !== null) throw new Error('redis-server ended');
        await sleep(20);
      }
    },
    kill,
    freeze() {
      child?.kill('SIGSTOP');
    },
    thaw() {
      child?.kill('SIGCONT');
    },
    async [Symbol.asyncDispose]() {
      await kill();
      process.off('exit', onExit);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
    socket.setTimeout(500);
    const end = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.on('data', (data) => end(data.toString().startsWith('+PONG')));
    socket.on('error', () => end(false));
    socket.on('timeout', () => end(false));
  });
