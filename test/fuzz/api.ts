/** Requests of every kind to every route of openapi.json, and what each answer must be. */
import { Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { seeded } from '../soak/outcome.ts';
import { anyText, pick, textOf, valueFor, type Random } from './json.ts';

type Operation = {
  parameters?: { in: string; name: string; schema?: object }[];
  requestBody?: { content: Record<string, { schema: object }> };
  responses: Record<string, unknown>;
};
export type ApiTarget = {
  url: string;
  openapi: { paths: Record<string, Record<string, Operation>> };
  /** Values of Authorization: of keys that are good, one of them an admin's. */
  authorizations: readonly string[];
  /** Ids of recordings that are there. */
  ids: readonly string[];
};

export type ApiOptions = { seed: number; count: number; lanes?: number; told?: (done: number) => void };

type Case = { method: string; path: string; headers: Record<string, string>; body: string | null; route: string | null };
type Answer = { status: number; headers: IncomingHttpHeaders; text: string; took: number };

/** Milliseconds that an answer may take: of what waits for nothing. */
const PATIENCE_MS = 8000;
const methods = ['GET', 'POST', 'DELETE', 'PUT', 'PATCH', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND'];

/**
 * @returns how many answers had each status
 * @throws {Error} at the first answer that is wrong, with the request and the seed
 */
export async function fuzzApi(target: ApiTarget, { seed, count, lanes = 16, told = () => undefined }: ApiOptions): Promise<Map<string, number>> {
  const random = seeded(seed);
  const agent = new Agent({ keepAlive: true, maxSockets: lanes });
  const statuses = new Map<string, number>();
  // what comes to be takes the place of what has ended
  const ids = [...target.ids];
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) {
      const number = (next += 1);
      const one = caseOf({ ...target, ids }, random);
      const answer = await send(target.url, one, agent).catch((error: unknown) => {
        throw new Error(`case ${number} of seed ${seed}, ${shown(one)}: ${(error as Error).message}`, { cause: error });
      });
      const wrong = problemsOf(target, one, answer);
      if (wrong.length > 0) throw new Error(`case ${number} of seed ${seed}, ${shown(one)} was answered ${answer.status} ${answer.text.slice(0, 500)}: ${wrong.join('; ')}`);
      if (answer.status === 202) ids[Math.floor(random() * ids.length)] = (JSON.parse(answer.text) as { id: string }).id;
      statuses.set(String(answer.status), (statuses.get(String(answer.status)) ?? 0) + 1);
      if (number % 10_000 === 0) told(number);
    }
  };
  try {
    await Promise.all(Array.from({ length: lanes }, lane));
  } finally {
    next = count;
    agent.destroy();
  }
  return statuses;
}

const shown = ({ method, path, headers, body }: Case) => `${method} ${JSON.stringify(path.slice(0, 300))} ${JSON.stringify(headers).slice(0, 600)} ${JSON.stringify(body?.slice(0, 500) ?? null)}`;

const plain = (value: unknown): string => (typeof value === 'string' ? value : (JSON.stringify(value) ?? ''));
/** Of what a request line may hold; what it may not is for the raw requests. */
const inPath = (text: string) => encodeURIComponent(text.toWellFormed()).slice(0, 6000);
/** As browsers and attackers write it: dots and slashes stay. */
const asWritten = (text: string) => text.replace(/[^\w.~%/-]/g, (character) => encodeURIComponent(character.toWellFormed()));
const inHeader = (text: string) => text.replace(/[^\t\x20-\x7e\x80-\xff]/g, '?').slice(0, 8000);

