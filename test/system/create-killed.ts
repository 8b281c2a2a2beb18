/** Edges that are killed between the two writes of a create, or right beside them, and callers who ask again, or don't. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../bin/local-redis.ts';
import { createLog } from '../../shared/log.ts';
import { createFinishQueue, createRecordQueue, patientRedis } from '../../shared/queue.ts';
import { startReconciler, type ReconcilerTimes } from '../../shared/reconciler.ts';
import { createRecordingStore } from '../../shared/recording-store.ts';
import { inherited } from '../helpers/environment.ts';
import { startRedis } from '../helpers/redis.ts';

const PREFIX = 'tabreel';
const entry = fileURLToPath(new URL('../../edge/node.ts', import.meta.url));

/** When an edge is killed: once Redis has the record and the edge doesn't know yet, before its job, once Redis has that too. */
const moments = ['record written', 'before the job', 'job written'] as const;
type Moment = (typeof moments)[number];

/** What a BullMQ command for a job and the script that writes the record have in them. */
const JOB = `${PREFIX}:record:`;
const RECORD = `${PREFIX}:jobless`;

export type CreateKilled = {
  asked: number;
  kills: number;
  /** Callers who asked again with their key, whose recording had no job right after the answer. */
  unqueued: number;
  /** Callers who were told of two recordings under one key. */
  doubled: number;
  recordings: number;
  jobs: number;
  /** Recordings that still have no job. */
  left: number;
  /** Seconds from the last kill until all had a job, also those whose caller did not ask again. */
  took: number;
};

/**
 * @param count edges that are killed, each by SIGKILL within one request; every other caller asks again at once
 * @param times of the reconciler, which sees to the rest, where its own are not to be waited for
 */
export async function killCreates(count: number, times: Partial<ReconcilerTimes> = {}): Promise<CreateKilled> {
  await using redis = await startRedis();
  await using stack = new AsyncDisposableStack();
  const client = stack.adopt(patientRedis(redis.url, () => undefined), (one) => one.disconnect());
  const store = createRecordingStore(client, PREFIX);
  const recordQueue = createRecordQueue(client, PREFIX, () => undefined);
  const finishQueue = createFinishQueue(client, PREFIX, () => undefined);
  const silent = createLog('error', () => undefined);
  stack.use(startReconciler({ redis: client, store, recordQueue, finishQueue, retention: null, log: silent, times }));

  const lasting = stack.use(await startEdgeBehind(redis.url, null));
  const found = { asked: count, kills: 0, unqueued: 0, doubled: 0 };
  for (let i = 0; i < count; i += 1) {
    const key = `create-${i}`;
    await using edge = await startEdgeBehind(redis.url, moments[i % moments.length] as Moment);
    if ((await post(edge.url, key).catch(() => null)) === null) found.kills += 1;
    if (i % 2 === 1) continue;
    const id = await post(lasting.url, key);
    if ((await recordQueue.getJob(id)) === undefined) found.unqueued += 1;
    if ((await post(lasting.url, key)) !== id) found.doubled += 1;
  }
  const began = performance.now();
  const ids = async () => (await store.list({ limit: 1000 })).items.map(({ id }) => id);
  const withoutJob = async (): Promise<number> => {
    const jobs = await Promise.all((await ids()).map((id) => recordQueue.getJob(id)));
    return jobs.filter((job) => job === undefined).length;
  };
  while ((await withoutJob()) > 0 && performance.now() - began < 30_000) await sleep(100);
  const took = (performance.now() - began) / 1000;
  const counts = await recordQueue.getJobCounts();
  const jobs = Object.values(counts).reduce((sum, each) => sum + each, 0);
  return { ...found, recordings: (await ids()).length, jobs, left: await withoutJob(), took };
}

/** @returns the id of the recording */
async function post(url: string, key: string): Promise<string> {
  const response = await fetch(`${url}/v1/recordings`, {
    method: 'POST',
    body: JSON.stringify({ url: 'https://example.com/' }),
    headers: { 'content-type': 'application/json', 'idempotency-key': key },
    signal: AbortSignal.timeout(10_000),
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return ((await response.json()) as { id: string }).id;
}

/** `node edge/node.ts` whose way to Redis is ours: it is killed at that moment of its first create. */
async function startEdgeBehind(redisUrl: string, moment: Moment | null): Promise<AsyncDisposable & { url: string }> {
  let edge: ChildProcess | null = null;
  const kill = () => edge?.kill('SIGKILL');
  const sockets = new Set<Socket>();
  const way = createServer((socket) => {
    const up = connect(Number(new URL(redisUrl).port), '127.0.0.1');
    for (const one of [socket, up]) {
      sockets.add(one);
      one.on('error', () => undefined).on('close', () => {
        sockets.delete(one);
        socket.destroy();
        up.destroy();
      });
    }
    socket.on('data', (data) => {
      const [job, record] = [data.includes(JOB), data.includes(RECORD)];
      if (moment === 'before the job' && job) return void kill();
      if ((moment === 'job written' && job) || (moment === 'record written' && record)) {
        // what Redis answers comes too late for it
        up.removeAllListeners('data');
        up.once('data', kill);
      }
      up.write(data);
    });
    up.on('data', (data) => void socket.write(data));
  });
  way.listen(0, '127.0.0.1');
  await once(way, 'listening');
  const port = await freePort();
  const child = spawn(process.execPath, [entry], {
    env: {
      ...inherited,
      PORT: String(port),
      REDIS_URL: `redis://127.0.0.1:${(way.address() as AddressInfo).port}`,
      QUEUE_PREFIX: PREFIX,
      // media that is said to go elsewhere needs no worker on this machine
      MEDIA_URL: 'wss://media.example.com',
      TOKEN_SECRET: 'create-killed-token-secret',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  edge = child;
  for await (const line of createInterface({ input: child.stdout })) if (line.includes('edge listens')) break;
  child.stdout.resume();
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      for (const socket of sockets) socket.destroy();
      way.close();
    },
  };
}
