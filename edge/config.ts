/** The settings of the edge and of the finaliser. Names and defaults: docs/configuration.md. */
import { z } from 'zod';
import { isLoopbackHost } from '../shared/address.ts';
import { bytes, ConfigError, commonSettings, flag, list, readConfig, secrets, wholeNumber, type Environment } from '../shared/config.ts';
import { outboundAllow } from '../shared/outbound/policy.ts';
import type { RedisAddress } from '../shared/queue.ts';
import { MAX_DURATION_DEFAULT } from '../shared/recording.ts';
import { parseKeys, type KeyRing } from './access/keys.ts';
import { parseAllowedHosts, type OriginSettings } from './origin/policy.ts';
import { shown } from './origin/refusal.ts';
import { parseTrust } from './origin/trust.ts';
import type { StorageConfig } from './storage/open.ts';
import { readS3Settings, s3Variables, secretS3Variables } from './storage/s3-settings.ts';

const storageUrl = z.url({ protocol: /^(file|s3)$/, error: 'must be a file:/// URL, or s3://bucket/prefix' });

const unitSeconds = { s: 1, m: 60, h: 3600, d: 86_400 } as const;
/** Seconds, null for never. */
const retention = z
  .string()
  .regex(/^(never|[1-9]\d{0,9}[smhd]?)$/, { error: 'must be never, or a number of seconds, or with a unit: 90m, 12h, 30d' })
  .transform((text) => (text === 'never' ? null : Number.parseInt(text, 10) * unitSeconds[(/[smhd]$/.exec(text)?.[0] ?? 's') as keyof typeof unitSeconds]));

/** What the finaliser reads; the edge reads it too. */
const finaliserSettings = {
  ...commonSettings,
  STORAGE_URL: storageUrl.optional(),
  TOKEN_SECRET: secrets.optional(),
  SECRETS_KEY: secrets.optional(),
  RETENTION: retention.default(null),
  MIN_FREE_SPACE: bytes.optional(),
  HEALTH_PORT: wholeNumber(0, 65_535).optional(),
  OUTBOUND_ALLOW: outboundAllow.optional(),
};
const secretSettings = ['TOKEN_SECRET', 'SECRETS_KEY'];

const edgeSettings = z.object({
  ...finaliserSettings,
  HOST: z.string().optional(),
  PORT: wholeNumber(0, 65_535).default(8080),
  PUBLIC_URL: z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' }).optional(),
  MEDIA_URL: z.url({ protocol: /^wss?$/, error: 'must be a ws:// or wss:// URL' }).optional(),
  TRUSTED_PROXIES: list.default(['loopback', 'private']),
  ALLOWED_HOSTS: list.refine((items) => items.length > 0, { error: 'must be one or more of host, host:port, *.domain, comma separated, or *' }).optional(),
  WS_SCHEME: z.enum(['auto', 'wss', 'ws'], { error: 'must be auto, wss or ws' }).default('auto'),
  ALLOW_INSECURE_WS: flag.default(false),
  MAX_DURATION: wholeNumber(1, 604_800).default(MAX_DURATION_DEFAULT),
  WEBRTC: z.enum(['proxied', 'direct'], { error: 'must be proxied or direct' }).default('proxied'),
  API_KEYS: z.string().optional(),
  ANTMEDIA_OPEN: flag.default(false),
  METRICS_OPEN: flag.default(false),
  CORS_ORIGINS: list
    .refine((items) => items.every((item) => item === '*' || (/^https?:/.test(item) && URL.canParse(item) && new URL(item).origin === item)), {
      error: 'must be origins, https://host or https://host:port, comma separated, or *',
    })
    .optional(),
});

export type EdgeConfig = OriginSettings & StorageConfig & RedisAddress & {
  queuePrefix: string;
  /** A loopback address where there are no API keys: then nothing else is listened on. */
  host: string;
  /** 0 for any free one. */
  port: number;
  /** Signs credentials and links, the first; null for a random one of the edge's, and no links from the finaliser. */
  tokenSecrets: readonly string[] | null;
  /** Seals what callers give in confidence; null refuses it, and tells no webhooks. */
  secretsKeys: readonly string[] | null;
  /** Seconds. */
  maxDuration: number;
  /** Seconds after its end for which a recording is kept; null for ever. */
  retention?: number | null;
  webrtc: 'proxied' | 'direct';
  /** A file, which may change, or the keys themselves; none: only this machine is served. */
  apiKeys?: ApiKeysSetting | null;
  /** Whether the Media Push plugin's paths need no key. */
  antmediaOpen?: boolean;
  /** Whether /metrics needs no key. */
  metricsOpen?: boolean;
  /** Origins of pages that may read answers; `*` for any. */
  corsOrigins?: readonly string[];
  /** Of a listener for probes, without keys; 0 for any free one. */
  healthPort?: number | null;
  /** What webhooks may reach beside what is public: entries of OUTBOUND_ALLOW; none by default. */
  outboundAllow?: readonly string[];
};
export type ApiKeysSetting = { file: string } | { ring: KeyRing };

