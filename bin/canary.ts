/** `tabreel canary URL`: a real recording through the public address now and then, as a caller would have it, and how it went as metrics. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLog, logLevels, type Log } from '../shared/log.ts';
import { metricText } from '../shared/metrics.ts';
import { examine, type DoctorReport } from './doctor.ts';
import type { Link } from './doctor/link.ts';

export type CanaryArguments = {
  url: string;
  /** Seconds from the beginning of one trial to that of the next, which waits for it where it takes longer. */
  every: number;
  /** Of /metrics and /healthz, on all addresses; 0 for any free one. */
  port: number;
  /** As doctor's. */
  ca: string | null;
  key: string | null;
};

/**
 * The API key comes from TABREEL_KEY, as a process's arguments are seen by all.
 * @returns the exit code: 0 once it was told to leave. The recording of that moment is removed first.
 */
export async function canaryCommand(args: Omit<CanaryArguments, 'key'>, self: NodeJS.Process): Promise<number> {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) self.once(signal, () => stop.abort(new Error('interrupted')));
  const level = logLevels.find((name) => name === self.env['LOG_LEVEL']) ?? 'info';
  const log = createLog(level, (line) => self.stdout.write(`${line}\n`));
  await using canary = await startCanary({ ...args, key: self.env['TABREEL_KEY'] || null }, log, stop.signal);
  await canary.over;
  return 0;
}

export type Canary = AsyncDisposable & {
  port: number;
  /** Resolves once the signal was aborted and what was recorded just then is removed; rejects where the address can't be used. */
  over: Promise<void>;
};

/** The first trial begins at once; there is never a second one beside it. @throws where the port is taken */
export async function startCanary(args: CanaryArguments, log: Log, signal: AbortSignal): Promise<Canary> {
  const results = createResults();
  const server = createServer((request, response) => {
    const path = request.url?.split('?')[0];
    const answer = (status: number, body: string, type: string) => response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body);
    if (path === '/metrics') answer(200, results.text(), 'text/plain; version=0.0.4; charset=utf-8');
    else if (path === '/healthz') answer(200, '{"status":"ok"}', 'application/json');
    else answer(404, '{"status":"there is nothing here"}', 'application/json');
  });
  server.listen(args.port);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  log.info('canary runs', { url: args.url, every: args.every, port });

  const trial = async () => {
    results.begins();
    try {
      const report = await examine(
        { url: args.url, record: true, page: null, keep: false, ca: args.ca, key: args.key },
        { signal, tell: (link) => log.debug('canary link', { link: link.name, mark: link.mark, detail: link.detail, milliseconds: link.milliseconds }), say: () => undefined },
      );
      results.ended(report);
      const broken = report.links.filter(({ mark }) => mark === 'fail');
      const recording = report.recording?.id ?? null;
      if (report.ok) log.info('canary recorded', { recording, frameShare: report.recording?.frameShare ?? null, seconds: secondsOf(report.links) });
      else log.error('canary failed', { recording, code: report.recording?.error?.code ?? null, broken: broken.map(({ name, detail, advice }) => ({ link: name, detail, advice })) });
    } finally {
      results.rests();
    }
  };
  const run = async () => {
    while (!signal.aborted) {
      const next = Date.now() + args.every * 1000;
      try {
        await trial();
      } catch (error) {
        if (signal.aborted) break;
        throw error;
      }
      await sleep(Math.max(0, next - Date.now()), undefined, { signal }).catch(() => undefined);
    }
    log.info('canary left');
  };
  const over = run();
  over.catch(() => undefined);
  return {
    port,
    over,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** Seconds of each link. */
const secondsOf = (links: readonly Link[]): Record<string, number> =>
  Object.fromEntries(links.filter(({ mark }) => mark !== 'skipped').map(({ name, milliseconds }) => [name, milliseconds / 1000]));

function createResults() {
  const runs = { ok: 0, failed: 0 };
  let running = false;
  let last: DoctorReport | null = null;
  let succeededAt: number | null = null;
  return {
    begins: () => void (running = true),
    rests: () => void (running = false),
    ended(report: DoctorReport): void {
      last = report;
      runs[report.ok ? 'ok' : 'failed'] += 1;
      if (report.ok) succeededAt = Date.now() / 1000;
    },
    /** What is not known before the first trial is over is missing, rather than 0. */
    text(): string {
      const seconds = Object.entries(secondsOf(last?.links ?? [])).map(([step, value]) => ({ labels: { step }, value }));
      const tried = (last?.links ?? []).filter(({ mark }) => mark !== 'skipped');
      const share = last?.recording?.frameShare ?? null;
      return [
        metricText('tabreel_canary_up', 'gauge', '1 where the last trial recording went through all links of the way and its file is good.', last === null ? [] : [{ value: last.ok ? 1 : 0 }]),
        metricText('tabreel_canary_running', 'gauge', '1 while a trial goes on.', [{ value: running ? 1 : 0 }]),
        metricText('tabreel_canary_last_success_timestamp_seconds', 'gauge', 'When the last good trial was over.', succeededAt === null ? [] : [{ value: succeededAt }]),
        metricText('tabreel_canary_runs_total', 'counter', 'Trials that are over.', Object.entries(runs).map(([outcome, value]) => ({ labels: { outcome }, value }))),
        metricText('tabreel_canary_step_ok', 'gauge', '1 for each link of the last trial that holds, 0 for what broke; those that were not tried are missing.', tried.map(({ name, mark }) => ({ labels: { step: name }, value: mark === 'fail' ? 0 : 1 }))),
        metricText('tabreel_canary_seconds', 'gauge', 'How long each link of the last trial took.', seconds),
        metricText('tabreel_canary_frame_share', 'gauge', 'Share of the pictures that the last trial recording should have had.', share === null ? [] : [{ value: share }]),
      ].join('');
    },
  };
}
