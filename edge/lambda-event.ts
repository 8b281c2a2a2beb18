/**
 * Where a Lambda event's request went: what API Gateway, a Function URL or an Application Load Balancer says of it itself.
 *
 * API Gateway (REST and HTTP) and Function URLs take https only, and put the domain that was asked for into
 * `requestContext.domainName`, which is no header:
 * https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html,
 * https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html. A load balancer stores the protocol and port that the
 * client came to in X-Forwarded-Proto and X-Forwarded-Port, and passes Host as the client wrote it:
 * https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html. What becomes of such headers of a
 * client is not written there, so what comes last counts.
 */
import type { LambdaEvent } from 'hono/aws-lambda';
import type { HeaderLine, PlatformOrigin, RequestFacts } from './origin/facts.ts';

/** @property event the same request, its path as the application knows it: without a stage or a base path */
export type PlacedEvent = { event: LambdaEvent; facts: RequestFacts };

export function placeEvent(event: LambdaEvent): PlacedEvent {
  const headers = headerLines(event);
  const facts = (platform: PlatformOrigin | null, address: string | null): RequestFacts => ({
    peer: { address, encrypted: platform?.scheme === 'https' },
    headers,
    target: null,
    platform,
  });
  const context = event.requestContext;
  if ('elb' in context) return { event, facts: facts(loadBalancerOrigin(headers), null) };
  if ('http' in context && 'rawPath' in event) {
    const { prefix, path } = splitHttpApiPath(event.rawPath, context.stage, context.domainName, event.routeKey, event.pathParameters ?? {});
    const source = context.domainName.includes('.lambda-url.') ? 'function-url' : 'api-gateway';
    return { event: { ...event, rawPath: path }, facts: facts({ scheme: 'https', authority: context.domainName, source, prefix }, context.http.sourceIp) };
  }
  if ('resource' in event) {
    const { path: asked, domainName, identity } = event.requestContext;
    const { prefix, path } = splitRestApiPath(asked, event.path, event.resource, event.pathParameters ?? {});
    return { event: { ...event, path }, facts: facts({ scheme: 'https', authority: domainName, source: 'api-gateway', prefix }, identity.sourceIp) };
  }
  return { event, facts: facts(null, null) };
}

type Split = { prefix: string; path: string };
type Parameters = Readonly<Record<string, string | undefined>>;

/**
 * A REST API (payload 1.0). `requestContext.path` is the path that the client asked for: with the stage on the API's own
 * domain, with the mapping's base path on a custom one. `path` lacks the stage but has the base path.
 */
function splitRestApiPath(asked: string, path: string, resource: string, parameters: Parameters): Split {
  return before(asked, ownPath(resource, parameters)) ?? before(asked, path) ?? { prefix: '', path };
}

/**
 * An HTTP API or Function URL (payload 2.0). `rawPath` begins with the stage unless that is `$default`, even on a custom
 * domain, where the client's URL has none; a custom domain's mapping key is not told at all (PUBLIC_URL has to).
 */
function splitHttpApiPath(rawPath: string, stage: string, domain: string, routeKey: string, parameters: Parameters): Split {
  const staged = stage === '$default' ? '' : `/${stage}`;
  const route = routeKey.split(' ')[1];
  const inner = rawPath === staged ? '/' : rawPath.startsWith(`${staged}/`) ? rawPath.slice(staged.length) : rawPath;
  const split = (route === undefined ? null : before(rawPath, ownPath(route, parameters))) ?? before(rawPath, inner) ?? { prefix: '', path: rawPath };
  const custom = !/\.execute-api\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$/.test(domain);
  return custom && staged !== '' && `${split.prefix}/`.startsWith(`${staged}/`) ? { ...split, prefix: split.prefix.slice(staged.length) } : split;
}

/** The path below the route that leads here: all that a greedy parameter took, else the route itself, filled in. */
function ownPath(route: string, parameters: Parameters): string {
  const greedy = /\{([^{}]+)\+\}$/.exec(route)?.[1];
  if (greedy !== undefined) return `/${parameters[greedy] ?? ''}`;
  return route.replaceAll(/\{([^{}]+)\}/g, (whole, name: string) => parameters[name] ?? whole);
}

function before(whole: string, end: string): Split | null {
  if (whole.endsWith(end)) return { prefix: whole.slice(0, whole.length - end.length), path: end };
  // a stage's root may be asked for without its slash
  return end === '/' ? { prefix: whole, path: end } : null;
}

/** Null where the event is not as a load balancer makes it. */
function loadBalancerOrigin(headers: readonly HeaderLine[]): PlatformOrigin | null {
  // what the load balancer adds comes after what came with the request
  const last = (name: string) => headers.findLast((line) => line[0].toLowerCase() === name)?.[1];
  const scheme = last('x-forwarded-proto');
  const host = last('host');
  const port = last('x-forwarded-port');
  if ((scheme !== 'http' && scheme !== 'https') || host === undefined) return null;
  const named = /:\d+$/.test(host) || port === undefined || port === (scheme === 'https' ? '443' : '80');
  return { scheme, authority: named ? host : `${host}:${port}`, source: 'load-balancer' };
}

function headerLines(event: LambdaEvent): HeaderLine[] {
  const several = ('multiValueHeaders' in event && event.multiValueHeaders) || {};
  const names = new Set(Object.keys(several));
  const single = Object.entries(event.headers ?? {}).filter(([name]) => !names.has(name));
  return [...Object.entries(several), ...single].flatMap(([name, value]) => [value ?? []].flat().map((one): HeaderLine => [name, one]));
}