export type FinaliserConfig = StorageConfig & RedisAddress & Pick<EdgeConfig, 'queuePrefix' | 'tokenSecrets' | 'secretsKeys' | 'retention' | 'healthPort' | 'outboundAllow'>;

const withoutSlash = (url: string | undefined): string | null => url?.replace(/\/+$/, '') ?? null;

/**
 * @param defaultStorageUrl where files go if STORAGE_URL is not set
 * @throws {ConfigError} one line for each wrong variable
 */
export function readEdgeConfig(environment: Environment, defaultStorageUrl: string): EdgeConfig {
  const settings = readConfig(edgeSettings, environment, secretSettings);
  const apiKeys = readApiKeys(settings.API_KEYS);
  const host = settings.HOST ?? (apiKeys === null ? '127.0.0.1' : '0.0.0.0');
  if (!isLoopbackHost(host)) {
    if (apiKeys === null) {
      throw new ConfigError(
        `HOST=${JSON.stringify(host)}: must be a loopback address (127.0.0.1, ::1, localhost) while API_KEYS is not set: whoever reaches the API could use it`,
      );
    }
    if (settings.TOKEN_SECRET === undefined) {
      throw new ConfigError(`TOKEN_SECRET is not set: it is needed where HOST is no loopback address (${host}): links and workers' credentials are signed with it (openssl rand -hex 32)`);
    }
  }
  for (const name of ['PUBLIC_URL', 'MEDIA_URL'] as const) {
    const url = settings[name] === undefined ? null : new URL(settings[name]);
    if (url && (url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '')) {
      throw new ConfigError(`${name}=${JSON.stringify(shown(settings[name] ?? null))}: must be scheme, host, port and path only`);
    }
  }
  const media = settings.MEDIA_URL === undefined ? null : new URL(settings.MEDIA_URL);
  if (media?.protocol === 'ws:' && !settings.ALLOW_INSECURE_WS && !isLoopbackHost(media.hostname)) {
    throw new ConfigError(
      `MEDIA_URL=${JSON.stringify(settings.MEDIA_URL)}: must be a wss:// URL, since media and its credential would go unencrypted; ` +
        'where that is meant, set ALLOW_INSECURE_WS=true',
    );
  }
  const allowedHosts = settings.ALLOWED_HOSTS ?? null;
  parseAllowedHosts(allowedHosts);
  return {
    redisUrl: settings.REDIS_URL,
    queuePrefix: settings.QUEUE_PREFIX,
    host,
    port: settings.PORT,
    publicUrl: withoutSlash(settings.PUBLIC_URL),
    mediaUrl: withoutSlash(settings.MEDIA_URL),
    trust: parseTrust(settings.TRUSTED_PROXIES),
    allowedHosts,
    wsScheme: settings.WS_SCHEME,
    allowInsecureWs: settings.ALLOW_INSECURE_WS,
    tokenSecrets: settings.TOKEN_SECRET ?? null,
    secretsKeys: settings.SECRETS_KEY ?? null,
    ...readStorageConfig(environment, settings.STORAGE_URL ?? defaultStorageUrl, settings.MIN_FREE_SPACE),
    maxDuration: settings.MAX_DURATION,
    retention: settings.RETENTION,
    webrtc: settings.WEBRTC,
    apiKeys,
    antmediaOpen: settings.ANTMEDIA_OPEN,
    metricsOpen: settings.METRICS_OPEN,
    corsOrigins: settings.CORS_ORIGINS ?? [],
    outboundAllow: settings.OUTBOUND_ALLOW ?? [],
    healthPort: settings.HEALTH_PORT ?? null,
  };
}

/** @throws {ConfigError} one line for each wrong variable */
export function readFinaliserConfig(environment: Environment, defaultStorageUrl: string): FinaliserConfig {
  const settings = readConfig(z.object(finaliserSettings), environment, secretSettings);
  return {
    redisUrl: settings.REDIS_URL,
    queuePrefix: settings.QUEUE_PREFIX,
    ...readStorageConfig(environment, settings.STORAGE_URL ?? defaultStorageUrl, settings.MIN_FREE_SPACE),
    tokenSecrets: settings.TOKEN_SECRET ?? null,
    secretsKeys: settings.SECRETS_KEY ?? null,
    retention: settings.RETENTION,
    outboundAllow: settings.OUTBOUND_ALLOW ?? [],
    healthPort: settings.HEALTH_PORT ?? null,
  };
}

/** JSON where it begins like it: some runtimes have no files. */
const readApiKeys = (value: string | undefined): ApiKeysSetting | null =>
  value === undefined ? null : /^\s*\{/.test(value) ? { ring: parseKeys(value, 'API_KEYS') } : { file: value };

/** The variables of an object store are read only where there is one: others may use them for other things. */
function readStorageConfig(environment: Environment, storageUrl: string, minFreeBytes: number | undefined): StorageConfig {
  return {
    storageUrl,
    ...(minFreeBytes === undefined ? {} : { minFreeBytes }),
    ...(storageUrl.startsWith('s3:') ? { s3: readS3Settings(storageUrl, readConfig(z.object(s3Variables), environment, secretS3Variables)) } : {}),
  };
}
