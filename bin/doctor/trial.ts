/** One real recording of the edge's own page, followed from the request to the file: which link of it breaks, if one does. */
import { setTimeout as sleep } from 'node:timers/promises';
import { DOCTOR_PAGE_ELEMENT, DOCTOR_PAGE_PATH } from '../../edge/doctor-page.ts';
import { isEnd, type Recording, type RecordingError } from '../../shared/recording.ts';
import { errorAdvice, linkOfError, type TrialLink } from './errors.ts';
import { examineFile } from './file.ts';
import { follow, type Follower } from './follow.ts';
import { ask, openFollowing, problemCode, readBody, type Access, type Answer } from './http.ts';
import { because, fail, ok, skipped, warn, type Finding, type TryLink } from './link.ts';
import { proxyAdvice } from './advice.ts';

/** Milliseconds that each wait may take. */
export type Patience = {
  /** For a worker. */
  queued: number;
  /** For a browser, the page and its first picture. */
  page: number;
  /** For media to be stored, from the first picture on. */
  media: number;
  /** For the worker to end, and for the file. */
  stop: number;
  file: number;
};
export const defaultPatience: Patience = { queued: 30_000, page: 75_000, media: 30_000, stop: 30_000, file: 30_000 };

/** Milliseconds of the recording, and seconds after which it ends by itself should doctor be gone. */
const LENGTH_MS = 5000;
const MAX_DURATION = 60;
const MAX_FILE_BYTES = 64 * 1024 * 1024;
const FETCH_MS = 30_000;
const SIZE = { width: 640, height: 360 };

export type TrialOptions = {
  /** The deployment, without a slash at its end. */
  base: string;
  access: Access;
  /** What is recorded; null for the edge's own page. */
  page: string | null;
  /** What the proxy before it says it is. */
  server: string | null;
  /** Whether the recording stays. */
  keep: boolean;
  patience: Patience;
  tryLink: TryLink;
  /** Takes a line about what happens between links. */
  say(line: string): void;
};

export type Trial = {
  id: string | null;
  error: RecordingError | null;
  /** Pictures that were recorded, of those that its frame rate has in its time: 0 to 1; null where there is no recording to the end. */
  frameShare: number | null;
};

const noTrial: Trial = { id: null, error: null, frameShare: null };

/** Runs link after link until one breaks. An abort deletes the recording and is thrown. */
export async function tryRecording(options: TrialOptions): Promise<Trial> {
  const { base, access, tryLink } = options;
  if (options.page === null) {
    const own = await tryLink('test page', () => testPageLink(base, access));
    if (own.mark === 'fail') return noTrial;
  }

  let created: Recording | null = null;
  await tryLink('request', async () => {
    const { finding, recording } = await request(options);
    created = recording;
    return finding;
  });
  const recording = created as Recording | null;
  if (recording === null) return noTrial;
  const self = `${base}/v1/recordings/${recording.id}`;
  let last: Recording | null = null;
  try {
    last = await run(options, self, recording);
  } finally {
    if (options.keep) options.say(`The recording ${recording.id} is kept.`);
    else await remove(options, self);
  }
  return { id: recording.id, error: last?.error ?? null, frameShare: frameShareOf(last) };
}

async function testPageLink(base: string, access: Access): Promise<Finding> {
  const { status, text } = await ask(`${base}${DOCTOR_PAGE_PATH}`, access);
  if (status === 200 && text.includes(DOCTOR_PAGE_ELEMENT.replace(/^.*#/, ''))) return ok(`${base}${DOCTOR_PAGE_PATH}`);
  return fail(`GET ${DOCTOR_PAGE_PATH}: ${status}, which is not the edge's page`, [
    'It is what the trial records: let the proxy pass it to the edge, and bring an older edge up to date.',
  ]);
}

async function request({ base, access, page }: TrialOptions): Promise<{ finding: Finding; recording: Recording | null }> {
  const answer = await ask(`${base}/v1/recordings`, access, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      url: page ?? `${base}${DOCTOR_PAGE_PATH}`,
      ...SIZE,
      maxDuration: MAX_DURATION,
      ...(page === null ? { start: { when: 'selector', selector: DOCTOR_PAGE_ELEMENT, timeout: 15 } } : {}),
      metadata: { madeBy: 'tabreel doctor' },
    }),
  });
  if (answer.status === 202) {
    const recording = answer.json as unknown as Recording;
    return { finding: ok(`${recording.id}, media goes to ${recording.mediaUrl.replace(/\/v1\/recordings\/.*$/, '')}`), recording };
  }
  return { finding: refusal(answer), recording: null };
}

