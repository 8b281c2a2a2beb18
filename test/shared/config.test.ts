import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { commonSettings, ConfigError, flag, list, readConfig, secrets, wholeNumber, type Environment } from '../../shared/config.ts';

const settings = z.object({
  ...commonSettings,
  PORT: wholeNumber(1, 65_535).default(8080),
  SANDBOX: flag.default(true),
  PROXIES: list.default(['loopback']),
  TOKEN_SECRET: secrets.optional(),
});
const minimal = { REDIS_URL: 'redis://127.0.0.1:6379' };
const read = (environment: Environment) => readConfig(settings, { ...minimal, ...environment }, ['TOKEN_SECRET']);
/** The lines that an operator sees. */
const problems = (environment: Environment): string[] => {
  try {
    read(environment);
    return [];
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message.split('\n');
  }
};

describe('settings', () => {
  test('are read from text, with defaults for what is unset or empty', () => {
    expect(readConfig(settings, { ...minimal, PORT: '', SANDBOX: undefined, UNRELATED: 'x' })).toEqual({
      ...minimal,
      QUEUE_PREFIX: 'tabreel',
      LOG_LEVEL: 'info',
      PORT: 8080,
      SANDBOX: true,
      PROXIES: ['loopback'],
    });
    expect(read({ PORT: '65535', SANDBOX: 'off', PROXIES: ' 10.0.0.0/8, ,loopback,', LOG_LEVEL: 'debug', REDIS_URL: 'rediss://cache:6380/2' })).toMatchObject({
      PORT: 65_535,
      SANDBOX: false,
      PROXIES: ['10.0.0.0/8', 'loopback'],
      LOG_LEVEL: 'debug',
      REDIS_URL: 'rediss://cache:6380/2',
    });
    expect(['true', 'on', '1'].map((word) => read({ SANDBOX: word }).SANDBOX)).toEqual([true, true, true]);
    expect(['false', 'off', '0'].map((word) => read({ SANDBOX: word }).SANDBOX)).toEqual([false, false, false]);
  });

  test.each<[told: string, environment: Environment]>([
    ['REDIS_URL is not set: must be a redis:// or rediss:// URL', { REDIS_URL: undefined }],
    ['REDIS_URL is not set: must be a redis:// or rediss:// URL', { REDIS_URL: '' }],
    ['REDIS_URL="http://cache": must be a redis:// or rediss:// URL', { REDIS_URL: 'http://cache' }],
    ['PORT="0": must be at least 1', { PORT: '0' }],
    ['PORT="65536": must be at most 65535', { PORT: '65536' }],
    ['PORT="80.5": must be a whole number from 1 to 65535', { PORT: '80.5' }],
    ['PORT="-1": must be a whole number from 1 to 65535', { PORT: '-1' }],
    ['PORT="0x50": must be a whole number from 1 to 65535', { PORT: '0x50' }],
    ['SANDBOX="yes": must be true or false (also on, off, 1, 0)', { SANDBOX: 'yes' }],
    ['LOG_LEVEL="trace": must be one of debug, info, warn, error', { LOG_LEVEL: 'trace' }],
    ['QUEUE_PREFIX="a:b": must be 1 to 64 of A-Z a-z 0-9 _ - { }', { QUEUE_PREFIX: 'a:b' }],
  ])('name variable, value and what is allowed: %s', (told, environment) => {
    expect(problems(environment)).toEqual([told]);
  });

  test('all that are wrong are told at once', () => {
    expect(problems({ PORT: 'x', SANDBOX: 'x', LOG_LEVEL: 'x' }).map((line) => line.split('=')[0])).toEqual(['LOG_LEVEL', 'PORT', 'SANDBOX']);
  });

  test('secrets are long, may be several, and are not printed', () => {
    expect(read({ TOKEN_SECRET: 'new-secret-0123456789, old-secret-0123456789' }).TOKEN_SECRET).toEqual(['new-secret-0123456789', 'old-secret-0123456789']);
    for (const secret of ['tooshort', 'long-enough-0123456789,tooshort', ',,']) {
      expect(problems({ TOKEN_SECRET: secret })).toEqual([expect.stringMatching(/^TOKEN_SECRET=\(hidden\): must be one or more secrets/)]);
    }
  });

  test('a password within a URL is not printed either', () => {
    const shown = (url: string) => problems({ REDIS_URL: url })[0]?.split(': must')[0];
    // the rest is what an operator finds his mistake by
    expect(shown('reddis://:hunter2@cache:6379')).toBe('REDIS_URL="reddis://(hidden)@cache:6379"');
    expect(shown('http://user:hunter2@cache')).toBe('REDIS_URL="http://(hidden)@cache"');
    expect(shown('redis//:hunter2@cache')).toBe('REDIS_URL="(hidden)@cache"');
    expect(shown('redys://:hunter@2@cache')).toBe('REDIS_URL="redys://(hidden)@cache"');
  });
});
