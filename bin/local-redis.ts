/** A Redis for one's own machine: the one that is named, else redis-server, else one that lives in this process. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { createRedisMock } from 'js-redis-server';

export type LocalRedis = AsyncDisposable & {
  url: string;
  /** What whoever runs it should know; null where there is nothing to say. */
  notice: string | null;
};

/** @param given REDIS_URL, where it is set. */
export async function localRedis(given: string | undefined): Promise<LocalRedis> {
  if (given) return { url: given, notice: null, async [Symbol.asyncDispose]() {} };
  return (await startServer()) ?? startEmbedded();
}

/** Loopback, a password of its own, nothing written to disk. @returns null where there is no redis-server. */
async function startServer(): Promise<LocalRedis | null> {
  const directory = await mkdtemp(join(tmpdir(), 'tabreel-redis-'));
  const wipe = () => rm(directory, { recursive: true, force: true });
  const password = randomBytes(24).toString('hex');
  const port = await freePort();
  // its settings come by stdin: a command line is for everybody on the machine to read
  const server = spawn('redis-server', ['-'], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  const failed = once(server, 'error').then(() => true);
  server.stdin.on('error', () => undefined);
  server.stdin.end(
    [`bind 127.0.0.1`, `port ${port}`, `requirepass ${password}`, `dir ${directory}`, 'save ""', 'appendonly no', 'maxmemory-policy noeviction', ''].join('\n'),
  );
  const url = `redis://:${password}@127.0.0.1:${port}`;
  const answers = async () => {
    const client = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: 0, retryStrategy: () => null });
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.ping();
      return true;
    } catch {
      return false;
    } finally {
      client.disconnect();
    }
  };
  for (let tries = 0; tries < 100; tries += 1) {
    if (await Promise.race([failed, sleep(50, false)])) break;
    if (await answers()) {
      return {
        url,
        notice: null,
        async [Symbol.asyncDispose]() {
          if (server.exitCode === null && server.signalCode === null) {
            const gone = once(server, 'exit');
            server.kill('SIGTERM');
            await gone;
          }
          await wipe();
        },
      };
    }
  }
  server.kill('SIGKILL');
  await wipe();
  return null;
}

/** Good for a first run: all in memory, written in JavaScript. */
async function startEmbedded(): Promise<LocalRedis> {
  const server = await createRedisMock();
  const [address] = server.addresses();
  if (address === undefined) throw new Error('the embedded Redis does not listen');
  return {
    url: `redis://${address.host}:${address.port}`,
    notice: 'No redis-server here: an embedded one serves, in memory only. Install redis-server, or set REDIS_URL, for more than a try.',
    [Symbol.asyncDispose]: () => server.close(),
  };
}

/** A port of loopback that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
