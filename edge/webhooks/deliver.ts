/** Tells webhooks what waits for them: one POST at a time for a recording, several recordings at once. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../../shared/log.ts';
import type { Judge } from '../../shared/outbound/policy.ts';
import type { RecordWebhook, RecordingRecord, RecordingStore } from '../../shared/recording-store.ts';
import { messageOf, signedHeaders } from './message.ts';
import { createPost, type Post } from './post.ts';
import type { Head, WebhookEvent, WebhookQueue } from './queue.ts';
import { openTarget } from './target.ts';

/** In milliseconds. */
export type WebhookTimes = {
  /** Between two looks at what is due, at most: what is due is announced, and announcements may be lost. */
  look: number;
  /** How long a try may take, connection to status. */
  timeout: number;
  /** A taken recording is due again after this where its process died; longer than a try. */
  lease: number;
  /** Before the second try; doubles from there. */
  firstRetry: number;
  lastRetry: number;
  /** An event that is older is given up, once it had its tries. */
  keep: number;
};

const defaultTimes: WebhookTimes = { look: 5000, timeout: 10_000, lease: 15_000, firstRetry: 1000, lastRetry: 300_000, keep: 24 * 3600_000 };
/** An event that grew old before it could be tried still gets about a quarter of an hour. */
const MIN_TRIES = 12;
/** POSTs at once. New events go before retries, so that receivers that hang are not all that is attended to. */
const CONCURRENCY = 32;
const REFUSED_MS = 1000;
/** Milliseconds for what is under way when the process leaves; then it is broken off, and sent again by another. */
const DRAIN_MS = 2000;

export type WebhookDeps = {
  queue: WebhookQueue;
  store: RecordingStore;
  log: Log;
  secretsKeys: readonly string[];
  /** Of the addresses that callers named. */
  judge: Judge;
  /** Null where links can't be signed. */
  tokenSecrets: readonly string[] | null;
};

export type WebhookOptions = { times?: Partial<WebhookTimes>; post?: Post };

const nothing = { ids: [] as string[], next: Infinity };

/** How one POST ended, as the log may have it. */
type Outcome = { host: string | null; status: number; error?: never } | { host: string | null; status?: never; error: unknown };

/** Runs until it is disposed of; waits for Redis as long as it takes. */
export function startWebhooks(deps: WebhookDeps, options: WebhookOptions = {}): AsyncDisposable {
  const { queue, store, log } = deps;
  const times = { ...defaultTimes, ...options.times };
  const post = options.post ?? createPost(deps.judge);
  const stopped = new AbortController();
  const cut = new AbortController();
  const running = new Map<string, Promise<void>>();
  const bell = createBell();

  async function run(): Promise<void> {
    while (!stopped.signal.aborted) {
      const free = CONCURRENCY - running.size;
      const { ids, next } = free === 0 ? nothing : await queue.claim(free, times.lease).catch(refused);
      for (const id of ids) begin(id);
      // where there is more than can be told at once, the first that is done rings
      await bell.wait(Math.min(times.look, next));
    }
  }
  /** Redis answers so while it loads its data, for example; a connection that is away is waited for. */
  async function refused(error: unknown): Promise<typeof nothing> {
    if (!stopped.signal.aborted) log.warn('Redis refuses to say which webhooks are due', { error });
    await sleep(REFUSED_MS);
    return { ids: [], next: 0 };
  }
  function begin(id: string): void {
    // what was settled may be due, and taken, before this process has heard that it is settled
    const before = running.get(id) ?? Promise.resolve();
    const delivery = before
      .then(() => deliverHead(id))
      .catch((error: unknown) => {
        if (!stopped.signal.aborted) log.error('a webhook could not be attended to', { recording: id, error });
      })
      .finally(() => {
        if (running.get(id) === delivery) running.delete(id);
        // the recording's next event may be due
        bell.ring();
      });
    running.set(id, delivery);
  }

  async function deliverHead(id: string): Promise<void> {
    const head = await queue.head(id);
    if (head === null) return queue.done(id, null);
    const { event } = head;
    const about = log.with({ recording: id, webhookId: event.id, state: event.state, try: event.tries + 1 });
    const record = await store.lastKnown(id);
    if (!record?.webhook) {
      about.warn('webhook given up: its recording is not known any more');
      return queue.drop(id);
    }
    const outcome = await send(event, record, record.webhook);
    if (outcome.status === undefined) {
      // broken off by ourselves: no failed try
      return cut.signal.aborted ? queue.release(id) : failed(id, head, about.with(outcome));
    }
    if (outcome.status === 410) {
      about.warn('webhook given up: its receiver is gone', outcome);
      return queue.drop(id);
    }
    if (outcome.status < 200 || outcome.status > 299) return failed(id, head, about.with(outcome));
    await queue.done(id, head);
    about.info('webhook delivered', outcome);
  }

  /** Of the URL, what is returned for the log has the host only: path and query may be credentials. */
  async function send(event: WebhookEvent, record: RecordingRecord, { sealed }: RecordWebhook): Promise<Outcome> {
    let host: string | null = null;
    try {
      const { url, secret } = await openTarget(deps.secretsKeys, record.id, sealed);
      host = new URL(url).host;
      const body = JSON.stringify(await messageOf(event, record, deps.tokenSecrets, Date.now()));
      const signal = AbortSignal.any([cut.signal, AbortSignal.timeout(times.timeout)]);
      return { host, status: await post(url, signedHeaders(secret, event.id, body, Date.now()), body, signal) };
    } catch (error) {
      return { host, error };
    }
  }

  async function failed(id: string, head: Head, about: Log): Promise<void> {
    const { event } = head;
    if (event.tries + 1 >= MIN_TRIES && Date.now() - Date.parse(event.at) > times.keep) {
      about.error('webhook event given up');
      return queue.done(id, head);
    }
    // jitter, so that a receiver that comes back is not met by all at once
    const delay = Math.min(times.lastRetry, times.firstRetry * 2 ** event.tries) * (0.5 + Math.random() / 2);
    await queue.retry(id, head, delay);
    about.warn('webhook failed', { retryIn: Math.round(delay) / 1000 });
  }

  const unlisten = queue.listen(bell.ring);
  void run();
  return {
    async [Symbol.asyncDispose]() {
      stopped.abort();
      unlisten();
      bell.ring();
      const ended = Promise.all(running.values());
      await within(DRAIN_MS, ended);
      cut.abort(new Error('the process is leaving'));
      // what can't be said to Redis now is due again when its time is up
      await within(DRAIN_MS, ended);
      await within(DRAIN_MS, queue.announce().catch(() => undefined));
    },
  };
}

/** Wakes one who waits; rung before, it lets him not wait at all. */
function createBell() {
  let rung = false;
  let wake: () => void = () => undefined;
  return {
    ring() {
      rung = true;
      wake();
    },
    async wait(milliseconds: number): Promise<void> {
      if (!rung) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, milliseconds);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
      rung = false;
    },
  };
}

/** Until the promise or the time is over. */
async function within(milliseconds: number, promise: Promise<unknown>): Promise<void> {
  const over = new AbortController();
  await Promise.race([promise, sleep(milliseconds, undefined, { signal: over.signal }).catch(() => undefined)]);
  over.abort();
}
