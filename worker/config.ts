/** The settings of a worker. Names and defaults: docs/configuration.md. */
import { tmpdir } from 'node:os';
import { z } from 'zod';
import { readAuthorities } from '../shared/authorities.ts';
import { bytes, commonSettings, flag, readConfig, secrets, wholeNumber, type Environment } from '../shared/config.ts';
import type { LogLevel } from '../shared/log.ts';
import { outboundAllow, redisPort, type OwnPort } from '../shared/outbound/policy.ts';
import type { RedisAddress } from '../shared/queue.ts';
import { captureEngines, type CaptureEngineName } from '../shared/recording.ts';
import { readRedisTls } from '../shared/redis-tls.ts';
import { splitPath } from './browser/find.ts';
import { capacityOf, SHM_PER_SLOT, type Capacity, type Machine } from './capacity.ts';
import { requireSharedMemory } from './shm.ts';
import type { SpoolPlace } from './sink/backlog.ts';

/** A pod that is told to leave lets its recordings go on for so long, in seconds. */
const DRAIN_TIMEOUT_DEFAULT = 14_400;

/** MiB on disk that one recording may take for media that waits: an hour and a half at 3 Mb/s. */
const SPOOL_LIMIT_DEFAULT = 2048;

/** What one recording's browser may take, in bytes: busy pages have some hundred megabytes, so what has more leaks. */
const BROWSER_MEMORY_LIMIT_DEFAULT = 4 * 2 ** 30;

const engines = ['auto', ...captureEngines] as const;
const shmModes = ['require', 'disk'] as const;

