/** Server-sent events of one recording: `state`, `stats`, `log` and `push`, each with the id to resume behind. */
import type { Context } from 'hono';
import { streamSSE } from 'hono/streaming';
import { isEnd } from '../../shared/recording.ts';
import type { AppDeps, AppEnv, Media } from '../app.ts';
import { visibleRecord } from './files.ts';

const HEARTBEAT_MS = 15_000;
/** Where Redis went away; what was missed comes once it is back. */
const RETRY_MS = 1000;

export const recordingEvents = (deps: AppDeps, { watch }: Media) => async (c: Context<AppEnv>): Promise<Response> => {
  const { store, closing } = deps;
  const { id } = await visibleRecord(deps, c);
  const after = c.req.header('last-event-id') ?? '';
  let cursor = /^\d{1,20}-\d{1,20}$/.test(after) ? after : '0';
  const first = await store.events(id, cursor);
  const last = await store.get(id);
  // 204 is how an EventSource is told not to come again
  if (cursor !== '0' && first.length === 0 && (last === null || isEnd(last.state))) return c.body(null, 204);
  c.header('Cache-Control', 'no-store');
  // a proxy that collects the answer would hold events back
  c.header('X-Accel-Buffering', 'no');
  if (c.req.method === 'HEAD') return c.body(null, 200, { 'Content-Type': 'text/event-stream' });

  return streamSSE(c, async (stream) => {
    let wake: () => void = () => undefined;
    let woken = false;
    const unwatch = watch.recording(id, () => {
      woken = true;
      wake();
    });
    const nextWake = (ms: number) =>
      new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
        if (woken) wake();
      });
    const leave = () => wake();
    closing.addEventListener('abort', leave);
    stream.onAbort(leave);
    const gone = () => closing.aborted || stream.aborted || stream.closed;
    try {
      await stream.write('retry: 1000\n\n');
      let lastWrite = Date.now();
      while (!gone()) {
        woken = false;
        const step = await forward().catch(() => 'away' as const);
        if (step === 'over') return;
        if (step === 'sent') lastWrite = Date.now();
        if (gone()) return;
        const silence = lastWrite + HEARTBEAT_MS - Date.now();
        await nextWake(Math.max(0, step === 'away' ? Math.min(RETRY_MS, silence) : silence));
        if (!gone() && Date.now() - lastWrite >= HEARTBEAT_MS) {
          await stream.write(': still here\n\n');
          lastWrite = Date.now();
        }
      }
    } finally {
      closing.removeEventListener('abort', leave);
      unwatch();
    }

    /** Sends what is new. */
    async function forward(): Promise<'sent' | 'nothing' | 'over'> {
      // read before the events: an end seen here has its event among them
      const record = await store.get(id);
      const events = await store.events(id, cursor);
      for (const event of events) {
        await stream.writeSSE({ id: event.id, event: event.type, data: event.data });
        cursor = event.id;
      }
      if (record === null || record.desired === 'deleted' || isEnd(record.state)) return 'over';
      return events.length > 0 ? 'sent' : 'nothing';
    }
  });
};
