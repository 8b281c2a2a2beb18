/** A recording that is asked for at an edge on another runtime than Node, by real workers to a real file. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { probe } from '../helpers/analyse.ts';
import { startPages } from '../helpers/pages.ts';
import { startRedis } from '../helpers/redis.ts';
import { lacks, startService } from '../helpers/service.ts';
import { INSTALL, missing, startWorkerd } from '../runtimes/runtimes.ts';

if (missing('workerd')) console.warn(`Tests are skipped for want of workerd: ${INSTALL}`);

describe.skipIf(missing('workerd') || (await lacks('ffmpeg', 'headless shell')))('an edge on workerd, media on Node', () => {
  it('a recording is created, followed, stopped and fetched there', async () => {
    await using stack = new AsyncDisposableStack();
    const directory = mkdtempSync(join(tmpdir(), 'tabreel-workerd-'));
    stack.defer(() => rmSync(directory, { recursive: true, force: true }));
    const redis = stack.use(await startRedis());
    const service = stack.use(await startService({ redis }));
    const pages = await startPages();
    stack.defer(() => pages.close());
    const edge = stack.use(
      await startWorkerd(
        {
          REDIS_URL: redis.url,
          TOKEN_SECRET: 'system-test-token-secret',
          SECRETS_KEY: 'system-test-secrets-key',
          MEDIA_URL: service.url.replace('http', 'ws'),
        },
        directory,
      ),
    );

    const response = await fetch(`${edge.url}/v1/recordings`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ url: pages.url('/animated.html'), width: 640, height: 360, maxDuration: 60 }),
    });
    expect(response.status).toBe(202);
    const created = (await response.json()) as Recording;
    expect(created.mediaUrl).toBe(`${service.url.replace('http', 'ws')}/v1/recordings/${created.id}/media`);
    await service.waitFor(created.id, 'recording');
    // by the links that workerd gave, which lead to Node
    const live = await fetch(created.links.live);
    expect(live.redirected).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect((await fetch(created.links.stop, { method: 'POST' })).status).toBe(200);
    await service.waitFor(created.id, 'completed');
    const done = (await (await fetch(created.links.self)).json()) as Recording;
    expect(done.state).toBe('completed');
    expect(done.links.self).toBe(`${edge.url}/v1/recordings/${created.id}`);
    const { duration, video } = await probe(await service.download(done));
    expect(video).toMatchObject({ width: 640, height: 360 });
    expect(Math.abs(duration - done.duration)).toBeLessThan(0.3);
    expect(duration).toBeGreaterThan(2);
  });
});
