import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hasRedisServer, realRedis, startRedis, type TestRedis } from '../helpers/redis.ts';
import { eventually } from './harness.ts';
import { startReceiver } from './receiver.ts';
import { sealingEdge, secret, tell, waiting } from './webhook-harness.ts';

let redis: TestRedis;
beforeAll(async () => {
  redis = await startRedis();
});
const children: ChildProcess[] = [];
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  await redis[Symbol.asyncDispose]();
});

describe.concurrent('a finaliser that tells webhooks', () => {
  test('that is killed between POST and answer leaves the event to another, under the same id', async () => {
    await using own = await sealingEdge(redis);
    const released = Promise.withResolvers<void>();
    await using receiver = await startReceiver(secret, (_delivery, { length }) => (length === 1 ? released.promise.then(() => 200) : 200));
    const { trust: _trust, redisTls: _redisTls, ...config } = own.config;
    const finishing = fileURLToPath(new URL('../../edge/finishing.ts', import.meta.url));
    const code = `import { startFinaliser } from ${JSON.stringify(finishing)};
      import { createLog } from ${JSON.stringify(finishing.replace('edge/finishing', 'shared/log'))};
      import { readRedisTls } from ${JSON.stringify(finishing.replace('edge/finishing', 'shared/redis-tls'))};
      const webhooks = { times: { lease: 1500 } };
      const config = { ...${JSON.stringify(config)}, ...(await readRedisTls(${JSON.stringify(redis.environment)})) };
      await startFinaliser(config, createLog('info', (line) => console.log(line)), { webhooks });`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: 'inherit' });
    children.push(child);
    const { id } = await own.create({ webhook: { url: receiver.url, secret } });
    await own.control.run(id);
    await eventually(async () => receiver.deliveries.length, (length) => length === 1);
    child.kill('SIGKILL');
    expect(await once(child, 'exit')).toEqual([null, 'SIGKILL']);
    released.resolve();
    await using finaliser = await tell(own);
    void finaliser;
    await receiver.until(4);
    expect(receiver.deliveries.map(({ state }) => state)).toEqual(['queued', 'queued', 'starting', 'recording']);
    expect(receiver.deliveries[1]!.id).toBe(receiver.deliveries[0]!.id);
    expect(receiver.deliveries.every(({ signed }) => signed)).toBe(true);
  });

  // seldom, on a busy machine, something here takes longer than half a minute
  test.skipIf(!hasRedisServer)('whose Redis dies between POST and answer, and comes back, goes on', { timeout: 60_000 }, async () => {
    await using server = await realRedis();
    await server.start();
    await using own = await sealingEdge(server);
    const released = Promise.withResolvers<void>();
    await using receiver = await startReceiver(secret, (_delivery, { length }) => (length === 1 ? released.promise.then(() => 200) : 200));
    await using finaliser = await tell(own, { lease: 1500 });
    void finaliser;
    const { id } = await own.create({ webhook: { url: receiver.url, secret } });
    await own.control.run(id);
    await eventually(async () => receiver.deliveries.length, (length) => length === 1);
    await server.kill();
    released.resolve();
    await sleep(300);
    await server.start();
    await eventually(() => waiting(own).catch(() => ['away']), (keys) => keys.length === 0);
    expect([...new Map(receiver.deliveries.map((delivery) => [delivery.id, delivery.state])).values()]).toEqual(['queued', 'starting', 'recording']);
  });

  test.skipIf(!hasRedisServer)('whose connection for announcements is cut looks once it has another', async () => {
    await using server = await realRedis();
    await server.start();
    await using own = await sealingEdge(server);
    await using receiver = await startReceiver(secret);
    await using finaliser = await tell(own, { look: 60_000 });
    void finaliser;
    const { id } = await own.create({ webhook: { url: receiver.url, secret } });
    await receiver.until(1);
    await own.control.redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await own.control.run(id);
    await receiver.until(3, 3000);
  });

  test('that leaves in the middle of a POST hands it to another at once, and counts no try', async () => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver(secret, (_delivery, { length }) => (length === 1 ? null : 200));
    const leaving = await tell(own);
    await own.create({ webhook: { url: receiver.url, secret } });
    await eventually(async () => receiver.deliveries.length, (length) => length === 1);
    await leaving[Symbol.asyncDispose]();
    await using finaliser = await tell(own);
    void finaliser;
    await eventually(async () => receiver.taken(), (taken) => taken.length === 1, 2000);
    expect(receiver.deliveries[1]!.id).toBe(receiver.deliveries[0]!.id);
    expect(own.logs.filter((line) => line.includes('webhook failed'))).toEqual([]);
  });

  test('that starts anew goes on with the tries where they were', async () => {
    await using own = await sealingEdge(redis);
    await using receiver = await startReceiver(secret, () => 500);
    await own.create({ webhook: { url: receiver.url, secret } });
    {
      await using finaliser = await tell(own);
      void finaliser;
      await receiver.until(2);
      await eventually(async () => own.logs, (lines) => lines.filter((line) => line.includes('webhook failed')).length >= 2);
    }
    const before = own.logs.filter((line) => line.includes('webhook failed')).length;
    await using finaliser = await tell(own);
    void finaliser;
    await eventually(async () => own.logs, (lines) => lines.some((line) => line.includes(`"try":${before + 1}`)));
  });
});
