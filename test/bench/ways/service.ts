/** Our way: a whole service on this machine, edge and finaliser in one group of processes, the worker's side in another. */
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { CaptureEngineName, Recording } from '../../../shared/recording.ts';
import { inherited } from '../../helpers/environment.ts';
import { createGroup } from '../group.ts';
import { startProgram } from '../processes.ts';
import { AUDIO_BITRATE, picture, VIDEO_BITRATE, type Way } from '../way.ts';
import { LOCAL_ALLOW } from '../../../shared/outbound/policy.ts';

export type Service = AsyncDisposable & {
  engine: CaptureEngineName;
  way: Way;
  /** The same, pushed to an Ant Media Server while it is recorded. @param url of its signalling socket */
  pushing(url: string): Way;
  /** Milliseconds from a POST to the first segment in the storage, where a process waits for a recording. */
  firstSegment(url: string): Promise<number>;
};

export type ServiceOptions = {
  engine: 'tab' | 'self';
  /** Tells our two services apart. */
  name: string;
  redisUrl: string;
  directory: string;
};

/** Resolves when the worker is calibrated and waits for recordings. */
export async function startService({ engine, name, redisUrl, directory }: ServiceOptions): Promise<Service> {
  const storage = join(directory, 'storage');
  await mkdir(storage, { recursive: true });
  await using stack = new AsyncDisposableStack();
  const edgeGroup = stack.use(createGroup(`${name}-edge`, directory));
  const workerGroup = stack.use(createGroup(`${name}-worker`, directory));
  const node = (group: typeof edgeGroup, entry: string, more: Record<string, string>) =>
    startProgram(group.wrap(process.execPath), [fileURLToPath(new URL(`../../../${entry}`, import.meta.url))], {
      ...inherited,
      TMPDIR: directory,
      REDIS_URL: redisUrl,
      QUEUE_PREFIX: `bench-${name}`,
      LOG_LEVEL: 'info',
      ...more,
    });
  const edge = node(edgeGroup, 'edge/node.ts', { PORT: '0', STORAGE_URL: pathToFileURL(storage).href, TOKEN_SECRET: 'only-for-the-benchmark' });
  const finaliser = node(edgeGroup, 'edge/finaliser.ts', { STORAGE_URL: pathToFileURL(storage).href });
  const { url: base } = JSON.parse(await edge.line(/edge listens/)) as { url: string };
  const worker = node(workerGroup, 'worker/main.ts', {
    CAPTURE_ENGINE: engine,
    SLOTS: '1',
    HEALTH_PORT: '0',
    OUTBOUND_ALLOW: LOCAL_ALLOW,
    ...(process.getuid?.() === 0 ? { CHROMIUM_SANDBOX: 'off' } : {}),
  });
  const { healthPort } = JSON.parse(await worker.line(/worker runs/)) as { healthPort: number };

  const api = async (path: string, init?: RequestInit): Promise<Recording> => {
    const response = await fetch(new URL(path, base), init);
    if (!response.ok) throw new Error(`${init?.method ?? 'GET'} ${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as Recording;
  };
  const post = (body: Record<string, unknown>) =>
    api('/v1/recordings', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
  const spec = { ...picture, videoBitrate: VIDEO_BITRATE, audioBitrate: AUDIO_BITRATE };
  const until = async (id: string, ...states: Recording['state'][]): Promise<void> => {
    for (const limit = performance.now() + 60_000; performance.now() < limit; await sleep(100)) {
      const { state, error } = await api(`/v1/recordings/${id}`);
      if (states.includes(state)) return;
      if (state === 'failed') throw new Error(`the recording failed: ${error?.message}`);
    }
    throw new Error(`the recording never was ${states.join(' or ')}`);
  };
  /** A process waits for the next recording: the worker is warm. */
  const warm = async () => {
    for (const limit = performance.now() + 30_000; performance.now() < limit; await sleep(100)) {
      const metrics = await (await fetch(`http://127.0.0.1:${healthPort}/metrics`)).text();
      if (/_recordings 0$/m.test(metrics) && /_processes_ready 1$/m.test(metrics)) return;
    }
    throw new Error('the worker does not become ready');
  };

  const wayOf = (own: Pick<Way, 'name' | 'what'>, more: Record<string, unknown>, lookAt: (recording: Recording) => void): Way => ({
    ...own,
    draws: engine === 'self' ? 'headless-shell' : 'chrome',
    async start({ url }) {
      await warm();
      const { id } = await post({ ...spec, ...more, url });
      await until(id, 'recording');
      return {
        group: workerGroup,
        edge: edgeGroup,
        async stop() {
          lookAt(await api(`/v1/recordings/${id}`));
          await api(`/v1/recordings/${id}/stop`, { method: 'POST' });
          await until(id, 'completed');
          return join(storage, id, 'recording.mp4');
        },
      };
    },
  });
  const what = `this project, \`CAPTURE_ENGINE=${engine}\`: worker, the recording's process and its browser; edge, finaliser and Redis apart`;
  const pushWhat = `the same as ${name}, pushed meanwhile to a WebRTC receiver on this machine, which isn't counted`;
  const all = stack.move();
  return {
    engine,
    way: wayOf({ name, what }, {}, () => undefined),
    pushing: (url) =>
      wayOf({ name: `${name}-push`, what: pushWhat }, { push: [{ type: 'antmedia', url }] }, ({ push: [push] }) => {
        if (push?.state !== 'live') throw new Error(`the push is not live: ${JSON.stringify(push)}`);
      }),
    async firstSegment(url) {
      await warm();
      await sleep(300);
      const posted = performance.now();
      const { id } = await post({ ...spec, url, maxDuration: 2 });
      for (;;) {
        const parts = await readdir(join(storage, id, 'parts')).catch(() => []);
        if (parts.some((part) => /^a.*\.m4s$/.test(part))) break;
        if (performance.now() - posted > 60_000) throw new Error('no segment was stored');
        await sleep(5);
      }
      const took = performance.now() - posted;
      await until(id, 'completed');
      return took;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([worker.end('SIGINT'), edge.end(), finaliser.end()]);
      await all[Symbol.asyncDispose]();
    },
  };
}
