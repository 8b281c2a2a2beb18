import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** A request that the pages' server got. */
export interface SeenRequest {
  /** The HTTP method, upper case. */
  readonly method: string;
  /** Path and query, as sent. */
  readonly url: string;
  /** The headers, their names in lower case. */
  readonly headers: IncomingHttpHeaders;
}

/** What a page opened with `?report=1` says every 250 ms, and once more when it is left. */
export interface PageReport {
  /** Random, new for each load of a page. */
  readonly pageId: string;
  /** Frames the page has drawn since its load. */
  readonly counter: number;
  /** The page's performance.now(), in ms. */
  readonly now: number;
  /** The same moment in ms since 1970, comparable to `Date.now()` here. */
  readonly wallClock: number;
}

/** Options of `startPages`. */
export interface PagesOptions {
  /** TCP port on 127.0.0.1; 0, the default, for any free one. */
  readonly port?: number;
  /** Headers that every answer gets, such as `content-security-policy` or `access-control-allow-origin`. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** A running server of test pages: one origin. Start a second one for cross-origin tests. */
export interface Pages {
  /** The TCP port on 127.0.0.1. */
  readonly port: number;
  /** Scheme, host and port, without a slash at the end. */
  readonly origin: string;
  /** Every request so far, oldest first, but for the pages' own reports. */
  readonly requests: readonly SeenRequest[];
  /** What pages with `?report=1` said so far, oldest first. */
  readonly reports: readonly PageReport[];
  /** The absolute URL of a path such as `/animated.html?report=1`. */
  url(path: string): string;
  /**
   * How many frames a page itself drew between two moments (ms since 1970), from its reports, interpolated between
   * two of them. `pageId` defaults to the page that reported last. Null where its reports do not span both moments.
   */
  framesDrawn(from: number, to: number, pageId?: string): number | null;
  /** Ends the server and every connection to it. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const FIXTURES = fileURLToPath(new URL('../fixtures/', import.meta.url));

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.webm': 'video/webm',
};

/**
 * Serves the test pages: `/<name>.html`, `/media/<file>` (with ranges), and
 * `/never` (a page whose body never ends), `/status/<code>` (an HTML page with that status), `/slow?ms=<delay>`
 * (a page that comes late), `/headers` (a page that shows the headers it was asked with),
 * `/redirect?to=<URL>` (302).
 */
export async function startPages(options: PagesOptions = {}): Promise<Pages> {
  const requests: SeenRequest[] = [];
  const reports: PageReport[] = [];

  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://127.0.0.1');
    for (const [name, value] of Object.entries(options.headers ?? {})) response.setHeader(name, value);
    if (url.pathname === '/report') {
      reports.push(parseReport(url.searchParams));
      response.writeHead(204).end();
      return;
    }
    requests.push({ method: request.method ?? 'GET', url: request.url ?? '/', headers: request.headers });
    answer(url, request, response).catch((error: unknown) => {
      if (response.headersSent) response.destroy();
      else sendPage(response, 500, 'Error', String(error));
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  const origin = `http://127.0.0.1:${port}`;

  const close = async (): Promise<void> => {
    if (!server.listening) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    // /never and a browser's idle connections would hold the server open.
    server.closeAllConnections();
    await closed;
  };
  return {
    port,
    origin,
    requests,
    reports,
    url: (path) => new URL(path, origin).href,
    framesDrawn: (from, to, pageId = reports.at(-1)?.pageId) => {
      const own = reports.filter((report) => report.pageId === pageId);
      const start = counterAt(own, from);
      const end = counterAt(own, to);
      return start === null || end === null ? null : end - start;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function answer(url: URL, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [, first = '', second = ''] = url.pathname.split('/');
  switch (first) {
    case 'never':
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
      response.write('<!doctype html><title>Never</title><h1>This page never ends loading</h1>\n');
      return;
    case 'status':
      return sendPage(response, Number(second), `Status ${second}`, `This page came with status ${second}.`);
    case 'slow': {
      const delay = Number(url.searchParams.get('ms') ?? 1000);
      await sleep(delay, undefined, { ref: false });
      return sendPage(response, 200, 'Slow', `This page came after ${delay} ms.`);
    }
    case 'headers':
      return sendPage(response, 200, 'Headers', JSON.stringify(request.headers, null, 2));
    case 'redirect':
      response.writeHead(302, { location: url.searchParams.get('to') ?? '/static.html' }).end();
      return;
    default:
      return sendFile(url.pathname, request, response);
  }
}

async function sendFile(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  // URL parsing has resolved dots; normalize guards against encoded ones.
  const clean = normalize(decodeURIComponent(path));
  const file = join(FIXTURES, clean.startsWith('/media/') ? clean : join('pages', clean));
  const found = await stat(file).catch(() => null);
  if (!found?.isFile()) return sendPage(response, 404, 'Not found', `There is no ${path}.`);

  const range = parseRange(request.headers.range, found.size);
  response.setHeader('content-type', CONTENT_TYPES[extname(file)] ?? 'application/octet-stream');
  response.setHeader('accept-ranges', 'bytes');
  if (range === 'unsatisfiable') {
    response.writeHead(416, { 'content-range': `bytes */${found.size}` }).end();
    return;
  }
  const { start, end } = range ?? { start: 0, end: found.size - 1 };
  response.setHeader('content-length', end - start + 1);
  if (range) response.setHeader('content-range', `bytes ${start}-${end}/${found.size}`);
  response.writeHead(range ? 206 : 200);
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  const stream = createReadStream(file, { start, end });
  // A browser leaves a media answer as soon as it has enough: no error, but the file must be closed.
  response.once('close', () => stream.destroy());
  stream.on('error', () => response.destroy());
  stream.pipe(response);
}

function sendPage(response: ServerResponse, status: number, title: string, text: string): void {
  response.writeHead(status, { 'content-type': 'text/html; charset=utf-8' });
  response.end(`<!doctype html><html lang="en"><title>${escape(title)}</title><pre id="text">${escape(text)}</pre></html>\n`);
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}

function parseRange(header: string | undefined, size: number): { start: number; end: number } | 'unsatisfiable' | null {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return null;
  const suffix = match[1] === '';
  const start = suffix ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const end = suffix || match[2] === '' ? size - 1 : Math.min(size - 1, Number(match[2]));
  return start > end ? 'unsatisfiable' : { start, end };
}

function parseReport(query: URLSearchParams): PageReport {
  return {
    pageId: query.get('pageId') ?? '',
    counter: Number(query.get('counter')),
    now: Number(query.get('now')),
    wallClock: Number(query.get('wallClock')),
  };
}

function counterAt(reports: readonly PageReport[], moment: number): number | null {
  for (const [index, after] of reports.entries()) {
    if (after.wallClock < moment) continue;
    const before = reports[index - 1];
    if (!before) return after.wallClock === moment ? after.counter : null;
    const share = (moment - before.wallClock) / (after.wallClock - before.wallClock);
    return before.counter + share * (after.counter - before.counter);
  }
  return null;
}
