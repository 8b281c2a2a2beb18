/** A worker is told to leave in the middle of a recording, as an autoscaler or a rollout does: real processes, a real SIGTERM. */
import { describe, expect, it } from 'vitest';
import { readFrames, uniqueFrames } from '../helpers/analyse.ts';
import { startFleet } from '../helpers/fleet.ts';
import { startPages } from '../helpers/pages.ts';
import { lacks } from '../helpers/service.ts';

const size = { width: 320, height: 180 };

describe.skipIf(await lacks('ffmpeg', 'redis-server', 'headless shell'))('two workers with a recording each', () => {
  it('one told to leave takes no more, and its recording ends whole; the other goes on, and takes what waits', async () => {
    await using pages = await startPages();
    await using fleet = await startFleet({ workers: 2, slots: 1 });
    const url = pages.url('/animated.html');
    const lengths = [9, 12, 2];
    const create = (maxDuration?: number) => fleet.create({ url, ...size, maxDuration });
    const [first, second] = [await create(lengths[0]), await create(lengths[1])];
    await Promise.all([fleet.waitFor(first.id, 'recording'), fleet.waitFor(second.id, 'recording')]);

    const told = fleet.kill('worker', { signal: 'SIGTERM', stayDown: true });
    const waiting = await create(lengths[2]);
    const slots = async () => {
      const text = await (await fetch(`${fleet.url}/metrics`)).text();
      return Object.fromEntries([...text.matchAll(/^tabreel_(?:slots\{state="(\w+)"\}|(demand)) (\d+)/gm)].map(([, state, demand, value]) => [state ?? demand, Number(value)]));
    };
    // the recording of the one that leaves needs no slot of those that stay: what waits and what runs there do
    await expect.poll(slots, { timeout: 5000 }).toMatchObject({ leaving: 1, busy: 1, free: 0, demand: 2 });

    const recordings = await Promise.all([first, second, waiting].map(({ id }) => fleet.waitFor(id, 'completed', 90_000)));
    const isGone = () => fleet.lines.some((line) => line.startsWith(`${told?.name}|{"fleet":"ended"`));
    await expect.poll(isGone, { timeout: 20_000 }).toBe(true);
    const lines = fleet.lines.map((line) => line.split('|', 2) as [string, string]).map(([name, text]) => ({ name, ...(JSON.parse(text.startsWith('{') ? text : '{}') as { event?: string; fleet?: string; code?: number; at?: number; recording?: string }) }));
    const worked = ({ id }: { id: string }) => new Set(lines.filter(({ name, recording }) => recording === id && name.startsWith('worker')).map(({ name }) => name));
    const left = lines.find(({ name, fleet: what }) => name === told?.name && what === 'ended');
    const [ofLeaving, ofStaying] = worked(first).has(told?.name ?? '') ? [recordings[0], recordings[1]] : [recordings[1], recordings[0]];
    expect(left).toMatchObject({ code: 0 });
    expect(worked(waiting).size).toBe(1);
    expect([...worked(waiting)]).toEqual([...worked(ofStaying ?? second)]);
    expect([...worked(waiting)]).not.toContain(told?.name);
    const wholes = await Promise.all(
      recordings.map(async (recording, i) => {
        expect(recording).toMatchObject({ state: 'completed', attempts: 1 });
        expect((await fleet.manifest(recording.id)).gaps).toEqual([]);
        expect(Math.abs(recording.duration - (lengths[i] ?? 0))).toBeLessThan(0.3);
        return uniqueFrames(await readFrames(await fleet.download(recording.id)));
      }),
    );
    for (const { backwards, longestGap } of wholes) {
      expect(backwards).toBe(0);
      // nothing stood still when the other left
      expect(longestGap).toBeLessThan(1.5);
    }
    const since = (iso: string | null | undefined) => (Date.parse(iso ?? '') - (told?.at ?? 0)) / 1000;
    console.log(
      `told to leave: its recording went on for ${since(ofLeaving?.endedAt).toFixed(1)} s and ended whole, the process left ${((left?.at ?? 0) / 1000 - (told?.at ?? 0) / 1000).toFixed(1)} s after it was told; ` +
        `what waited began ${since(recordings[2]?.startedAt).toFixed(1)} s after that, where the other's ended after ${since(ofStaying?.endedAt).toFixed(1)} s; ` +
        `new frames a second ${wholes.map(({ perSecond }) => perSecond.toFixed(1)).join(', ')}`,
    );
    // what it waits for tells itself what did not come
  }, 240_000);
});
