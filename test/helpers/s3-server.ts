/** An S3 server for one test file: Versity's gateway before a temporary directory, on loopback. `.ci/run` installs it. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../bin/local-redis.ts';
import type { S3Settings } from '../../edge/storage/s3-settings.ts';

/** As `.ci/run` has it. */
const VERSION = '1.8.0';
const cached = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'tabreel', `versitygw-${VERSION}`, 'versitygw');
const executable = existsSync(cached) ? cached : 'versitygw';

export const hasS3Server = spawnSync(executable, ['--version']).status === 0;

export type S3Server = AsyncDisposable & {
  port: number;
  /** Of its bucket; keys below a prefix. */
  settings: S3Settings;
  /** The same as variables. */
  environment: Record<string, string>;
  /** Where the gateway keeps the bucket's objects, and half-written ones. */
  directory: string;
  start(): Promise<void>;
  /** SIGKILL; what was written is kept for the next start. */
  kill(): Promise<void>;
  /** SIGSTOP: connections stay open and nothing is answered. */
  freeze(): void;
  thaw(): void;
};

/**
 * Not started yet.
 *
 * @param options.root where it keeps its buckets; a directory of its own by default
 */
export async function s3Server(options: { root?: string } = {}): Promise<S3Server> {
  const port = await freePort();
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-s3-'));
  const root = options.root ?? join(directory, 'buckets');
  // not every temporary file system has extended attributes
  const sidecar = join(directory, 'attributes');
  for (const path of [join(root, 'recordings'), sidecar]) mkdirSync(path, { recursive: true });
  const credentials = { accessKeyId: 'tabreel', secretAccessKey: 'a-secret-of-tests' };
  const endpoint = `http://127.0.0.1:${port}`;
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
    port,
    directory: join(root, 'recordings'),
    settings: { bucket: 'recordings', prefix: 'a/b/', endpoint, region: 'us-east-1', credentials, checksums: 'when_supported' },
    environment: {
      STORAGE_URL: 's3://recordings/a/b',
      S3_ENDPOINT: endpoint,
      AWS_ACCESS_KEY_ID: credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
    },
    async start() {
      child = spawn(executable, ['--port', `127.0.0.1:${port}`, '--keep-alive', '--quiet', 'posix', '--sidecar', sidecar, root], {
        env: { PATH: process.env['PATH'], ROOT_ACCESS_KEY: credentials.accessKeyId, ROOT_SECRET_KEY: credentials.secretAccessKey },
        stdio: 'ignore',
      });
      while (!(await fetch(endpoint).then(() => true, () => false))) {
        if (child.exitCode !== null) throw new Error('the S3 server ended');
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
