/** TOKEN_SECRET and SECRETS_KEY are replaced while a recording runs and another waits, as docs/security.md has the steps. */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { Recording } from '../../shared/recording.ts';
import { readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { startDeployment } from '../helpers/deployment.ts';
import { keyList, testKey } from '../helpers/keys.ts';
import { startPages } from '../helpers/pages.ts';
import { lacks } from '../helpers/service.ts';

const secret = () => randomBytes(16).toString('hex');

describe.skipIf(await lacks('ffmpeg', 'headless shell', 'redis-server'))('secrets that are replaced', () => {
  it('interrupt no recording, open what was sealed before, and are forgotten with the old ones', async () => {
    await using pages = await startPages();
    const caller = await testKey('caller', ['record', 'read']);
    const [oldToken, newToken, oldSeal, newSeal] = [secret(), secret(), secret(), secret()];
    await using deployment = await startDeployment({
      redisPassword: secret(),
      environment: { TOKEN_SECRET: oldToken, SECRETS_KEY: oldSeal, API_KEYS: keyList(caller), SLOTS: '1' },
      // those who open what is sealed learn of the new key first
      worker: { SECRETS_KEY: `${oldSeal},${newSeal}` },
    });
    const create = async (path: string, header: string): Promise<Recording> => {
      const { status, text } = await deployment.call('/v1/recordings', caller, { method: 'POST', body: { url: pages.url(path), width: 640, height: 360, maxDuration: 60, headers: { 'x-key': header } } });
      expect([status, text]).toEqual([202, text]);
      return JSON.parse(text) as Recording;
    };
    const bare = (url: string) => fetch(url).then(async (response) => [response.status, await response.text()] as const);
    const running = await create('/animated.html', 'first');
    await deployment.until(running.id, 'recording', caller);
    const waiting = await create('/headers?2', 'second');
    await sleep(2500);

    await deployment.replaceEdge({ TOKEN_SECRET: `${newToken},${oldToken}`, SECRETS_KEY: `${newSeal},${oldSeal}` });
    await sleep(3000);
    expect((await bare(running.links.live))[0]).toBe(200);
    const later = await create('/headers?3', 'third');
    await deployment.call(`/v1/recordings/${running.id}/stop`, caller, { method: 'POST' });
    const ended = await deployment.until(running.id, 'completed', caller);
    expect([ended.attempts, ended.warnings.filter((line) => /attempt|media socket|lost/i.test(line))]).toEqual([1, []]);
    for (const { id } of [waiting, later]) {
      await deployment.until(id, 'recording', caller);
      await deployment.call(`/v1/recordings/${id}/stop`, caller, { method: 'POST' });
      expect((await deployment.until(id, 'completed', caller)).attempts).toBe(1);
    }
    expect(pages.requests.filter(({ url }) => url.startsWith('/headers')).map(({ url, headers }) => [url, headers['x-key']])).toEqual([['/headers?2', 'second'], ['/headers?3', 'third']]);
    const file = join(deployment.directory, 'file.mp4');
    writeFileSync(file, Buffer.from(await (await fetch(running.links.file)).arrayBuffer()));
    const { longestGap, backwards, unique } = uniqueFrames(await readFrames(file));
    console.log(`secrets replaced: ${ended.duration.toFixed(1)} s recorded, ${unique} frames, longest gap ${(longestGap * 1000).toFixed(0)} ms`);
    expect(ended.duration).toBeGreaterThan(5);
    expect(backwards).toBe(0);
    expect(longestGap).toBeLessThan(2);

    await deployment.replaceEdge({ TOKEN_SECRET: newToken, SECRETS_KEY: newSeal });
    expect((await bare(running.links.file))[0]).toBe(401);
    const { links } = JSON.parse((await deployment.call(`/v1/recordings/${running.id}`, caller)).text) as Recording;
    expect((await bare(links.file))[0]).toBe(200);
  });
});
