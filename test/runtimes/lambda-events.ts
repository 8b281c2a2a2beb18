/**
 * HTTP requests as the events that AWS makes of them, and results as answers. Shapes and example values:
 * REST API, payload 1.0: https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
 * HTTP API, payload 2.0: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
 * Function URL: https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
 * Load balancer: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
 */

export type LambdaRequest = { method: string; path: string; query: string; headers: [name: string, value: string][]; body: Buffer };

export const lambdaKinds = ['rest-api', 'http-api', 'function-url', 'load-balancer'] as const;
export type LambdaKind = (typeof lambdaKinds)[number];

export const hosts: Readonly<Record<LambdaKind, string>> = {
  'rest-api': '70ixmpl4fl.execute-api.us-east-2.amazonaws.com',
  'http-api': 'r3pmxmplak.execute-api.us-east-2.amazonaws.com',
  'function-url': 'abcdefghij.lambda-url.us-east-1.on.aws',
  'load-balancer': 'lambda-846800462.us-east-2.elb.amazonaws.com',
};

/** What a client of the platform sees before our paths. */
export const prefixes: Readonly<Record<LambdaKind, string>> = { 'rest-api': '/Prod', 'http-api': '', 'function-url': '', 'load-balancer': '' };

const SOURCE_IP = '192.0.2.1';

/** What the platform writes itself comes in the place of what a client wrote; X-Forwarded-For grows. */
function platformHeaders(kind: LambdaKind, headers: LambdaRequest['headers']): [string, string][] {
  const own = new Map([
    ['host', hosts[kind]],
    ['x-forwarded-proto', 'https'],
    ['x-forwarded-port', '443'],
    ['x-amzn-trace-id', 'Root=1-5bdb40ca-556d8b0c50dc66f0511bf520'],
  ]);
  const kept = headers.filter(([name]) => !own.has(name.toLowerCase()) && !/^(connection|keep-alive|transfer-encoding|x-forwarded-for)$/i.test(name));
  const before = headers.filter(([name]) => /^x-forwarded-for$/i.test(name)).map(([, value]) => value);
  return [...kept, ...own, ['x-forwarded-for', [...before, SOURCE_IP].join(', ')]];
}

const last = (lines: [string, string][]) => Object.fromEntries(lines);
const joined = (lines: [string, string][]) =>
  Object.fromEntries([...Map.groupBy(lines, ([name]) => name.toLowerCase())].map(([name, of]) => [name, of.map(([, value]) => value).join(',')]));
const several = (lines: [string, string][]) => Object.fromEntries([...Map.groupBy(lines, ([name]) => name)].map(([name, of]) => [name, of.map(([, value]) => value)]));

const parameters = (query: string) => [...new URLSearchParams(query)];
const orNull = <T extends object>(record: T) => (Object.keys(record).length === 0 ? null : record);

export function eventOf(kind: LambdaKind, { method, path, query, headers, body }: LambdaRequest): object {
  const lines = platformHeaders(kind, headers);
  const text = body.toString();
  const time = Date.now();
  switch (kind) {
    case 'rest-api': {
      const pascal = lines.map(([name, value]): [string, string] => [name.replaceAll(/(^|-)[a-z]/g, (letter) => letter.toUpperCase()), value]);
      return {
        resource: '/{proxy+}',
        path,
        httpMethod: method,
        headers: last(pascal),
        multiValueHeaders: several(pascal),
        queryStringParameters: orNull(last(parameters(query))),
        multiValueQueryStringParameters: orNull(several(parameters(query))),
        pathParameters: { proxy: path.slice(1) },
        stageVariables: null,
        requestContext: {
          resourceId: '2gxmpl',
          resourcePath: '/{proxy+}',
          httpMethod: method,
          extendedRequestId: 'JJbxmplHYosFVYQ=',
          requestTime: '10/Mar/2020:00:03:59 +0000',
          path: `/Prod${path}`,
          accountId: '123456789012',
          protocol: 'HTTP/1.1',
          stage: 'Prod',
          domainPrefix: '70ixmpl4fl',
          requestTimeEpoch: time,
          requestId: '77375676-xmpl-4b79-853a-f982474efe18',
          identity: {
            cognitoIdentityPoolId: null,
            accountId: null,
            cognitoIdentityId: null,
            caller: null,
            sourceIp: SOURCE_IP,
            principalOrgId: null,
            accessKey: null,
            cognitoAuthenticationType: null,
            cognitoAuthenticationProvider: null,
            userArn: null,
            userAgent: 'curl/8',
            user: null,
          },
          domainName: hosts[kind],
          apiId: '70ixmpl4fl',
        },
        body: text === '' ? null : text,
        isBase64Encoded: false,
      };
    }
    case 'http-api':
    case 'function-url':
      return {
        version: '2.0',
        routeKey: '$default',
        rawPath: path,
        rawQueryString: query,
        headers: joined(lines),
        ...(query === '' ? {} : { queryStringParameters: joined(parameters(query)) }),
        requestContext: {
          accountId: '123456789012',
          apiId: hosts[kind].split('.')[0],
          authentication: null,
          domainName: hosts[kind],
          domainPrefix: hosts[kind].split('.')[0],
          http: { method, path, protocol: 'HTTP/1.1', sourceIp: SOURCE_IP, userAgent: 'curl/8' },
          requestId: 'id',
          routeKey: '$default',
          stage: '$default',
          time: '12/Mar/2020:19:03:58 +0000',
          timeEpoch: time,
        },
        // a Function URL hands over every body that is no text in base64, and may do so with any
        ...(text === '' ? { isBase64Encoded: false } : kind === 'function-url' ? { body: body.toString('base64'), isBase64Encoded: true } : { body: text, isBase64Encoded: false }),
      };
    case 'load-balancer':
      return {
        requestContext: { elb: { targetGroupArn: 'arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/lambda-279XGJDqGZ5rsrHC2Fjr/49e9d65c45c6791a' } },
        httpMethod: method,
        path,
        // not decoded, and of equal names the last only
        queryStringParameters: Object.fromEntries(query.split('&').filter(Boolean).map((pair) => [pair.split('=')[0], pair.split('=').slice(1).join('=')])),
        headers: last(lines.map(([name, value]) => [name.toLowerCase(), value])),
        body: text,
        isBase64Encoded: false,
      };
  }
}

export type LambdaResult = {
  statusCode: number;
  headers?: Record<string, string>;
  multiValueHeaders?: Record<string, string[]>;
  cookies?: string[];
  body?: string;
  isBase64Encoded?: boolean;
};

/** @throws {Error} where the platform would answer 502: no status, or the wrong kind of headers */
export function answerOf(kind: LambdaKind, result: LambdaResult): { status: number; headers: [string, string][]; body: Buffer } {
  if (!Number.isInteger(result.statusCode)) throw new Error(`no status: ${JSON.stringify(result)}`);
  if (kind !== 'rest-api' && result.multiValueHeaders) throw new Error(`${kind} takes no multiValueHeaders`);
  const headers = [
    ...Object.entries(result.headers ?? {}),
    ...Object.entries(result.multiValueHeaders ?? {}).flatMap(([name, values]) => values.map((value): [string, string] => [name, value])),
    ...(result.cookies ?? []).map((value): [string, string] => ['set-cookie', value]),
  ];
  if (headers.some(([, value]) => typeof value !== 'string')) throw new Error(`a header is no string: ${JSON.stringify(headers)}`);
  return { status: result.statusCode, headers, body: Buffer.from(result.body ?? '', result.isBase64Encoded === true ? 'base64' : 'utf8') };
}
