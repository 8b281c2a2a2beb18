/** TOKEN_SECRET and SECRETS_KEY are replaced while a recording runs and another waits, as docs/security.md has the steps: two edges, one after the other. */
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
    const step = {
      1: { TOKEN_SECRET: `${oldToken},${newToken}`, SECRETS_KEY: `${oldSeal},${newSeal}` },
      2: { TOKEN_SECRET: `${newToken},${oldToken}`, SECRETS_KEY: `${newSeal},${oldSeal}` },
      3: { TOKEN_SECRET: newToken, SECRETS_KEY: newSeal },
    } as const;
    await using deployment = await startDeployment({
      redisPassword: secret(),
      edges: 2,
      environment: { SECRETS_KEY: oldSeal, SLOTS: '1' },
      storing: { TOKEN_SECRET: oldToken, API_KEYS: keyList(caller) },
    });
    const create = async (path: string, header: string): Promise<Recording> => {
      const { status, text } = await deployment.call('/v1/recordings', caller, { method: 'POST', body: { url: pages.url(path), width: 640, height: 360, maxDuration: 60, headers: { 'x-key': header } } });
      expect([status, text]).toEqual([202, text]);
      return JSON.parse(text) as Recording;
    };
    const stopped = async ({ id }: Recording): Promise<Recording> => {
      await deployment.call(`/v1/recordings/${id}/stop`, caller, { method: 'POST' });
      const ended = await deployment.until(id, 'completed', caller);
      expect([ended.attempts, ended.warnings.filter((line) => /attempt|media socket|lost/i.test(line))]).toEqual([1, []]);
      return ended;
    };
    /** Of a link, at each edge. */
    const statuses = (link: string): Promise<number[]> =>
      Promise.all(
        deployment.edges.map(async ({ url }) => {
          const response = await fetch(link.replace(deployment.url, url), { headers: { connection: 'close' } });
          await response.body?.cancel();
          return response.status;
        }),
      );
    const running = await create('/animated.html', 'first');
    await deployment.until(running.id, 'recording', caller);
    const waiting = await create('/headers?2', 'second');

    for (const i of [0, 1]) await deployment.replaceEdge(step[1], i);
    await deployment.replaceFinaliser(step[1]);
    const recorder = await deployment.replaceWorker({ SECRETS_KEY: step[1].SECRETS_KEY });
    await deployment.until(waiting.id, 'recording', caller);
    expect(await statuses(running.links.live)).toEqual([200, 200]);

    // one edge uses the new ones, the other only knows them: what comes from the one is taken by the other
    deployment.lead(1);
    deployment.cut();
    await deployment.replaceEdge(step[2], 0);
    deployment.lead(0);
    const between = await create('/headers?3', 'third');
    deployment.lead(1);
    await stopped(waiting);
    await deployment.until(between.id, 'recording', caller);
    expect(await statuses(between.links.events)).toEqual([200, 200]);
    expect(await statuses(running.links.live)).toEqual([200, 200]);
    // without Redis a socket that was cut is taken by its attempt token, which the other edge has signed with the old one
    deployment.lead(0);
    deployment.redis.child.kill('SIGSTOP');
    deployment.cut();
    const admitted = () => deployment.edges[0]?.output().split('\n').filter((line) => line.includes('admitted by its token') && line.includes(running.id)) ?? [];
    for (const end = Date.now() + 15_000; admitted().length === 0 && Date.now() < end; ) await sleep(50);
    deployment.redis.child.kill('SIGCONT');
    expect(admitted()).toHaveLength(1);
    await deployment.replaceEdge(step[2], 1);
    await deployment.replaceFinaliser(step[2]);

    const ended = await stopped(running);
    await stopped(between);
    for (const end = Date.now() + 15_000; recorder.child.exitCode === null && Date.now() < end; ) await sleep(50);
    expect(recorder.child.exitCode).toBe(0);
    expect(pages.requests.filter(({ url }) => url.startsWith('/headers')).map(({ url, headers }) => [url, headers['x-key']])).toEqual([['/headers?2', 'second'], ['/headers?3', 'third']]);
    const file = join(deployment.directory, 'file.mp4');
    writeFileSync(file, Buffer.from(await (await fetch(running.links.file)).arrayBuffer()));
    const { longestGap, backwards, unique } = uniqueFrames(await readFrames(file));
    console.log(`secrets replaced: ${ended.duration.toFixed(1)} s recorded, ${unique} frames, longest gap ${(longestGap * 1000).toFixed(0)} ms`);
    expect(ended.duration).toBeGreaterThan(5);
    expect(backwards).toBe(0);
    expect(longestGap).toBeLessThan(2);

    for (const i of [0, 1]) await deployment.replaceEdge(step[3], i);
    expect(await statuses(running.links.file)).toEqual([401, 401]);
    const { links } = JSON.parse((await deployment.call(`/v1/recordings/${running.id}`, caller)).text) as Recording;
    expect(await statuses(links.file)).toEqual([200, 200]);
  });
});
