/** Recordings that are asked for at an edge on each runtime, by real workers to real files; media goes to Node. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { probe } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { operator, operatorEnvironment } from '../helpers/keys.ts';
import { startRedis } from '../helpers/redis.ts';
import { lacks, startService, type Service } from '../helpers/service.ts';
import { INSTALL, missing, runtimeNames, startRuntimes, type Runtime, type RuntimeName } from '../runtimes/runtimes.ts';

const there = runtimeNames.filter((name) => !missing(name));
for (const name of runtimeNames.filter(missing)) console.warn(`Tests are skipped for want of ${name}: ${INSTALL}`);

describe.skipIf(await lacks('ffmpeg', 'headless shell'))('media on Node, and the API', () => {
  const stack = new AsyncDisposableStack();
  let service: Service;
  let pages: Pages;
  let runtimes: Map<RuntimeName, Runtime>;
  beforeAll(async () => {
    const directory = mkdtempSync(join(tmpdir(), 'tabreel-runtimes-'));
    stack.defer(() => rmSync(directory, { recursive: true, force: true }));
    const redis = stack.use(await startRedis());
    // a function is reached through a gateway, and serves nobody without a key
    service = stack.use(await startService({ redis, slots: 2, environment: operatorEnvironment }));
    pages = await startPages();
    stack.defer(() => pages.close());
    const settings = {
      ...redis.environment,
      ...operatorEnvironment,
      TOKEN_SECRET: 'system-test-token-secret',
      SECRETS_KEY: 'system-test-secrets-key',
      MEDIA_URL: service.url.replace('http', 'ws'),
    };
    ({ runtimes } = stack.use(await startRuntimes(() => settings, directory)));
  });
  afterAll(() => stack.disposeAsync());

  const create = async (name: RuntimeName, maxDuration: number): Promise<{ url: string; created: Recording }> => {
    const { url } = runtimes.get(name) as Runtime;
    const response = await fetch(`${url}/v1/recordings`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...operator.headers },
      body: JSON.stringify({ url: pages.url('/animated.html'), width: 640, height: 360, maxDuration }),
    });
    expect(response.status).toBe(202);
    const created = (await response.json()) as Recording;
    expect(created.mediaUrl).toBe(`${service.url.replace('http', 'ws')}/v1/recordings/${created.id}/media`);
    return { url, created };
  };

  it.concurrent.each(there)('on %s: a recording is made and fetched', async (name) => {
    const { url, created } = await create(name, 2);
    await service.waitFor(created.id, 'completed', 60_000);
    const self = (await (await fetch(`${url}/v1/recordings/${created.id}`, { headers: operator.headers })).json()) as Recording;
    expect(self).toMatchObject({ state: 'completed', attempts: 1 });
    // a function's links name its own host, which is nowhere to be found here
    const links = { ...self.links, file: `${url}/v1/recordings/${created.id}/recording.mp4${new URL(self.links.file).search}` };
    const { duration, video, audio } = await probe(await service.download({ ...self, links }));
    expect(video).toMatchObject({ width: 640, height: 360 });
    expect(audio).not.toBeNull();
    expect(Math.abs(duration - 2)).toBeLessThanOrEqual(0.3);
  });

  it.skipIf(missing('workerd'))('on workerd: a recording is followed and stopped by its links, which lead to Node', async () => {
    const { url, created } = await create('workerd', 60);
    await service.waitFor(created.id, 'recording');
    const live = await fetch(created.links.live);
    expect(live.redirected).toBe(true);
    await sleep(3000);
    expect((await fetch(created.links.stop, { method: 'POST', headers: operator.headers })).status).toBe(200);
    await service.waitFor(created.id, 'completed');
    const done = (await (await fetch(created.links.self, { headers: operator.headers })).json()) as Recording;
    expect(done.state).toBe('completed');
    expect(done.links.self).toBe(`${url}/v1/recordings/${created.id}`);
    const { duration } = await probe(await service.download(done));
    expect(Math.abs(duration - done.duration)).toBeLessThan(0.3);
    expect(duration).toBeGreaterThan(2);
  });
});
