/** Where a Lambda event's request went, for every way to set up what stands before the function. */
import type { LambdaEvent } from 'hono/aws-lambda';
import { describe, expect, test } from 'vitest';
import { placeEvent } from '../../edge/lambda-event.ts';
import { eventOf, hosts, lambdaKinds, type LambdaKind } from '../runtimes/lambda-events.ts';

const path = '/v1/recordings/rec_1';

/** An event as the platform makes it, and what another setting changes in it. */
function made(kind: LambdaKind, changes: Record<string, unknown> = {}, context: Record<string, unknown> = {}, headers: [string, string][] = []): LambdaEvent {
  const event = eventOf(kind, { method: 'GET', path, query: '', headers, body: Buffer.alloc(0) }) as { requestContext: object };
  return { ...event, ...changes, requestContext: { ...event.requestContext, ...context } } as unknown as LambdaEvent;
}

/** The path is where the framework reads it for this kind of event. */
const placed = (event: LambdaEvent) => {
  const { event: inner, facts } = placeEvent(event);
  const path = 'http' in inner.requestContext && 'rawPath' in inner ? inner.rawPath : 'path' in inner ? inner.path : null;
  return { path, platform: facts.platform, peer: facts.peer };
};

const custom = { domainName: 'rec.example.com' };

describe('the path of the application and the prefix before it', () => {
  test.each<[string, LambdaEvent, prefix: string, host: string]>([
    ['REST API, its own domain: the stage', made('rest-api'), '/Prod', hosts['rest-api']],
    // https://github.com/CodeGenieApp/serverless-express/issues/216: `path` keeps the base path
    ['REST API, custom domain with a base path', made('rest-api', { path: `/rec${path}` }, { ...custom, path: `/rec${path}` }), '/rec', 'rec.example.com'],
    // https://github.com/honojs/hono/issues/5015: and there is a `rawPath`
    ['REST API, custom domain, with rawPath', made('rest-api', { path, rawPath: `/rec${path}` }, { ...custom, path: `/rec${path}` }), '/rec', 'rec.example.com'],
    ['REST API, custom domain without a base path', made('rest-api', {}, { ...custom, path }), '', 'rec.example.com'],
    [
      'REST API, below a resource',
      made('rest-api', { resource: '/rec/{proxy+}', path: `/rec${path}` }, { path: `/Prod/rec${path}` }),
      '/Prod/rec',
      hosts['rest-api'],
    ],
    [
      'REST API, a resource for each route',
      made('rest-api', { resource: '/v1/recordings/{id}', pathParameters: { id: 'rec_1' } }),
      '/Prod',
      hosts['rest-api'],
    ],
    ['HTTP API, $default stage', made('http-api'), '', hosts['http-api']],
    ['HTTP API, a stage', made('http-api', { rawPath: `/dev${path}` }, { stage: 'dev' }), '/dev', hosts['http-api']],
    // https://github.com/CodeGenieApp/serverless-express/issues/465: the stage is in rawPath, not in the client's URL
    ['HTTP API, a stage, custom domain', made('http-api', { rawPath: `/dev${path}` }, { ...custom, stage: 'dev' }), '', 'rec.example.com'],
    [
      'HTTP API, below a route',
      made('http-api', { rawPath: `/rec${path}`, routeKey: 'ANY /rec/{proxy+}', pathParameters: { proxy: path.slice(1) } }),
      '/rec',
      hosts['http-api'],
    ],
    [
      'HTTP API, a stage, below a route, custom domain',
      made('http-api', { rawPath: `/dev/rec${path}`, routeKey: 'ANY /rec/{proxy+}', pathParameters: { proxy: path.slice(1) } }, { ...custom, stage: 'dev' }),
      '/rec',
      'rec.example.com',
    ],
    ['HTTP API, a path that only begins like the stage', made('http-api', {}, { stage: 'v' }), '', hosts['http-api']],
    ['Function URL', made('function-url'), '', hosts['function-url']],
  ])('%s', (_name, event, prefix, host) => {
    const { path: inner, platform, peer } = placed(event);
    expect(inner).toBe(path);
    expect(platform).toMatchObject({ scheme: 'https', authority: host, prefix });
    expect(peer).toEqual({ address: '192.0.2.1', encrypted: true });
  });

  test("a stage's root, with its slash or without", () => {
    expect(placed(made('http-api', { rawPath: '/dev' }, { stage: 'dev' }))).toMatchObject({ path: '/', platform: { prefix: '/dev' } });
    expect(placed(made('rest-api', { resource: '/', path: '/', pathParameters: null }, { path: '/Prod' }))).toMatchObject({ path: '/', platform: { prefix: '/Prod' } });
  });
});

describe('a load balancer', () => {
  const lines = (...headers: [string, string][]) => made('load-balancer', { headers: Object.fromEntries(headers) });

  test.each<[[string, string][], object | null]>([
    [[['host', 'rec.example.com'], ['x-forwarded-proto', 'https'], ['x-forwarded-port', '443']], { scheme: 'https', authority: 'rec.example.com' }],
    [[['host', 'rec.example.com'], ['x-forwarded-proto', 'http'], ['x-forwarded-port', '80']], { scheme: 'http', authority: 'rec.example.com' }],
    [[['host', 'rec.example.com:8443'], ['x-forwarded-proto', 'https'], ['x-forwarded-port', '8443']], { scheme: 'https', authority: 'rec.example.com:8443' }],
    [[['host', 'rec.example.com'], ['x-forwarded-proto', 'https'], ['x-forwarded-port', '8443']], { scheme: 'https', authority: 'rec.example.com:8443' }],
    [[['host', '[2001:db8::1]'], ['x-forwarded-proto', 'https'], ['x-forwarded-port', '8443']], { scheme: 'https', authority: '[2001:db8::1]:8443' }],
    [[['host', 'rec.example.com']], null],
    [[['x-forwarded-proto', 'https']], null],
  ])('%j', (headers, expected) => {
    const { platform } = placed(lines(...headers));
    if (expected === null) expect(platform).toBeNull();
    else expect(platform).toMatchObject(expected);
  });

  test('with multi-value headers, what it added last counts', () => {
    const multiValueHeaders = { host: ['rec.example.com'], 'x-forwarded-proto': ['http', 'https'], 'x-forwarded-port': ['443'] };
    expect(placed(made('load-balancer', { headers: undefined, multiValueHeaders })).platform).toMatchObject({ scheme: 'https', authority: 'rec.example.com' });
  });
});

test.each(lambdaKinds)('%s: a client changes nothing with headers', (kind) => {
  const forged: [string, string][] = [
    ['x-forwarded-host', 'evil.example'],
    ['x-forwarded-proto', 'http'],
    ['x-forwarded-port', '1'],
    ['x-forwarded-prefix', '/evil'],
    ['forwarded', 'host=evil.example;proto=http'],
  ];
  expect(placed(made(kind, {}, {}, forged)).platform).toEqual(placed(made(kind)).platform);
});
