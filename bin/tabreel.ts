/** `tabreel record`, `serve`, `doctor`, `canary` and `key`: the command line, and nothing but its arguments. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { ConfigError } from '../shared/config.ts';
import { TabreelError } from '../shared/errors.ts';

const usage = `tabreel record URL [--duration S] [--out FILE.mp4] [--size WxH] [--fps N] [--json]
    records the page to an MP4, for S seconds or until Ctrl-C; exits with 1 and the reason, at once, where the page can't be had
tabreel serve
    runs the service on this machine, until Ctrl-C; settings come from the environment (docs/configuration.md)
tabreel doctor URL [--record [--page URL] [--keep]] [--key KEY] [--ca FILE] [--json]
    tries every link of the way to a deployment and says what to mend; with --record it sends a real recording through it;
    the API key is better given as TABREEL_KEY, which other users of the machine can't see
tabreel canary URL [--every S] [--port N] [--ca FILE]
    sends a real recording through a deployment every S seconds (300), removes it, and tells how it went at :N/metrics (9090);
    its API key is TABREEL_KEY
tabreel key NAME [--scope record,read] [--concurrent N] [--per-minute N] [--max-duration S]
    makes an API key: prints it, once, and the entry for the file that API_KEYS names; scopes are record, read and admin
`;

/** An argument that can't be used; the message is for whoever typed it. */
class UsageError extends Error {}

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  const plain = error instanceof UsageError || error instanceof ConfigError || error instanceof TabreelError;
  process.stderr.write(`tabreel: ${plain ? (error as Error).message : ((error as Error).stack ?? String(error))}\n`);
  process.exitCode = 1;
}
// connections that are still being closed are of no use to anybody
process.exit();

/** Each command brings what it needs: a browser's driver takes a while to load. */
async function run(args: string[]): Promise<number> {
  const [command, ...rest] = args;
  if (command === undefined || command === 'help' || args.includes('--help') || args.includes('-h')) {
    process.stdout.write(usage);
    return command === undefined ? 1 : 0;
  }
  if (command === 'serve') {
    if (rest.length > 0) throw new UsageError('serve takes no arguments: its settings come from the environment');
    const { serveCommand } = await import('./serve.ts');
    return serveCommand(process);
  }
  if (command === 'record') {
    const parsed = recordArguments(rest);
    const { recordCommand } = await import('./record.ts');
    return recordCommand(parsed, process);
  }
  if (command === 'doctor') {
    const parsed = doctorArguments(rest);
    const { doctorCommand } = await import('./doctor.ts');
    return doctorCommand(parsed, process);
  }
  if (command === 'canary') {
    const parsed = canaryArguments(rest);
    const { canaryCommand } = await import('./canary.ts');
    return canaryCommand(parsed, process);
  }
  if (command === 'key') {
    const parsed = keyArguments(rest);
    const { keyCommand } = await import('./key.ts');
    return keyCommand(parsed, process.stdout);
  }
  throw new UsageError(`there is no command ${JSON.stringify(command)}\n${usage}`);
}

/** @throws {UsageError} for an option that there isn't */
function parse<O extends NonNullable<ParseArgsConfig['options']>>(args: string[], options: O) {
  try {
    return parseArgs({ args, allowPositionals: true, options });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function doctorArguments(args: string[]) {
  const { values, positionals } = parse(args, {
    record: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    page: { type: 'string' },
    key: { type: 'string' },
    ca: { type: 'string' },
  });
  const [url] = positionals;
  if (url === undefined || positionals.length > 1) throw new UsageError(`doctor takes one URL\n${usage}`);
  if (!values.record && (values.keep || values.page !== undefined)) throw new UsageError('--keep and --page are for --record');
  return { url, record: values.record, page: values.page ?? null, keep: values.keep, json: values.json, ca: values.ca ?? null, key: values.key ?? null };
}

function keyArguments(args: string[]) {
  const text = { type: 'string' } as const;
  const { values, positionals } = parse(args, { scope: text, concurrent: text, 'per-minute': text, 'max-duration': text });
  const [name] = positionals;
  if (name === undefined || positionals.length > 1) throw new UsageError(`key takes one NAME\n${usage}`);
  return {
    name,
    scopes: (values.scope ?? 'record,read').split(',').map((scope) => scope.trim()),
    limits: { concurrent: values.concurrent, perMinute: values['per-minute'], maxDuration: values['max-duration'] },
  };
}

function canaryArguments(args: string[]) {
  const { values, positionals } = parse(args, {
    every: { type: 'string', default: '300' },
    port: { type: 'string', default: '9090' },
    ca: { type: 'string' },
  });
  const [url] = positionals;
  if (url === undefined || positionals.length > 1) throw new UsageError(`canary takes one URL\n${usage}`);
  const every = Number(values.every);
  if (!/^\d+$/.test(values.every) || every < 1 || every > 86_400) throw new UsageError(`--every ${values.every}: must be a whole number of seconds from 1 to 86400`);
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65_535) throw new UsageError(`--port ${values.port}: must be a port`);
  return { url, every, port, ca: values.ca ?? null };
}

function recordArguments(args: string[]) {
  const { values, positionals } = parse(args, {
    duration: { type: 'string' },
    out: { type: 'string' },
    size: { type: 'string' },
    fps: { type: 'string' },
    json: { type: 'boolean', default: false },
  });
  const [url] = positionals;
  if (url === undefined || positionals.length > 1) throw new UsageError(`record takes one URL\n${usage}`);
  const size = values.size === undefined ? null : /^(\d+)x(\d+)$/.exec(values.size);
  if (values.size !== undefined && size === null) throw new UsageError(`--size ${values.size}: must be like 1280x720`);
  const number = (name: 'duration' | 'fps'): number | null => {
    const text = values[name];
    if (text === undefined) return null;
    if (!/^\d+(\.\d+)?$/.test(text)) throw new UsageError(`--${name} ${text}: must be a number`);
    return Number(text);
  };
  if (values.out !== undefined && !values.out.endsWith('.mp4')) throw new UsageError(`--out ${values.out}: must end in .mp4`);
  return {
    url,
    duration: number('duration'),
    frameRate: number('fps'),
    width: size === null ? null : Number(size[1]),
    height: size === null ? null : Number(size[2]),
    out: values.out ?? null,
    json: values.json,
  };
}