const workerSettings = z.object({
  ...commonSettings,
  SLOTS: wholeNumber(1, 256).optional(),
  CHROMIUM_PATH: z.string().optional(),
  CHROMIUM_SANDBOX: flag.default(true),
  SHM: z.enum(shmModes, { error: `must be one of ${shmModes.join(', ')}` }).default('require'),
  CAPTURE_ENGINE: z.enum(engines, { error: `must be one of ${engines.join(', ')}` }).default('auto'),
  MEDIA_CA: z.string().optional(),
  ALLOW_INSECURE_WS: flag.default(false),
  OUTBOUND_ALLOW: outboundAllow.optional(),
  SPOOL_DIR: z.string().optional(),
  SPOOL_LIMIT: wholeNumber(0, 1_048_576).default(SPOOL_LIMIT_DEFAULT),
  SECRETS_KEY: secrets.optional(),
  BROWSER_MEMORY_LIMIT: bytes.default(BROWSER_MEMORY_LIMIT_DEFAULT),
  MAX_SIZE: bytes.optional(),
  DRAIN_TIMEOUT: wholeNumber(0, 604_800).default(DRAIN_TIMEOUT_DEFAULT),
  LEAVE_AFTER: wholeNumber(1, 1_000_000).optional(),
  ANTMEDIA_URL: z
    .url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' })
    .refine((url) => !/[?#@]/.test(url), { error: 'must have no user name, query or fragment' })
    .optional(),
  HEALTH_PORT: wholeNumber(0, 65_535).optional(),
  SELF_TEST: flag.default(true),
  ADMISSION: z.enum(['measured', 'slots'], { error: 'must be measured or slots' }).default('measured'),
});

export type WorkerConfig = RedisAddress & {
  queuePrefix: string;
  logLevel: LogLevel;
  /** Recordings at once, and what would not bear one more. */
  slots: number;
  slotsBound: Capacity['bound'] | 'SLOTS';
  /** An executable, by path or name; null to look for one along `path`. */
  chromiumPath: string | null;
  path: readonly string[];
  sandbox: boolean;
  /** Browsers exchange pictures in /dev/shm, not in the temporary directory. */
  devShm: boolean;
  engine: CaptureEngineName | 'auto';
  /** PEM of an authority that is trusted for media URLs beside the system's. */
  mediaCa: string | null;
  /** A `wss://` media URL may be dialled without TLS where nobody speaks it. */
  allowInsecureWs: boolean;
  /** What pages may reach beside what is public: entries of OUTBOUND_ALLOW; and what they never may. */
  outboundAllow: readonly string[];
  ownPorts: readonly OwnPort[];
  /** Where media waits on disk that can't be delivered just now; null for nowhere. */
  spool: SpoolPlace | null;
  /** Opens what callers gave in confidence; null where recordings have none. */
  secretsKeys: readonly string[] | null;
  /** Bytes that one recording's browser may have, and that the media of one recording may be; null for no limit. */
  browserMemoryLimit: number | null;
  maxSize: number | null;
  /** Seconds for which running recordings go on once the worker is to leave; then they are stopped. */
  drainTimeout: number;
  /** Recordings after which it leaves by itself; null for never. */
  leaveAfter: number | null;
  /** Of an Ant Media Server's REST API, without a slash at the end, in place of each push's own host; null for that. */
  antMediaUrl: string | null;
  /** Of /healthz, /readyz and /metrics, 0 for any free one; null for none. */
  healthPort: number | null;
  /** Whether another recording is taken by what the machine has left, or up to `slots` whatever it has. */
  admission: 'measured' | 'slots';
  /** A page of ours is recorded before the first job is taken. */
  selfTest: boolean;
  /** All that the processes of recordings see of the environment. */
  recorderEnvironment: Readonly<Record<string, string>>;
};

/** What a recording's process needs of the machine. Nothing else goes there: it has no business with settings and keys. */
const passedOn = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TZ', 'FONTCONFIG_FILE', 'FONTCONFIG_PATH', 'NODE_COMPILE_CACHE'];

/**
 * @param machine what there is for recordings, unless SLOTS says otherwise
 * @throws {ConfigError} one line for each wrong variable; or what mends it where shared memory is too small
 */
export async function readWorkerConfig(environment: Environment, machine: Machine): Promise<WorkerConfig> {
  const settings = readConfig(workerSettings, environment, ['SECRETS_KEY']);
  const shm = settings.SHM === 'disk' ? null : machine.shm;
  const capacity = capacityOf({ ...machine, shm });
  const slots = settings.SLOTS ?? capacity.slots;
  if (shm !== null) requireSharedMemory(shm, slots, SHM_PER_SLOT);
  return {
    redisUrl: settings.REDIS_URL,
    ...(await readRedisTls(environment)),
    queuePrefix: settings.QUEUE_PREFIX,
    logLevel: settings.LOG_LEVEL,
    slots,
    slotsBound: settings.SLOTS === undefined ? capacity.bound : 'SLOTS',
    chromiumPath: settings.CHROMIUM_PATH ?? null,
    path: splitPath(environment['PATH'] ?? ''),
    sandbox: settings.CHROMIUM_SANDBOX,
    devShm: settings.SHM === 'require',
    engine: settings.CAPTURE_ENGINE,
    mediaCa: settings.MEDIA_CA === undefined ? null : await readAuthorities('MEDIA_CA', settings.MEDIA_CA),
    allowInsecureWs: settings.ALLOW_INSECURE_WS,
    outboundAllow: settings.OUTBOUND_ALLOW ?? [],
    ownPorts: [redisPort(settings.REDIS_URL)],
    // not in the recording's own temporary directory, which goes with its process
    spool: settings.SPOOL_LIMIT === 0 ? null : { directory: settings.SPOOL_DIR ?? tmpdir(), bytes: settings.SPOOL_LIMIT * 1024 * 1024 },
    secretsKeys: settings.SECRETS_KEY ?? null,
    browserMemoryLimit: settings.BROWSER_MEMORY_LIMIT || null,
    maxSize: settings.MAX_SIZE || null,
    drainTimeout: settings.DRAIN_TIMEOUT,
    leaveAfter: settings.LEAVE_AFTER ?? null,
    antMediaUrl: settings.ANTMEDIA_URL?.replace(/\/+$/, '') ?? null,
    healthPort: settings.HEALTH_PORT ?? null,
    admission: settings.ADMISSION,
    selfTest: settings.SELF_TEST,
    recorderEnvironment: Object.fromEntries(
      passedOn.flatMap((name) => (environment[name] === undefined ? [] : [[name, environment[name]]])),
    ),
  };
}
