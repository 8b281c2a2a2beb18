/** docker-compose.yml as Compose reads it, and the secrets that its first service makes. That it records is `npm run test:images`. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseEnv } from 'node:util';
import { afterAll, describe, expect, it } from 'vitest';
import { parseKeys } from '../../edge/access/keys.ts';
import { readEdgeConfig, readFinaliserConfig } from '../../edge/config.ts';
import { SHM_PER_SLOT } from '../../worker/capacity.ts';
import { readWorkerConfig } from '../../worker/config.ts';
import { composeConfig, hasCompose, type ComposeService } from './compose.ts';

const repository = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');
if (!hasCompose) console.warn('Tests are skipped for want of docker compose: .ci/run, or a Docker with Compose 2.24 or newer');

describe.skipIf(!hasCompose)('docker-compose.yml', () => {
  // what is skipped is gathered all the same
  if (!hasCompose) return;
  const { services, networks } = composeConfig(repository);
  const named = (name: string) => services[name] as ComposeService;
  const seconds = (text: string) => [...text.matchAll(/(\d+)([hms])/g)].reduce((sum, [, value, unit]) => sum + Number(value) * { h: 3600, m: 60, s: 1 }[unit as 'h'], 0);

  it('has every service hardened', () => {
    for (const [name, service] of Object.entries(services)) {
      expect(service, name).toMatchObject({ read_only: true, cap_drop: ['ALL'] });
      expect(service.privileged, name).toBeUndefined();
      expect(service.security_opt, name).toContain('no-new-privileges:true');
      expect(service.user, name).toBe(name === 'init' ? '0:0' : '10001:10001');
      expect(service.cap_add ?? [], name).toEqual({ init: ['CHOWN'], proxy: ['NET_BIND_SERVICE'] }[name] ?? []);
      expect(service.image, name).not.toMatch(/:latest$/);
    }
  });

  it("lets nobody but our services reach Redis, and nobody but the proxy be reached from outside", () => {
    for (const name of ['redis-edge', 'redis-worker']) expect(networks[name]?.internal).toBe(true);
    const inNetwork = (network: string) => Object.keys(services).filter((name) => network in named(name).networks).toSorted();
    expect(inNetwork('redis-edge')).toEqual(['edge', 'finaliser', 'redis']);
    expect(inNetwork('redis-worker')).toEqual(['redis', 'worker']);
    expect(inNetwork('ingress')).toEqual(['edge', 'proxy']);
    // pages that are recorded come no nearer to the edge than anybody
    expect(Object.keys(named('worker').networks).filter((name) => name in named('edge').networks)).toEqual([]);
    expect(Object.keys(services).filter((name) => named(name).ports.length > 0)).toEqual(['proxy']);
    expect(named('proxy').ports).toMatchObject([{ host_ip: '127.0.0.1', target: 8443, published: '8443' }]);
    expect(named('proxy').networks['web']?.aliases).toEqual(['tabreel.test']);
  });

  it('gives each service its own secrets, and none in clear', () => {
    const secrets = (name: string) => named(name).volumes.filter(({ source }) => source.startsWith('secrets-')).map(({ source, read_only }) => `${source} ${read_only}`);
    expect(Object.fromEntries(['redis', 'edge', 'finaliser', 'worker', 'proxy', 'authority'].map((name) => [name, secrets(name)]))).toEqual({
      redis: ['secrets-redis true'],
      edge: ['secrets-edge true'],
      finaliser: ['secrets-edge true'],
      worker: ['secrets-worker true'],
      proxy: [],
      authority: [],
    });
    for (const { environment } of Object.values(services)) expect(Object.keys(environment).filter((name) => /SECRET|PASSWORD|REDIS_URL/.test(name))).toEqual([]);
  });

  it('gives a worker shared memory, a seccomp profile, and time to leave', () => {
    const worker = named('worker');
    expect(Number(worker.shm_size)).toBeGreaterThanOrEqual(2 * SHM_PER_SLOT);
    expect(worker.security_opt).toContain('seccomp:deploy/seccomp/chromium.json');
    expect(seconds(worker.stop_grace_period ?? '')).toBeGreaterThanOrEqual(Number(worker.environment['DRAIN_TIMEOUT']) + 300);
  });

  it('mounts files that are there, and builds from Dockerfiles that are there', () => {
    for (const { volumes, build } of Object.values(services)) {
      for (const { type, source } of volumes) if (type === 'bind') expect(existsSync(source), source).toBe(true);
      if (build) expect(existsSync(join(build.context, build.dockerfile)), build.dockerfile).toBe(true);
    }
  });

  describe.skipIf(process.getuid?.() !== 0)('with the secrets that its first service makes', () => {
    const directory = mkdtempSync(join(tmpdir(), 'tabreel-compose-'));
    afterAll(() => rmSync(directory, { recursive: true }));
    for (const { target } of named('init').volumes.filter(({ type }) => type === 'volume')) mkdirSync(join(directory, target), { recursive: true });
    // as root without any capability but that one
    const init = () => spawnSync('setpriv', ['--bounding-set=-all,+chown', '--inh-caps=-all', process.execPath, join(repository, 'deploy/compose/init.ts'), directory], { encoding: 'utf8' });
    const secret = (path: string) => readFileSync(join(directory, 'secrets', path), 'utf8');
    const files = ['redis/redis.conf', 'edge/env', 'edge/api-keys.json', 'worker/env', 'caller/env'];

    it('runs as often as it is asked to, and makes them once, for the services alone', () => {
      expect(init()).toMatchObject({ status: 0, stderr: '' });
      const first = files.map(secret);
      expect(init()).toMatchObject({ status: 0, stderr: '', stdout: '' });
      expect(files.map(secret)).toEqual(first);
      for (const path of files) expect(statSync(join(directory, 'secrets', path))).toMatchObject({ uid: 10001, mode: 0o100400 });
      expect(parseKeys(secret('edge/api-keys.json'), 'API_KEYS')).toBeDefined();
    });

    it('all processes take their settings', async () => {
      const environmentOf = (service: string, env: string) => ({ STORAGE_URL: 'file:///recordings', ...named(service).environment, ...parseEnv(secret(env)) }) as Record<string, string>;
      expect(readEdgeConfig(environmentOf('edge', 'edge/env'), '')).toMatchObject({ host: '0.0.0.0', port: 8080, apiKeys: { file: '/secrets/api-keys.json' }, allowedHosts: ['tabreel.test:8443'], healthPort: 9090 });
      expect(readFinaliserConfig(environmentOf('finaliser', 'edge/env'), '')).toMatchObject({ storageUrl: 'file:///recordings', healthPort: 9090 });
      const worker = { ...environmentOf('worker', 'worker/env'), MEDIA_CA: '' };
      expect(await readWorkerConfig(worker, { cores: 8, memory: 2 ** 35, shm: Number(named('worker').shm_size) })).toMatchObject({ slots: 4, sandbox: true, devShm: true });
      expect(worker).not.toHaveProperty('TOKEN_SECRET');
    });
  });
});
