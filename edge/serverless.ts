/**
 * The edge where the runtime gives it no media socket and no disk: the whole API, on Redis alone. What is lacking there
 * answers as unsupported.ts says, or is sent to MEDIA_URL.
 */
import type { Hono } from 'hono';
import { ConfigError, type Environment } from '../shared/config.ts';
import type { Log } from '../shared/log.ts';
import type { KeySource } from './access/keys.ts';
import type { RedisAddress } from '../shared/queue.ts';
import { createApp, type AppConfig, type AppDeps, type AppEnv } from './app.ts';
import { readEdgeConfig, type EdgeConfig } from './config.ts';
import { openConnections } from './connections.ts';
import { warnOfAnyHost } from './origin/policy.ts';
import { redisTroubleLog } from '../shared/redis-trouble.ts';
import { unsupported } from './unsupported.ts';

export type ServerlessConfig = AppConfig & RedisAddress & Pick<EdgeConfig, 'queuePrefix' | 'host' | 'port' | 'apiKeys'>;

/** @throws {ConfigError} one line for each wrong variable; TOKEN_SECRET is not optional here */
export function readServerlessConfig(environment: Environment): ServerlessConfig {
  const { tokenSecrets, ...config } = readEdgeConfig(environment, '');
  if (tokenSecrets === null) {
    throw new ConfigError('TOKEN_SECRET is not set: what one instance signs has to be good at every other, so it must be given (openssl rand -hex 32)');
  }
  return { ...config, tokenSecrets };
}

/** Keys of a runtime without files. @throws {ConfigError} where a file is named */
export function inlineKeys(setting: EdgeConfig['apiKeys'], log: Log): KeySource | null {
  if (setting === undefined || setting === null) {
    log.warn('API_KEYS is not set: whoever asks is refused, since only one and the same machine is served without keys');
    return null;
  }
  if ('file' in setting) throw new ConfigError(`API_KEYS=${JSON.stringify(setting.file)}: must be the JSON itself here: this runtime has no files`);
  const { ring } = setting;
  return { current: () => ring };
}

export type Serverless = {
  /** One for each request where sockets end with it, else one for the process. */
  open(request: Pick<AppDeps, 'factsOf' | 'metrics'>): { app: Hono<AppEnv>; close(): Promise<void> };
};

export function createServerless(config: ServerlessConfig, keys: KeySource | null, log: Log): Serverless {
  warnOfAnyHost(config, log);
  if (config.mediaUrl === null) log.warn('recordings are refused', { reason: unsupported('create').message });
  const trouble = redisTroubleLog(log);
  const closing = new AbortController().signal;
  return {
    open(request) {
      const { close, ...connections } = openConnections(config, trouble);
      const app = createApp({ ...connections, ...request, config, log, keys, media: null, dashboard: null, networkIdentity: null, closing, now: Date.now });
      return { app, close };
    },
  };
}
