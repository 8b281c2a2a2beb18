/** Errors as `application/problem+json` (RFC 9457). */
import { z } from 'zod';
import { TabreelError, errorKinds } from '../shared/errors.ts';
import { isRefusal } from '../shared/redis-trouble.ts';
import { OriginError } from './origin/refusal.ts';

export const originStep = z.object({
  what: z.string().describe('a header, a setting or the socket'),
  value: z.string().nullable().describe('as it came, shortened'),
  use: z.enum(['used', 'ignored', 'refused']),
  why: z.string(),
});

export const problem = z.object({
  type: z.string().describe('about:blank: `code` tells the kind'),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  blame: z.enum(['caller', 'target', 'service']),
  retryable: z.boolean().describe('whether the same request may succeed later'),
  errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
  remedy: z.string().optional().describe('what the operator can do, where the external origin is refused'),
  steps: z.array(originStep).optional().describe('how the external origin was looked for, where it is refused'),
});
export type Problem = z.infer<typeof problem>;

/** Characters, and fields: what came is repeated in what is said of it, and may be as long as a body. */
const DETAIL_AT_MOST = 2000;
const PATH_AT_MOST = 300;
const ISSUES_AT_MOST = 100;
const short = (text: string, most: number): string => (text.length <= most ? text : `${text.slice(0, most)}…`.toWellFormed());

const answer = (body: Problem, headers: Record<string, string>): Response =>
  Response.json(body, {
    status: body.status,
    headers: { 'content-type': 'application/problem+json', 'cache-control': 'no-store', ...headers },
  });

export function problemResponse(error: TabreelError, headers: Record<string, string> = {}): Response {
  const { blame, retryable, status = 500, title } = error.kind;
  const body: Problem = { type: 'about:blank', title, status, detail: short(error.message, DETAIL_AT_MOST), code: error.code, blame, retryable };
  if (error.issues.length > 0) body.errors = error.issues.slice(0, ISSUES_AT_MOST).map(({ path, message }) => ({ path: short(path, PATH_AT_MOST), message: short(message, DETAIL_AT_MOST) }));
  if (error instanceof OriginError) {
    body.remedy = error.remedy;
    body.steps = error.explain();
  }
  const retryAfter = error.code === 'redis_unavailable' ? 1 : error.retryAfter;
  return answer(body, {
    ...(retryAfter === null ? {} : { 'retry-after': String(retryAfter) }),
    // RFC 9110, 15.5.2: a 401 says how to authenticate
    ...(error.code === 'unauthorized' ? { 'www-authenticate': 'Bearer realm="tabreel"' } : {}),
    ...headers,
  });
}

/** 405 has no error code of a recording: it is the path that is right and the method that is not. */
export function methodProblem(method: string, allowed: readonly string[]): Response {
  const { blame, retryable } = errorKinds.not_found;
  return answer(
    {
      type: 'about:blank',
      title: 'The method is not allowed here',
      status: 405,
      detail: `${method} is not one of ${allowed.join(', ')}`,
      code: 'method_not_allowed',
      blame,
      retryable,
    },
    { allow: allowed.join(', ') },
  );
}

/** Names of what ioredis and the sockets under it throw while Redis can't be reached, or is not itself yet. */
const redisAway =
  /ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|Connection is closed|Command timed out|connect ETIMEDOUT|max retries per request|Stream isn't writeable|^(LOADING|MASTERDOWN|READONLY|CLUSTERDOWN|BUSY|OOM|MISCONF|TRYAGAIN) /i;

/** Whatever a handler threw: an error of ours as it is, one of Redis as `redis_unavailable`, another as `internal`. */
export function toTabreelError(error: unknown): TabreelError {
  if (error instanceof TabreelError) return error;
  const { name = '', message = '', code = '' } = (error ?? {}) as { name?: string; message?: string; code?: string };
  if (isRefusal(message)) return new TabreelError('redis_unavailable', 'Redis refuses this service; why is in its log', { cause: error });
  if (name === 'MaxRetriesPerRequestError' || name === 'AbortError' || redisAway.test(message) || redisAway.test(code)) {
    return new TabreelError('redis_unavailable', 'Redis does not answer; try again shortly', { cause: error });
  }
  return new TabreelError('internal', 'the request failed for a reason that is in the log', { cause: error });
}