function caseOf({ openapi, authorizations, ids }: ApiTarget, random: Random): Case {
  const [path, operations] = pick(random, Object.entries(openapi.paths));
  const [method, operation] = pick(random, Object.entries(operations));
  const segment = (name: string): string => {
    // few are deleted, so that there is something to do the rest to
    if (random() < (method === 'delete' ? 0.02 : 0.6)) return name === 'id' ? pick(random, ids) : name === 'app' ? 'LiveApp' : 'a1-0-init.mp4';
    return pick(random, [inPath, asWritten])(anyText(random)) || '-';
  };
  const filled = path.replaceAll(/\{(\w+)\}/g, (_, name: string) => segment(name));
  const query = (operation.parameters ?? []).filter((each) => each.in === 'query' && random() < 0.5).map(({ name, schema }) => `${name}=${inPath(plain(valueFor(schema, random, 0.5)))}`);
  if (random() < 0.1) query.push(`${inPath(anyText(random))}=${inPath(anyText(random))}`);
  const headers: Record<string, string> = {};
  const roll = random();
  if (roll < 0.9) headers['authorization'] = pick(random, authorizations);
  else if (roll < 0.97) headers['authorization'] = inHeader(`Bearer ${anyText(random)}`);
  const some: Record<string, () => string> = {
    'idempotency-key': () => anyText(random),
    'last-event-id': () => anyText(random),
    range: () => pick(random, ['bytes=0-', 'bytes=-1', 'bytes=5-1', 'bytes=0-0,1-1', 'items=1', `bytes=${'9'.repeat(400)}-`, anyText(random)]),
    'if-none-match': () => anyText(random),
    'x-forwarded-proto': () => pick(random, ['https', 'http', 'wss,http', anyText(random)]),
    'x-forwarded-host': () => pick(random, ['a.example', 'a.example, b.example', '[::1]:80', anyText(random)]),
    'x-forwarded-for': () => anyText(random),
    forwarded: () => pick(random, ['proto=https;host=a.example', 'for="[::1]"', anyText(random)]),
    origin: () => pick(random, ['https://a.example', 'null', anyText(random)]),
    cookie: () => anyText(random),
    accept: () => anyText(random),
    'content-encoding': () => pick(random, ['gzip', 'br', 'identity', anyText(random)]),
    'x-http-method-override': () => 'DELETE',
  };
  for (const [name, value] of Object.entries(some)) if (random() < 0.08) headers[name] = inHeader(value());
  let body: string | null = null;
  const content = operation.requestBody?.content['application/json'];
  if (content !== undefined || random() < 0.05) {
    const value = valueFor(content?.schema as never, random, pick(random, [1, 0.97, 0.7]));
    // one that is good would be waited for until it is live
    if (path.endsWith('/start') && value !== null && typeof value === 'object') Object.assign(value, { url: 'no url' });
    body = textOf(value, random);
    headers['content-type'] = random() < 0.95 ? 'application/json' : inHeader(anyText(random));
  }
  const other = random() < 0.05;
  const trailing = random() < 0.03 ? pick(random, ['/', '//', '/..', '/%2e%2e/', ';x=1', '%00']) : '';
  const isKnown = !other && trailing === '' && filled === path.replaceAll(/\{(\w+)\}/g, (_, name: string) => (name === 'id' ? (ids.find((id) => filled.includes(id)) ?? '{id}') : name === 'app' ? 'LiveApp' : 'a1-0-init.mp4'));
  return {
    method: other ? pick(random, methods) : method.toUpperCase(),
    path: `${filled}${trailing}${query.length === 0 ? '' : `?${query.join('&')}`}`,
    headers,
    body,
    route: isKnown ? path : null,
  };
}

async function send(url: string, { method, path, headers, body }: Case, agent: Agent): Promise<Answer> {
  const { hostname, port } = new URL(url);
  const began = performance.now();
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const request = httpRequest({ hostname, port, method, path, agent, headers: { ...headers, ...(body === null ? {} : { 'content-length': String(Buffer.byteLength(body)) }) } });
  const timer = setTimeout(() => request.destroy(new Error(`no answer within ${PATIENCE_MS} ms`)), PATIENCE_MS);
  let got = false;
  request.on('response', (response) => {
    got = true;
    const { statusCode: status = 0 } = response;
    let text = '';
    const done = () => resolve({ status, headers: response.headers, text, took: performance.now() - began });
    // a stream of events has no end of its own
    if (response.headers['content-type']?.startsWith('text/event-stream') === true) {
      done();
      return void request.destroy();
    }
    response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk)).on('end', done).on('error', reject);
  });
  // who was answered before all of a body that is too large was sent has had the answer
  request.on('error', (error) => (got ? undefined : reject(error)));
  request.end(body ?? undefined);
  return promise.finally(() => clearTimeout(timer));
}

function problemsOf({ openapi }: ApiTarget, { method, route, headers }: Case, { status, headers: answered, text, took }: Answer): string[] {
  const wrong: string[] = [];
  const must = (good: boolean, what: string) => void (good || wrong.push(what));
  must(status < 500, 'a status of 5xx');
  must(took < PATIENCE_MS, 'late');
  must(!/\n\s+at |node_modules|\/edge\/|\/shared\//.test(text), 'a stack, or a path of a file');
  must(answered['x-powered-by'] === undefined, 'a header that tells what this is made of');
  // of what HTTP itself has no room for, Node says so
  if (method === 'HEAD' || (status === 431 && text === '')) return wrong;
  if (status >= 400 && !/^\/[^/]+\/rest\//.test(route ?? '')) {
    must(answered['content-type'] === 'application/problem+json', `content type ${answered['content-type']}`);
    try {
      const { code, blame, retryable, status: told, title, detail } = JSON.parse(text) as Record<string, unknown>;
      must(typeof code === 'string' && typeof title === 'string' && typeof detail === 'string' && told === status && ['caller', 'target', 'service'].includes(String(blame)) && typeof retryable === 'boolean', 'a problem without its fields');
      must(String(detail).length < 4000, 'a detail without an end');
    } catch {
      wrong.push('a problem that is not JSON');
    }
  }
  const operation = route === null ? undefined : openapi.paths[route]?.[method.toLowerCase()];
  // what the way of the request is at fault for, or its length, is not each route's to tell
  if (operation !== undefined && status !== 413 && status !== 431 && Object.keys(headers).every((name) => !/^(x-)?forwarded|^origin$/.test(name))) must(operation.responses[String(status)] !== undefined, `a status that openapi.json does not have for ${method} ${route}`);
  return wrong;
}
