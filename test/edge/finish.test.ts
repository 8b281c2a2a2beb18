import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BufferSource, EncodedPacketSink, Input, MP4 } from 'mediabunny';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { finishRecording, giveUp, sweepParts } from '../../edge/finish/finish.ts';
import { manifest, type Manifest } from '../../edge/finish/manifest.ts';
import { finishOrphans } from '../../edge/finish/orphans.ts';
import { VerificationFailed } from '../../edge/finish/verify.ts';
import { diskStorage } from '../../edge/storage/disk.ts';
import { partKey, partName } from '../../edge/storage/part-names.ts';
import type { Storage } from '../../edge/storage/storage.ts';
import { TabreelError } from '../../shared/errors.ts';
import { newRecordingId } from '../../shared/recording.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { makeCmaf, hasFfmpeg, type Cmaf, type CmafPart } from './cmaf.ts';
import { testEdge, type TestEdge } from './harness.ts';

let redis: TestRedis;
let edge: TestEdge;
let cmaf: Cmaf;
let storage: Storage;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis);
  storage = diskStorage(edge.directory);
  cmaf = await makeCmaf({ seconds: 3 });
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
  await redis[Symbol.asyncDispose]();
});

const never = new AbortController().signal;
const deps = (using: Storage = storage) => ({ store: edge.control.store, storage: using, log: edge.log });

/** As the queue does: looks again where more may come. */
async function finish(id: string, using: Storage = storage) {
  const first = await finishRecording(deps(using), id, never);
  return first.outcome === 'wait' ? (await finishRecording(deps(using), id, never, first.seen)).outcome : first.outcome;
}

/** Another profile, entropy coder and number of reference frames than the fixture's. */
const otherEncoder = ['-preset', 'medium', '-bf', '0', '-g', '30', '-profile:v', 'main', '-x264-params', 'ref=4:keyint=30'];

async function put(id: string, attempt: number, parts: readonly CmafPart[]) {
  for (const { header, payload } of parts) await storage.put(partKey(id, partName(attempt, header)), payload);
}

/** A recording in `finishing` with these parts, one list for each attempt. */
async function recorded(...attempts: readonly (readonly CmafPart[])[]) {
  const { id } = await edge.create();
  await edge.control.run(id);
  for (const [i, parts] of attempts.entries()) await put(id, i + 1, parts);
  if (attempts.length > 1) await edge.control.redis.hset(`${edge.config.queuePrefix}:r:${id}`, { attempt: attempts.length });
  await edge.control.store.change(id, { from: ['recording'], to: 'finishing' });
  return id;
}

const secondsOf = (parts: readonly CmafPart[]) => parts.reduce((sum, { header }) => sum + ('duration' in header ? header.duration : 0), 0) / 1e6;

type Look = { bytes: Uint8Array; times: number[]; pictures: string[]; sounds: string[]; soundTimes: number[]; duration: number };

async function lookAt(input: Input, bytes: Uint8Array): Promise<Look> {
  const look: Look = { bytes, times: [], pictures: [], sounds: [], soundTimes: [], duration: await input.computeDuration() };
  const hash = (data: Uint8Array) => createHash('sha256').update(data).digest('hex').slice(0, 16);
  const [video, audio] = [await input.getPrimaryVideoTrack(), await input.getPrimaryAudioTrack()];
  for await (const { timestamp, data } of video ? new EncodedPacketSink(video).packets() : []) {
    look.times.push(timestamp);
    look.pictures.push(hash(data));
  }
  for await (const { timestamp, data } of audio ? new EncodedPacketSink(audio).packets() : []) {
    look.soundTimes.push(timestamp);
    look.sounds.push(hash(data));
  }
  return look;
}

async function look(id: string): Promise<Look> {
  const bytes = (await storage.get(`${id}/recording.mp4`)) ?? new Uint8Array();
  using input = new Input({ formats: [MP4], source: new BufferSource(bytes) });
  return await lookAt(input, bytes);
}

