/** `tabreel serve`: the service on this machine, until a signal. */
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createLog, logLevels } from '../shared/log.ts';
import { describeBrowser, startLocalService } from './local-service.ts';

/** @returns the exit code. */
export async function serveCommand(self: NodeJS.Process): Promise<number> {
  const level = logLevels.find((name) => name === self.env['LOG_LEVEL']) ?? 'warn';
  const log = createLog(level, (line) => self.stderr.write(`${line}\n`));
  const say = (line: string) => self.stdout.write(`${line}\n`);
  const signals = Promise.withResolvers<void>();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) self.on(signal, () => signals.resolve());

  say('Tabreel starts: a browser is looked for and its sound calibrated, which takes some seconds.');
  await using service = await startLocalService({
    environment: { LOG_LEVEL: level, ...self.env },
    root: self.getuid?.() === 0,
    memoryLimit: self.constrainedMemory(),
    storageUrl: pathToFileURL(resolve('recordings')).href,
    patient: true,
    log,
    say,
  });
  say(describeBrowser(service.worker));
  const keyed = (self.env['API_KEYS'] ?? '') !== '';
  say(`
API        ${service.url}/v1/recordings
Docs       ${service.url}/docs
Dashboard  ${service.url}/dashboard

curl -X POST ${service.url}/v1/recordings ${keyed ? "-H 'authorization: Bearer <key>' " : ''}-H 'content-type: application/json' -d '{"url":"https://example.com","maxDuration":10}'

Ctrl-C ends it.`);
  await signals.promise;
  say('Ending: what is being recorded is finished first.');
  return 0;
}