function refusal(answer: Answer): Finding {
  const code = problemCode(answer);
  if (code === null) return fail(`POST /v1/recordings: ${answer.status}, which is no answer of an edge`, ['Something before the edge refuses or swallows POST: look at its rules.']);
  return fail(`POST /v1/recordings: ${answer.status} ${code}: ${String(answer.json?.['detail'] ?? '')}`, typeof answer.json?.['remedy'] === 'string' ? [answer.json['remedy']] : errorAdvice(code));
}

/** @returns the recording as it was last read */
async function run(options: TrialOptions, self: string, { id, links }: Recording): Promise<Recording | null> {
  const { access, tryLink, say, patience } = options;
  let heard = '';
  await using follower = follow({
    self,
    // by the way that was asked for, whatever origin the edge sees
    events: `${self}/events${new URL(links.events).search}`,
    access,
    onState: (state) => say(`${id} is ${state}`),
    onStats: ({ bytes }) => Number(bytes ?? 0) > 0 && say(`${(Number(bytes) / 1e6).toFixed(2)} MB stored`),
    onLog: say,
    onWarning(message) {
      heard = message;
      say(`Warning: ${message}`);
    },
  });
  const { now } = follower;
  let broken = false;
  /** One link: waits until it holds; a recording that ends before says which link it was. */
  const reach = async (name: TrialLink, holds: () => boolean, limit: number, held: () => string | Promise<string>, late: () => Finding | Promise<Finding>) => {
    if (broken) return;
    const link = await tryLink(name, async () => {
      await follower.until(() => holds() || isEnd(now.state), limit);
      if (holds()) return ok(await held());
      if (!isEnd(now.state)) return late();
      const error = await errorOf(follower);
      if (error === null) return fail(`the recording is ${now.state}`, ['Somebody else stopped or deleted it.']);
      const own = linkOfError(error.code, now.bytes > 0, name);
      const where = own === name ? '' : ` (at the link ${own})`;
      return fail(`${error.code}${where}: ${error.message}`, errorAdvice(error.code));
    });
    broken = link.mark === 'fail';
  };
  const seen = (...states: string[]) => states.includes(now.state);
  const after = () => seen('recording', 'paused', 'finishing', 'completed');

  await reach('queued', () => !seen('queued') && !seen('canceled', 'failed'), patience.queued, () => 'a worker took it', () => noWorker(options, self));
  await reach('page', after, patience.page, async () => {
    await follower.until(({ recording }) => recording?.engine != null, 3000);
    return `loaded, and its first picture captured${now.recording?.engine ? ` by the ${now.recording.engine} engine` : ''}`;
  }, () =>
    fail(`nothing was captured within ${patience.page / 1000} s`, ['See the log of the worker that took it.', ...said(heard)]),
  );
  await reach('media', () => now.bytes > 0, patience.media, () => 'the worker dialled the media URL, and the first segment is stored', () =>
    fail(`nothing was stored within ${patience.media / 1000} s`, [
      ...said(heard),
      `The worker can not bring its media to ${now.recording?.mediaUrl.replace(/\/v1\/recordings\/.*$/, '') ?? 'the media URL'}: try that from the worker's own machine, as doctor does above at the link \`upgrade\`.`,
      'Name, network policy and authority (MEDIA_CA) may differ there.',
    ]),
  );
  if (!broken) {
    const began = Date.parse(now.recording?.startedAt ?? '') || Date.now();
    await sleep(Math.min(LENGTH_MS, Math.max(0, began + LENGTH_MS - Date.now())), undefined, { signal: access.signal });
  }
  if (!broken) {
    const stop = await ask(`${self}/stop`, access, { method: 'POST' });
    if (stop.status !== 200) say(`POST stop answered ${stop.status}`);
  }
  await reach('stop', () => seen('finishing', 'completed'), patience.stop, () => 'the worker ended in good order', () =>
    fail(`the worker did not stop within ${patience.stop / 1000} s`, ['See the log of the worker: media that can not be stored keeps it for a minute.', ...said(heard)]),
  );
  await reach('finish', () => seen('completed'), patience.file, async () => `the file is made, ${((await settled(follower)).recording?.duration ?? 0).toFixed(1)} s`, () =>
    fail(`the file was not finished within ${patience.file / 1000} s`, [
      'No finaliser takes jobs: does one run (edge/finaliser.ts), with the same REDIS_URL, QUEUE_PREFIX and STORAGE_URL as the edge?',
    ]),
  );
  if (!broken) {
    await tryLink('file', async () => {
      const { recording } = await settled(follower);
      if (recording === null) return fail('the finished recording can not be read');
      return fetchFile(options, recording);
    });
  } else await tryLink('file', () => skipped('not tried'));
  if (now.recording !== null || now.events > 0) await tryLink('events', () => eventsFinding(options, follower));
  return now.recording;
}

