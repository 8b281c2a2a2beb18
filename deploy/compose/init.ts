/**
 * Run by compose, before all else: makes the secrets that the services share, each where only the process that needs it can read
 * it, and gives the volumes to the services' user. What is there already stays.
 */
import { randomBytes } from 'node:crypto';
import { chownSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { argv, stdout } from 'node:process';
import { entryOf, newApiKey } from '../../edge/access/keys.ts';

/** Of all services. */
const USER = 10001;
/** Where the volumes are mounted. */
const root = argv[2] ?? '/';

function write(path: string, text: string): void {
  rmSync(join(root, path), { force: true });
  writeFileSync(join(root, path), text, { mode: 0o400 });
  chownSync(join(root, path), USER, USER);
}

const random = () => randomBytes(32).toString('hex');
const lines = (settings: Readonly<Record<string, string>>) => Object.entries(settings).map(([name, value]) => `${name}=${value}\n`).join('');

for (const name of ['redis', 'proxy', 'authority', 'policies', 'recordings', 'spool']) chownSync(join(root, 'volumes', name), USER, USER);

if (!existsSync(join(root, 'secrets/edge/complete'))) {
  const password = random();
  const key = newApiKey();
  const shared = { REDIS_URL: `redis://:${password}@redis:6379`, SECRETS_KEY: random() };
  write(
    'secrets/redis/redis.conf',
    `# the only copy of what is queued
dir /data
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
requirepass ${password}
`,
  );
  write('secrets/edge/env', lines({ ...shared, TOKEN_SECRET: random() }));
  write('secrets/edge/api-keys.json', `${JSON.stringify({ keys: [await entryOf(key, { name: 'first', scopes: ['record', 'read'], limits: {} })] }, null, 2)}\n`);
  write('secrets/worker/env', lines(shared));
  write('secrets/caller/env', lines({ TABREEL_KEY: key }));
  // last: what was cut short is made anew, all of it
  write('secrets/edge/complete', '');
  stdout.write('Secrets are made\n');
}
