/** The pages that are recorded: the bench's own, and the fixtures for all else. */
import { readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { startPages } from '../helpers/pages.ts';

const own = new Map(['deck.html', 'known.html', 'controller.html'].map((name) => [`/${name}`, new URL(`./pages/${name}`, import.meta.url)]));

export type BenchPages = AsyncDisposable & { url(path: string): string };

export async function startBenchPages(): Promise<BenchPages> {
  const fixtures = await startPages();
  const server = createServer((incoming, response) => {
    const file = own.get((incoming.url ?? '').split('?')[0] ?? '');
    if (file !== undefined) {
      readFile(file).then(
        (html) => response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(html),
        () => response.writeHead(500).end(),
      );
      return;
    }
    const asked = request(fixtures.url(incoming.url ?? '/'), { method: incoming.method ?? 'GET', headers: incoming.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
      // a browser leaves a media answer as soon as it has enough
      response.once('close', () => answer.destroy());
    });
    asked.on('error', () => response.destroy());
    asked.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url: (path) => new URL(path, origin).href,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
      await fixtures.close();
    },
  };
}
