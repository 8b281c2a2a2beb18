/** The JSON body of a request, and what is wrong with it. */
import type { Context } from 'hono';
import type { z } from 'zod';
import { TabreelError, type FieldIssue } from '../../shared/errors.ts';

/** @throws {TabreelError} unsupported_media_type, invalid_json or invalid_request with every field that is wrong */
export async function readBody<T extends z.ZodType>(c: Context, schema: T): Promise<z.output<T>> {
  const type = (c.req.header('content-type') ?? '').split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/json') {
    throw new TabreelError('unsupported_media_type', `the body must come with Content-Type: application/json, not ${type || 'none'}`);
  }
  const coding = c.req.header('content-encoding')?.trim().toLowerCase() ?? 'identity';
  // what unpacks to any length is no JSON of a few fields
  if (coding !== 'identity') throw new TabreelError('unsupported_media_type', `the body must come as it is, not with Content-Encoding: ${coding.slice(0, 100)}`);
  let body: unknown;
  try {
    body = await c.req.json();
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new TabreelError('invalid_json', error.message);
  }
  const parsed = schema.safeParse(body);
  if (!parsed.success) throw invalid(parsed.error.issues.flatMap(issuesOf));
  return parsed.data;
}

export const invalid = (issues: readonly FieldIssue[]): TabreelError =>
  new TabreelError('invalid_request', issues.map(({ path, message }) => (path === '' ? message : `${path}: ${message}`)).join('; '), { issues });

type ZodIssue = { code?: string; path: readonly PropertyKey[]; message: string; keys?: readonly string[] };

/** An unknown field is reported at its own path, not at its parent's. */
export function issuesOf(issue: ZodIssue): FieldIssue[] {
  const path = issue.path.map(String);
  if (issue.code === 'unrecognized_keys') {
    return (issue.keys ?? []).map((key) => ({ path: [...path, key].join('.'), message: 'there is no such field' }));
  }
  return [{ path: path.join('.'), message: issue.message }];
}