/** The samples of what was sent, by another reader than the finaliser's. */
async function sent(...attempts: readonly (readonly CmafPart[])[]) {
  const all = { pictures: [] as string[], sounds: [] as string[] };
  for (const parts of attempts) {
    using initInput = new Input({ formats: [MP4], source: new BufferSource(parts[0]!.payload) });
    for (const { header, payload } of parts) {
      if (header.type !== 'segment') continue;
      using input = new Input({ formats: [MP4], source: new BufferSource(payload), initInput });
      const { pictures, sounds } = await lookAt(input, payload);
      all.pictures.push(...pictures);
      all.sounds.push(...sounds);
    }
  }
  return all;
}

const manifestOf = async (id: string): Promise<Manifest> => manifest.parse(JSON.parse(Buffer.from((await storage.get(`${id}/manifest.json`)) ?? []).toString()));

/** Without the silence that was laid. */
const heard = ({ sounds }: { sounds: readonly string[] }, wanted: readonly string[]) => sounds.filter((sound) => wanted.includes(sound));

function fileOf(bytes: Uint8Array): string {
  const path = join(edge.directory, `check-${crypto.randomUUID()}.mp4`);
  writeFileSync(path, bytes);
  return path;
}
const ffmpeg = (...args: string[]) => execFileSync('ffmpeg', ['-v', 'error', ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
/** A checksum of each picture as it is decoded. */
const decoded = (path: string) => ffmpeg('-i', path, '-map', '0:v', '-fps_mode', 'passthrough', '-f', 'framemd5', '-').split('\n').filter((line) => !line.startsWith('#') && line !== '').map((line) => line.split(',').at(-1)!.trim());

describe('finishing', () => {
  test('the last picture stands until the end that the worker told', async () => {
    const told = cmaf.duration + 1.25;
    const end = { header: { ...cmaf.parts.at(-1)!.header, duration: Math.round(told * 1e6) }, payload: new Uint8Array() } as CmafPart;
    const id = await recorded([...cmaf.parts.slice(0, -1), end]);
    expect(await finish(id)).toBe('file');
    const done = await edge.get(id);
    expect([done.state, done.duration]).toEqual(['completed', expect.closeTo(told, 3)]);
    const { duration, times } = await look(id);
    expect(duration).toBeCloseTo(told, 3);
    expect(times).toHaveLength(cmaf.frames);
  });

  test('a worker that was lost leaves what was stored: it ends with the last segment', async () => {
    const id = await recorded(cmaf.parts.slice(0, 3));
    await finish(id);
    expect((await edge.get(id)).duration).toBeCloseTo(secondsOf(cmaf.parts.slice(1, 3)), 1);
  });

  test.runIf(hasFfmpeg)('a crash leaves a gap: the last picture is held, silence laid, and every sample is there as it was', async () => {
    const next = await makeCmaf({ seconds: 3, start: 5 });
    const id = await recorded(cmaf.parts.slice(0, 3), next.parts);
    await finish(id);
    const stored = secondsOf(cmaf.parts.slice(1, 3));
    const done = await edge.get(id);
    expect(done).toMatchObject({ state: 'completed', warnings: [], verification: { ok: true } });
    expect(done.duration).toBeCloseTo(5 + next.duration, 2);
    const found = await look(id);
    const wanted = await sent(cmaf.parts.slice(0, 3), next.parts);
    expect(found.pictures).toEqual(wanted.pictures);
    expect(heard(found, wanted.sounds)).toEqual(wanted.sounds);
    expect(found.times).toEqual(found.times.toSorted((a, b) => a - b));
    expect(found.times.filter((time) => time > stored - 0.001 && time < 4.999)).toEqual([]);
    expect(found.times.filter((time) => time >= 4.999)).toHaveLength(next.frames);
    expect(await manifestOf(id)).toMatchObject({
      attempts: [{ attempt: 1, start: 0, segments: 2 }, { attempt: 2, start: 5, segments: 3 }],
      gaps: [{ start: expect.closeTo(stored, 3), duration: expect.closeTo(5 - stored, 3), afterAttempt: 1 }],
      shifts: [],
      trimmed: 0,
      verification: { ok: true },
    });
    if (!cmaf.audio) return;
    // players that count packets and players that read times agree
    expect(found.soundTimes.every((time, i) => Math.abs(time - (i * 1024) / 48_000) < 1e-6)).toBe(true);
    const first = found.soundTimes[found.sounds.lastIndexOf(wanted.sounds.at(-1)!) - (wanted.sounds.length - (await sent(cmaf.parts.slice(0, 3))).sounds.length) + 1]!;
    expect(Math.abs(first - 5)).toBeLessThan(0.04);
    expect((await manifestOf(id)).silence).toBeCloseTo(5 - stored, 1);
  });

  test.runIf(hasFfmpeg)('a hole at the beginning is no part of the file', async () => {
    const next = await makeCmaf({ seconds: 2, start: 4 });
    const id = await recorded([], next.parts);
    const began = Number((await edge.control.store.get(id))?.startedAt);
    await edge.control.redis.hset(`${edge.config.queuePrefix}:r:${id}`, { markers: JSON.stringify([{ label: 'early', at: 1 }, { label: 'here', at: 5 }]), pauses: JSON.stringify([{ at: 2, duration: 7 }, { at: 5.5, duration: 60 }]) });
    await finish(id);
    const done = await edge.get(id);
    expect(done).toMatchObject({ state: 'completed', duration: next.duration, pauses: [{ at: 1.5, duration: 60 }] });
    expect(done.markers).toEqual([{ label: 'early', at: 0 }, { label: 'here', at: 1 }]);
    expect(Date.parse(done.startedAt!) - began).toBe(11_000);
    expect((await look(id)).times[0]).toBe(0);
    expect(await manifestOf(id)).toMatchObject({ trimmed: 4, attempts: [{ attempt: 2, start: 0 }] });
  });

  test.runIf(hasFfmpeg)('attempts that overlap lose nothing: the later one is moved, by no more than is needed', async () => {
    // two seconds are stored of the first, and the second begins within them
    const next = await makeCmaf({ seconds: 2, start: 1.5 });
    const third = await makeCmaf({ seconds: 1, start: 5 });
    const id = await recorded(cmaf.parts.slice(0, 3), next.parts, third.parts);
    await finish(id);
    const found = await look(id);
    const wanted = await sent(cmaf.parts.slice(0, 3), next.parts, third.parts);
    expect(found.pictures).toEqual(wanted.pictures);
    expect(heard(found, wanted.sounds)).toEqual(wanted.sounds);
    const { shifts, attempts, gaps } = await manifestOf(id);
    expect(shifts).toMatchObject([{ attempt: 2 }]);
    expect(shifts[0]!.by).toBeGreaterThan(0.4);
    expect(shifts[0]!.by).toBeLessThanOrEqual(0.5);
    // a gap takes up what was moved
    expect(attempts[2]).toMatchObject({ attempt: 3, start: 5 });
    expect(gaps).toMatchObject([{ afterAttempt: 2 }]);
  });

  test.runIf(hasFfmpeg)('sections of an attempt that follow a pause join without a seam', async () => {
    const after = await makeCmaf({ seconds: 2, start: 3, seq: cmaf.parts.length });
    const parts = [...cmaf.parts.slice(0, -1), ...after.parts];
    const id = await recorded(parts);
    await finish(id);
    expect(await manifestOf(id)).toMatchObject({ attempts: [{ attempt: 1, start: 0, duration: 5, segments: 5 }], gaps: [], shifts: [] });
    const [found, wanted] = [await look(id), await sent(cmaf.parts, after.parts)];
    expect([found.pictures, found.sounds]).toEqual([wanted.pictures, wanted.sounds]);
    expect(found.times.every((time, i) => Math.abs(time - i / 30) < 0.001)).toBe(true);
  });

  test.runIf(hasFfmpeg)('attempts of other encoders are in the file as they are, and are decoded as they were', async () => {
    const other = await makeCmaf({ seconds: 2, start: 4, encoder: otherEncoder });
    const third = await makeCmaf({ seconds: 1, start: 7 });
    const id = await recorded(cmaf.parts, other.parts, third.parts);
    await finish(id);
    const done = await edge.get(id);
    expect(done).toMatchObject({ state: 'completed', warnings: [], verification: { ok: true } });
    const path = fileOf((await look(id)).bytes);
    const alone = [cmaf, other, third].flatMap(({ parts }) => decoded(fileOf(Buffer.concat(parts.map(({ payload }) => payload)))));
    expect(decoded(path)).toEqual(alone);
    // and from the middle of each, as a player that seeks
    for (const [at, frame] of [[1, 30], [5, 3 * 30 + 30], [7, 5 * 30]] as const) {
      const seeked = ffmpeg('-ss', String(at), '-i', path, '-map', '0:v', '-frames:v', '1', '-f', 'framemd5', '-').trim().split(',').at(-1)!.trim();
      expect([at, seeked]).toEqual([at, alone[frame]]);
    }
    expect((await manifestOf(id)).video.split(', ')).toHaveLength(2);
  });

  test.runIf(hasFfmpeg)('sound may begin late, and be missing for an attempt', async () => {
    const silent = await makeCmaf({ seconds: 1, audio: false });
    const loud = await makeCmaf({ seconds: 2, start: 1 });
    const still = await makeCmaf({ seconds: 1, start: 4, audio: false });
    const id = await recorded(silent.parts, loud.parts, still.parts);
    await finish(id);
    const done = await edge.get(id);
    expect(done).toMatchObject({ state: 'completed', warnings: [], duration: 5 });
    const [found, wanted] = [await look(id), await sent(silent.parts, loud.parts, still.parts)];
    expect([found.pictures, heard(found, wanted.sounds)]).toEqual([wanted.pictures, wanted.sounds]);
    const loudness = (from: number, to: number) => {
      const { stderr } = spawnSync('ffmpeg', ['-v', 'info', '-ss', String(from), '-to', String(to), '-i', fileOf(found.bytes), '-map', '0:a', '-af', 'volumedetect', '-f', 'null', '-'], { encoding: 'utf8' });
      return Number(/max_volume: ([-\d.]+)/.exec(stderr)?.[1]);
    };
    expect(loudness(0.1, 0.9)).toBeLessThan(-80);
    expect(loudness(1.2, 2.8)).toBeGreaterThan(-30);
    expect(loudness(3.2, 4.8)).toBeLessThan(-80);
  });

  test.runIf(hasFfmpeg)('markers are chapters', async () => {
    const id = await recorded(cmaf.parts);
    const markers = [{ label: 'Begrüßung 👋', at: 0.5 }, { label: 'Fragen', at: 2 }, { label: 'at the same moment', at: 2 }, { label: 'too late', at: 99 }];
    await edge.control.redis.hset(`${edge.config.queuePrefix}:r:${id}`, { markers: JSON.stringify(markers) });
    await finish(id);
    const { bytes } = await look(id);
    const probed = JSON.parse(execFileSync('ffprobe', ['-v', 'error', '-show_chapters', '-of', 'json', fileOf(bytes)], { encoding: 'utf8' }));
    const chapters = probed.chapters.map(({ start_time, tags }: any) => [tags.title, Number(start_time)]);
    const last = Math.floor(cmaf.duration * 1000 - 1) / 1000;
    expect(chapters).toEqual([['Start', 0], ['Begrüßung 👋', 0.5], ['Fragen', 2], ['at the same moment', 2.001], ['too late', expect.closeTo(last, 2)]]);
    expect((await manifestOf(id)).markers.map(({ at }) => at)).toEqual([0.5, 2, 2, cmaf.duration]);
    // both kinds are there
    expect([Buffer.from(bytes).includes('chpl'), Buffer.from(bytes).includes('chap')]).toEqual([true, true]);
  });

  test.runIf(hasFfmpeg)('works without sound', async () => {
    const silent = await makeCmaf({ seconds: 2, audio: false });
    const id = await recorded(silent.parts);
    await finish(id);
    expect(await edge.get(id)).toMatchObject({ state: 'completed', duration: 2 });
  });

  test('twice, or again after dying in the middle, gives the same', async () => {
    const id = await recorded(cmaf.parts);
    const broken: Storage = {
      ...storage,
      put: (key, bytes) => (key.endsWith('manifest.json') ? Promise.reject(new Error('died')) : storage.put(key, bytes)),
    };
    await expect(finish(id, broken)).rejects.toThrow('died');
    expect((await edge.get(id)).state).toBe('finishing');
    const before = await storage.get(`${id}/recording.mp4`);
    await finish(id);
    const done = await edge.get(id);
    expect(done.state).toBe('completed');
    expect(Buffer.from(before!).equals((await look(id)).bytes)).toBe(true);
    expect(await finish(id)).toBe('file');
    expect(await edge.get(id)).toEqual({ ...done, links: expect.anything() });
    for (const { name, bytes, sha256 } of done.files) {
      const stored = (await storage.get(`${id}/${name}`))!;
      expect([name, stored.length, createHash('sha256').update(stored).digest('hex')]).toEqual([name, bytes, sha256]);
    }
  });

  test('a recording that failed keeps its error and gets its file', async () => {
    const id = await recorded(cmaf.parts);
    await edge.control.store.change(id, { from: ['finishing'], error: new TabreelError('page_crashed', 'the page crashed').toRecordingError() });
    await finish(id);
    expect(await edge.get(id)).toMatchObject({ state: 'failed', error: { code: 'page_crashed', blame: 'target' }, files: [{ name: 'recording.mp4' }, { name: 'manifest.json' }] });
  });

  test('nothing stored: failed, or canceled where that was wanted', async () => {
    const lost = await recorded();
    expect(await finish(lost)).toBe('nothing');
    expect(await edge.get(lost)).toMatchObject({ state: 'failed', error: { code: 'nothing_recorded' } });
    const onlyInit = await recorded(cmaf.parts.slice(0, 1));
    await finish(onlyInit);
    expect((await edge.get(onlyInit)).state).toBe('failed');

    const { id } = await edge.create();
    await edge.control.store.claim(id);
    await edge.api(`/v1/recordings/${id}/stop`, { method: 'POST' });
    await edge.control.store.change(id, { from: ['starting'], to: 'finishing' });
    await finish(id);
    const canceled = await edge.get(id);
    expect(canceled.state).toBe('canceled');
    expect(canceled.error).toBeUndefined();
    for (const empty of [lost, onlyInit, id]) {
      expect((await storage.list(`${empty}/`)).map(({ key }) => key)).toEqual([`${empty}/sealed`]);
      await sweepParts(deps(), empty);
      expect(await storage.list(`${empty}/`)).toEqual([]);
    }
  });

  test('a segment that can not be read fails the recording in the end, and keeps what is stored', async () => {
    const broken = { header: cmaf.parts[2]!.header, payload: new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]) };
    const cut = { header: cmaf.parts[2]!.header, payload: cmaf.parts[2]!.payload.subarray(0, -10) };
    for (const wrong of [broken, cut]) {
      const id = await recorded([...cmaf.parts.slice(0, 2), wrong]);
      const error: unknown = await finish(id).catch((thrown: unknown) => thrown);
      expect((error as Error).message).toContain('a0001-s0000003');
      await giveUp(deps(), id, error);
      expect(await edge.get(id)).toMatchObject({ state: 'failed', error: { code: 'finish_failed', blame: 'service', retryable: true }, files: [] });
      expect(await storage.list(`${id}/`)).toHaveLength(3);
    }
  });

  const spoiling = (spoil: (position: number, bytes: Uint8Array) => Uint8Array): Storage => ({
    ...storage,
    async create(key, expected) {
      const upload = await storage.create(key, expected);
      return { ...upload, write: (position, bytes) => upload.write(position, spoil(position, bytes)) };
    },
  });

  test('a file that is not as it should be is found, tried again, and kept with what is wrong', async () => {
    const id = await recorded(cmaf.parts);
    const error: unknown = await finish(id, spoiling((_position, bytes) => bytes.map((byte, i) => (i > bytes.length - 5000 ? 0 : byte)))).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(VerificationFailed);
    expect((await edge.get(id)).state).toBe('finishing');
    await giveUp(deps(), id, error);
    const failed = await edge.get(id);
    expect(failed).toMatchObject({ state: 'failed', error: { code: 'finish_failed' }, verification: { ok: false }, files: [{ name: 'recording.mp4' }] });
    expect(failed.verification!.checks.filter(({ ok }) => !ok).map(({ name }) => name)).toEqual(expect.arrayContaining(['bytes']));
    await sweepParts(deps(), id);
    expect((await storage.list(`${id}/parts/`)).length).toBe(cmaf.parts.length);
  });

  test('what comes while it is joined is in the file', async () => {
    const id = await recorded(cmaf.parts.slice(0, 2));
    let joins = 0;
    const late: Storage = {
      ...storage,
      async create(key, expected) {
        joins += 1;
        if (joins === 1) await put(id, 1, cmaf.parts.slice(2));
        return storage.create(key, expected);
      },
    };
    expect(await finish(id, late)).toBe('file');
    expect([joins, (await look(id)).pictures]).toEqual([2, (await sent(cmaf.parts)).pictures]);
  });

  test('is not begun while parts may still come, unless the last attempt has ended', async () => {
    const growing = await recorded(cmaf.parts.slice(0, 2));
    const first = await finishRecording(deps(), growing, never);
    expect(first.outcome).toBe('wait');
    await put(growing, 1, cmaf.parts.slice(2, 3));
    const second = await finishRecording(deps(), growing, never, first.outcome === 'wait' ? first.seen : null);
    expect(second.outcome).toBe('wait');
    expect((await edge.get(growing)).state).toBe('finishing');
    expect((await finishRecording(deps(), growing, never, second.outcome === 'wait' ? second.seen : null)).outcome).toBe('file');

    const ended = await recorded(cmaf.parts);
    expect((await finishRecording(deps(), ended, never)).outcome).toBe('file');

    // its worker saw its process end, and said so
    const killed = (await edge.create()).id;
    await edge.control.run(killed);
    await put(killed, 1, cmaf.parts.slice(0, 2));
    await edge.control.store.change(killed, { from: ['recording'], to: 'finishing', attempt: 1 });
    expect((await finishRecording(deps(), killed, never)).outcome).toBe('file');
  });

  test('what comes while it is sealed is in the file, and what comes behind that is not, and goes with the parts', async () => {
    const id = await recorded([...cmaf.parts.slice(0, 2), cmaf.parts.at(-1)!]);
    const late: Storage = {
      ...storage,
      async put(key, bytes) {
        if (key === `${id}/sealed`) await put(id, 1, cmaf.parts.slice(2, 3));
        await storage.put(key, bytes);
      },
    };
    expect(await finish(id, late)).toBe('file');
    expect((await manifestOf(id)).segments).toBe(2);
    await put(id, 1, cmaf.parts.slice(3));
    await sweepParts(deps(), id);
    expect(await storage.list(`${id}/parts/`)).toEqual([]);
    expect((await edge.get(id)).warnings).toEqual([]);
  });

  test('a finaliser that is killed in the middle leaves nothing that the next one does not mend', async () => {
    const id = await recorded(cmaf.parts);
    const program = `
      import { diskStorage } from './edge/storage/disk.ts';
      import { foundParts } from './edge/finish/plan.ts';
      import { makeFiles } from './edge/finish/make.ts';
      const storage = diskStorage(process.argv[1]);
      const create = async (key) => ({ ...(await storage.create(key)), commit: () => { console.log('written'); return new Promise((resolve) => setTimeout(resolve, 60_000)); } });
      const parts = foundParts(await storage.list(process.argv[2] + '/parts/'));
      await makeFiles({ ...storage, create }, parts, { id: process.argv[2], url: null, createdAt: 0, startedAt: null, markers: [], pauses: [], warnings: [] }, new AbortController().signal);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program, edge.directory, id], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    child.kill('SIGKILL');
    await once(child, 'exit');
    const left = () => readdirSync(join(edge.directory, id)).filter((name) => name.startsWith('.'));
    expect(left()).toHaveLength(1);
    await finish(id);
    expect(left()).toEqual([]);
    expect((await edge.get(id)).state).toBe('completed');
  });

  test('deleted meanwhile: nothing stays', async () => {
    const id = await recorded(cmaf.parts);
    const deleting: Storage = {
      ...storage,
      async put(key, bytes) {
        await storage.remove(`${id}/`);
        await edge.control.store.remove(id);
        await storage.put(key, bytes);
      },
    };
    await finish(id, deleting).catch(() => undefined);
    await finish(id);
    expect(await storage.list(`${id}/`)).toEqual([]);
  });
});

describe('parts that no recording owns', () => {
  test('are finished where they lie once nothing comes any more, and stay', async () => {
    const [lost, owned] = [newRecordingId(), await recorded(cmaf.parts)];
    await put(lost, 1, cmaf.parts.slice(0, 3));
    expect(await finishOrphans(deps(), never)).toBe(0);
    expect(await finishOrphans(deps(), never, -1000)).toBe(1);
    expect((await look(lost)).pictures).toEqual((await sent(cmaf.parts.slice(0, 3))).pictures);
    expect(await manifestOf(lost)).toMatchObject({ id: lost, url: null, segments: 2, startedAt: null, verification: { ok: true } });
    expect(await storage.list(`${lost}/parts/`)).toHaveLength(3);
    expect(await storage.stat(`${owned}/recording.mp4`)).toBeNull();
    expect(await finishOrphans(deps(), never, -1000)).toBe(0);
  });
});

describe('files', () => {
  test('are served whole, in ranges, and unchanged', async () => {
    const id = await recorded(cmaf.parts);
    await finish(id);
    const { bytes } = await look(id);
    const path = `${edge.url}/v1/recordings/${id}/recording.mp4`;
    const range = (value: string, more: Record<string, string> = {}) => fetch(path, { headers: { range: value, ...more } });
    const head = await fetch(path, { method: 'HEAD' });
    expect([head.status, head.headers.get('content-length'), head.headers.get('accept-ranges')]).toEqual([200, String(bytes.length), 'bytes']);
    const etag = head.headers.get('etag') ?? '';

    const part = await range('bytes=100-199');
    expect([part.status, part.headers.get('content-range'), part.headers.get('content-length')]).toEqual([206, `bytes 100-199/${bytes.length}`, '100']);
    expect(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(100, 200))).toBe(true);
    const suffix = await range('bytes=-10');
    expect(Buffer.from(await suffix.arrayBuffer()).equals(bytes.subarray(-10))).toBe(true);
    const beyond = await range(`bytes=${bytes.length}-`);
    expect([beyond.status, beyond.headers.get('content-range'), ((await beyond.json()) as any).code]).toEqual([416, `bytes */${bytes.length}`, 'range_not_satisfiable']);
    const both = await range('bytes=0-1,5-6');
    expect(both.status).toBe(200);
    await both.arrayBuffer();
    const same = await range('bytes=0-9', { 'if-range': etag });
    expect(same.status).toBe(206);
    await same.arrayBuffer();
    const other = await range('bytes=0-9', { 'if-range': '"other"' });
    expect([other.status, (await other.arrayBuffer()).byteLength]).toEqual([200, bytes.length]);
    expect((await fetch(path, { headers: { 'if-none-match': etag } })).status).toBe(304);
  });

  test('the live stream stays until it is swept, then it is over', async () => {
    const id = await recorded(cmaf.parts);
    await sweepParts(deps(), id);
    await finish(id);
    expect((await edge.api(`/v1/recordings/${id}/live.m3u8`)).body).toContain('#EXT-X-ENDLIST');
    await sweepParts(deps(), id);
    expect((await storage.list(`${id}/`)).map(({ key }) => key.split('/')[1])).toEqual(['manifest.json', 'recording.mp4', 'sealed']);
    await new Promise((resolve) => setTimeout(resolve, 1100));
    expect(await edge.api(`/v1/recordings/${id}/live.m3u8`)).toMatchObject({ status: 410, body: { code: 'live_over' } });
  });
});
