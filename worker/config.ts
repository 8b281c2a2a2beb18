/** The settings of a worker. Names and defaults: docs/configuration.md. */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { z } from 'zod';
import { bytes, commonSettings, ConfigError, flag, readConfig, secrets, wholeNumber, type Environment } from '../shared/config.ts';
import type { LogLevel } from '../shared/log.ts';
import { captureEngines, type CaptureEngineName } from '../shared/recording.ts';
import { splitPath } from './browser/find.ts';
import type { SpoolPlace } from './sink/backlog.ts';

/** A pod that is told to leave lets its recordings go on for so long, in seconds. */
const DRAIN_TIMEOUT_DEFAULT = 14_400;

/** MiB on disk that one recording may take for media that waits: an hour and a half at 3 Mb/s. */
const SPOOL_LIMIT_DEFAULT = 2048;

/** What one recording's browser may take, in bytes: busy pages have some hundred megabytes, so what has more leaks. */
const BROWSER_MEMORY_LIMIT_DEFAULT = 4 * 2 ** 30;

const engines = ['auto', ...captureEngines] as const;

const workerSettings = z.object({
  ...commonSettings,
  SLOTS: wholeNumber(1, 256).optional(),
  CHROMIUM_PATH: z.string().optional(),
  CHROMIUM_SANDBOX: flag.default(true),
  CAPTURE_ENGINE: z.enum(engines, { error: `must be one of ${engines.join(', ')}` }).default('auto'),
  MEDIA_CA: z.string().optional(),
  ALLOW_INSECURE_WS: flag.default(false),
  SPOOL_DIR: z.string().optional(),
  SPOOL_LIMIT: wholeNumber(0, 1_048_576).default(SPOOL_LIMIT_DEFAULT),
  SECRETS_KEY: secrets.optional(),
  BROWSER_MEMORY_LIMIT: bytes.default(BROWSER_MEMORY_LIMIT_DEFAULT),
  MAX_SIZE: bytes.optional(),
  DRAIN_TIMEOUT: wholeNumber(0, 604_800).default(DRAIN_TIMEOUT_DEFAULT),
  ANTMEDIA_URL: z
    .url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' })
    .refine((url) => !/[?#@]/.test(url), { error: 'must have no user name, query or fragment' })
    .optional(),
  HEALTH_PORT: wholeNumber(0, 65_535).optional(),
});

export type WorkerConfig = {
  redisUrl: string;
  queuePrefix: string;
  logLevel: LogLevel;
  /** Recordings at once. */
  slots: number;
  /** An executable, by path or name; null to look for one along `path`. */
  chromiumPath: string | null;
  path: readonly string[];
  sandbox: boolean;
  engine: CaptureEngineName | 'auto';
  /** PEM of an authority that is trusted for media URLs beside the system's. */
  mediaCa: string | null;
  /** A `wss://` media URL may be dialled without TLS where nobody speaks it. */
  allowInsecureWs: boolean;
  /** Where media waits on disk that can't be delivered just now; null for nowhere. */
  spool: SpoolPlace | null;
  /** Opens what callers gave in confidence; null where recordings have none. */
  secretsKeys: readonly string[] | null;
  /** Bytes that one recording's browser may have, and that the media of one recording may be; null for no limit. */
  browserMemoryLimit: number | null;
  maxSize: number | null;
  /** Seconds for which running recordings go on once the worker is to leave; then they are stopped. */
  drainTimeout: number;
  /** Of an Ant Media Server's REST API, without a slash at the end, in place of each push's own host; null for that. */
  antMediaUrl: string | null;
  /** Of /healthz, /readyz and /metrics, 0 for any free one; null for none. */
  healthPort: number | null;
  /** All that the processes of recordings see of the environment. */
  recorderEnvironment: Readonly<Record<string, string>>;
};

/** What a recording's process needs of the machine. Nothing else goes there: it has no business with settings and keys. */
const passedOn = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TZ', 'FONTCONFIG_FILE', 'FONTCONFIG_PATH', 'NODE_COMPILE_CACHE'];

/**
 * @param cores of this machine: two for each recording, unless SLOTS says otherwise
 * @throws {ConfigError} one line for each wrong variable
 */
export async function readWorkerConfig(environment: Environment, cores: number): Promise<WorkerConfig> {
  const settings = readConfig(workerSettings, environment, ['SECRETS_KEY']);
  return {
    redisUrl: settings.REDIS_URL,
    queuePrefix: settings.QUEUE_PREFIX,
    logLevel: settings.LOG_LEVEL,
    slots: settings.SLOTS ?? Math.max(1, Math.floor(cores / 2)),
    chromiumPath: settings.CHROMIUM_PATH ?? null,
    path: splitPath(environment['PATH'] ?? ''),
    sandbox: settings.CHROMIUM_SANDBOX,
    engine: settings.CAPTURE_ENGINE,
    mediaCa: settings.MEDIA_CA === undefined ? null : await readAuthority(settings.MEDIA_CA),
    allowInsecureWs: settings.ALLOW_INSECURE_WS,
    // not in the recording's own temporary directory, which goes with its process
    spool: settings.SPOOL_LIMIT === 0 ? null : { directory: settings.SPOOL_DIR ?? tmpdir(), bytes: settings.SPOOL_LIMIT * 1024 * 1024 },
    secretsKeys: settings.SECRETS_KEY ?? null,
    browserMemoryLimit: settings.BROWSER_MEMORY_LIMIT || null,
    maxSize: settings.MAX_SIZE || null,
    drainTimeout: settings.DRAIN_TIMEOUT,
    antMediaUrl: settings.ANTMEDIA_URL?.replace(/\/+$/, '') ?? null,
    healthPort: settings.HEALTH_PORT ?? null,
    recorderEnvironment: Object.fromEntries(
      passedOn.flatMap((name) => (environment[name] === undefined ? [] : [[name, environment[name]]])),
    ),
  };
}

async function readAuthority(path: string): Promise<string> {
  try {
    const pem = await readFile(path, 'utf8');
    const certificates = pem.match(/-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[\s\S]*?-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g);
    if (certificates === null) throw new TypeError(`it has ${pem.includes('PRIVATE KEY') ? 'a key' : 'no BEGIN CERTIFICATE'} and no certificate`);
    // a bundle is read by TLS up to its first bad one, and the rest would be missed in silence
    for (const [i, certificate] of certificates.entries()) readCertificate(certificate, i + 1);
    return pem;
  } catch (error) {
    throw new ConfigError(`MEDIA_CA=${JSON.stringify(path)}: must be a file with certificates in PEM (${(error as Error).message})`);
  }
}

function readCertificate(pem: string, number: number): void {
  try {
    new X509Certificate(pem);
  } catch (error) {
    throw new TypeError(`certificate ${number} in it is not valid: ${(error as Error).message}`, { cause: error });
  }
}
