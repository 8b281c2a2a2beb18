/** What is captured goes to an Ant Media Server as well: by the recorder itself, each engine, and whatever becomes of the pushes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { noFaults, startAntMedia, type AntMedia, type Session } from '../antmedia/server.ts';
import { flashBeepOffsets, probe, readBeeps, readFrames, summary, uniqueFrames } from '../helpers/analyse.ts';
import { startPages, type Pages } from '../helpers/pages.ts';
import { segmentsOf, startRecorder, type RecorderRun } from '../helpers/recorder.ts';
import { lacks } from '../helpers/service.ts';

const noFfmpeg = await lacks('ffmpeg', 'chromium');
const without = { self: noFfmpeg || (await lacks('headless shell')), tab: noFfmpeg, screencast: noFfmpeg };
const directory = mkdtempSync(join(tmpdir(), 'tabreel-push-'));

let pages: Pages;
let server: AntMedia;
beforeAll(async () => {
  pages = await startPages();
  if (!noFfmpeg) server = await startAntMedia();
}, 60_000);
afterAll(async () => {
  await pages.close();
  await server?.[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true });
});
afterEach(() => {
  if (server !== undefined) Object.assign(server.faults, noFaults);
});

const to = (streamId: string) => ({ type: 'antmedia' as const, url: server.websocketUrl, streamId });
const sessionOf = (streamId: string) => server.streams.get(streamId)?.sessions.at(-1) as Session;
const statesOf = (run: RecorderRun, index = 0) =>
  run.reports.flatMap(({ message }) => (message.type === 'push' && message.index === index ? [message.state] : []));
const isLive = (run: RecorderRun, index = 0) => server.until(`push ${index} live`, () => statesOf(run, index).at(-1) === 'live', 20_000);
/** The timeline has no hole. */
const isWhole = (run: RecorderRun) => {
  let next = 0;
  for (const { start, duration } of segmentsOf(run)) {
    expect(start).toBe(next);
    next = start + duration;
  }
  return next / 1e6;
};

describe.each(['self', 'tab', 'screencast'] as const)('with the %s engine', (engine) => {
  it.skipIf(without[engine])('a recording is pushed as it is made', async () => {
    const streamId = `whole-${engine}`;
    const run = await startRecorder({ engine, request: { url: pages.url('/animated.html') }, push: [to(streamId)] });
    await run.report('recording');
    await isLive(run);
    await sleep(4000);
    run.stop();
    const ended = await run.ended;
    expect(ended.error).toBeNull();
    expect(statesOf(run)).toEqual(['connecting', 'publishing', 'live', 'ended']);
    expect(ended.stats.push).toHaveLength(1);
    expect(ended.stats.push?.[0]?.framesSent).toBeGreaterThan(30);
    const session = sessionOf(streamId);
    expect(session.ended).toBe('stop');
    const arrived = await server.received(streamId);
    const frames = await readFrames(arrived);
    expect(uniqueFrames(frames)).toBeGreaterThan(engine === 'screencast' ? 15 : 60);
    expect(session.publish['audio']).toBe(engine !== 'screencast');
    if (engine !== 'screencast') {
      const beeps = await readBeeps(arrived);
      expect(beeps.length).toBeGreaterThanOrEqual(3);
      const offsets = summary(flashBeepOffsets(frames, beeps));
      console.log(engine, 'flash to beep at the far end', offsets);
      expect(Math.abs(offsets.median)).toBeLessThanOrEqual(120);
    }
    expect(isWhole(run)).toBeCloseTo(ended.duration, 1);
    expect((await probe(await run.save(directory))).video?.codec).toBe('h264');
  });
});
