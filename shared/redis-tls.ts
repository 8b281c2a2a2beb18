/** How Redis is trusted over `rediss://`, and who this process is to it. Not for runtimes without files. */
import { trusting, readAuthorities, readPrivateKey } from './authorities.ts';
import { ConfigError, type Environment } from './config.ts';
import type { RedisTls } from './queue.ts';

const variables = ['REDIS_CA', 'REDIS_CERT', 'REDIS_KEY'] as const;

/**
 * REDIS_CA, REDIS_CERT and REDIS_KEY, each a file or PEM itself, as a part of a process's config: nothing where REDIS_URL is
 * not `rediss://`. They are read once: a process that is to believe another authority is started anew.
 * @throws {ConfigError} naming the variable
 */
export async function readRedisTls(environment: Environment): Promise<{ redisTls?: RedisTls }> {
  // an empty variable is an unset one
  const { REDIS_CA: ca, REDIS_CERT: cert, REDIS_KEY: key } = Object.fromEntries(variables.map((name) => [name, environment[name] || undefined]));
  if (!/^rediss:/i.test(environment['REDIS_URL'] ?? '')) {
    const useless = variables.find((name) => environment[name]);
    if (useless === undefined) return {};
    throw new ConfigError(`${useless} is set, and REDIS_URL is not rediss://: the connection would not be encrypted, and no certificate looked at`);
  }
  const authorities = ca === undefined ? null : await readAuthorities('REDIS_CA', ca);
  if ((cert === undefined) !== (key === undefined)) {
    throw new ConfigError(`${cert === undefined ? 'REDIS_CERT' : 'REDIS_KEY'} is not set: a certificate and its key go together`);
  }
  const own = cert === undefined || key === undefined ? null : { cert: await readAuthorities('REDIS_CERT', cert), key: await readPrivateKey('REDIS_KEY', key) };
  try {
    // whatever NODE_TLS_REJECT_UNAUTHORIZED says
    return { redisTls: { secureContext: trusting(authorities, own), rejectUnauthorized: true } };
  } catch (error) {
    throw new ConfigError(`REDIS_CERT, REDIS_KEY: must be a certificate and its own key (${(error as Error).message})`);
  }
}
