/** An edge in a process of its own with what the fuzzers need: keys, recordings that are there, and a Redis. */
import { readFileSync } from 'node:fs';
import { startDeployment, type Deployment } from '../helpers/deployment.ts';
import { keyList, testKey, type TestKey } from '../helpers/keys.ts';
import type { ApiTarget } from './api.ts';

export type FuzzedEdge = AsyncDisposable & {
  deployment: Deployment;
  /** May record. */
  caller: TestKey;
  secretsKey: string;
  target: ApiTarget;
  /** MiB that the edge's process has in memory. */
  memory(): number;
};

export async function startFuzzedEdge(): Promise<FuzzedEdge> {
  const caller = await testKey('caller', ['record', 'read'], { concurrent: 50 });
  const reader = await testKey('reader', ['read']);
  const admin = await testKey('admin', ['admin']);
  const secretsKey = 'fuzz-secrets-key';
  const deployment = await startDeployment({
    redisPassword: 'fuzz',
    environment: { TOKEN_SECRET: 'fuzz-token-secret', SECRETS_KEY: secretsKey, API_KEYS: keyList(caller, reader, admin), LOG_LEVEL: 'error', PUBLIC_URL: 'https://rec.example' },
    whole: false,
  });
  const ids: string[] = [];
  for (let i = 0; i < 5; i += 1) {
    const { text } = await deployment.call('/v1/recordings', caller, { method: 'POST', body: { url: 'https://example.com/' } });
    ids.push((JSON.parse(text) as { id: string }).id);
  }
  const openapi = JSON.parse((await deployment.call('/openapi.json', admin)).text) as ApiTarget['openapi'];
  return {
    deployment,
    caller,
    secretsKey,
    target: { url: deployment.url, openapi, authorizations: [caller, caller, reader, admin].map(({ headers }) => headers.authorization), ids },
    memory: () => Math.round(Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${deployment.edge.child.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024),
    [Symbol.asyncDispose]: () => deployment[Symbol.asyncDispose](),
  };
}