function frameShareOf(recording: Recording | null): number | null {
  if (recording?.state !== 'completed' || recording.duration === 0) return null;
  return Math.min(1, Math.round((recording.stats.frames / (recording.duration * recording.frameRate)) * 1000) / 1000);
}

const said = (heard: string): string[] => (heard === '' ? [] : [`The recording warns: ${heard}`]);

/** The record as it is at its end: an event may come before it was last read. */
async function settled(follower: Follower): Promise<Follower['now']> {
  await follower.until(({ recording }) => recording !== null && isEnd(recording.state), 3000);
  return follower.now;
}

const errorOf = async (follower: Follower): Promise<RecordingError | null> => (await settled(follower)).recording?.error ?? null;

async function noWorker({ access, base }: TrialOptions, self: string): Promise<Finding> {
  const counts = await Promise.all(
    ['queued', 'recording'].map(async (state) => {
      const { json } = await ask(`${base}/v1/recordings?state=${state}&limit=100`, access).catch(() => ({ json: null }));
      const list = json?.['recordings'];
      return Array.isArray(list) ? list.filter((each: Recording) => !self.endsWith(each.id)).length : null;
    }),
  );
  const [queued, recording] = counts;
  const busy = recording ? [`${recording} others are being recorded${queued ? `, ${queued} wait` : ''}: all SLOTS may be taken. Start more workers, or wait.`] : [];
  return fail('no worker takes jobs: the recording stays queued', [
    ...busy,
    'Does a worker run (worker/main.ts), and does its log say that it is ready? Without a browser that works it is not.',
    'Has it the same REDIS_URL (the same database number too) and QUEUE_PREFIX as the edge?',
  ]);
}

async function fetchFile({ base, access, page }: TrialOptions, recording: Recording): Promise<Finding> {
  const url = new URL(recording.links.file);
  const place = `${url.origin}${url.pathname}`;
  const response = await openFollowing(url, access);
  if (response.statusCode !== 200) {
    response.destroy();
    return fail(`${place}: ${response.statusCode ?? 0}`, ['The link is made of the origin that the edge sees: see the link `origin`.']);
  }
  const finding = await examineFile(await readBody(response, access, MAX_FILE_BYTES, FETCH_MS), recording, page === null);
  if (finding.mark === 'ok' && url.origin !== new URL(base).origin) {
    return warn(finding.detail, [`Its link leads to ${url.origin}, not to where was asked: see the link \`origin\`.`]);
  }
  return finding;
}

function eventsFinding({ server }: TrialOptions, { now }: Follower): Finding {
  const { events, interruptions, heldBack, eventsFailure } = now;
  if (events === 0 && eventsFailure !== null) {
    return warn(`no event came: ${eventsFailure}`, ['Where MEDIA_URL is set they come from there, as live streams and files do; else a proxy refuses them.']);
  }
  if (heldBack || events === 0) {
    return warn(events === 0 ? 'no event came' : 'events came seconds late', ['A proxy holds answers back until they are whole. Events and live viewers need them as they come:', ...proxyAdvice('buffering', server)]);
  }
  if (interruptions > 0) return warn(`${events} events; the stream broke ${interruptions} times and was resumed`, ['A proxy ends answers early: give idle ones a minute at least.']);
  return ok(`${events} came, as they happened`);
}

/** Also after an abort, so by a signal of its own. */
async function remove({ access, tryLink, say }: TrialOptions, self: string): Promise<void> {
  const own: Access = { ...access, signal: AbortSignal.timeout(access.timeout) };
  const removal = async (): Promise<Finding> => {
    const { status } = await ask(self, own, { method: 'DELETE' });
    return [204, 404].includes(status) ? ok('the trial recording is deleted') : warn(`DELETE answered ${status}`, [`Delete it by hand: DELETE ${self}`]);
  };
  if (!access.signal.aborted) await tryLink('clean up', removal);
  else say(await removal().then(({ detail }) => detail, because));
}
