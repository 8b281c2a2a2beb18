/**
 * `node lambda-host.ts BUNDLE KIND...`: what stands around a Lambda function, for one that is bundled. Each kind listens on a
 * port of its own, makes the platform's event of every request and the answer of its result; one line of JSON tells the URLs.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { answerOf, eventOf, type LambdaKind, type LambdaResult } from './lambda-events.ts';

const [bundle = '', ...kinds] = process.argv.slice(2);
const { handler } = (await import(pathToFileURL(bundle).href)) as { handler(event: unknown, context: unknown): Promise<LambdaResult> };
// events and results go through JSON, as between the platform and the function's process
const throughJson = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

const urls: Record<string, string> = {};
for (const kind of kinds as LambdaKind[]) {
  const server = createServer(async (request, response) => {
    try {
      const url = new URL(request.url ?? '/', 'http://localhost');
      const headers = Object.entries(request.headersDistinct).flatMap(([name, values]) => (values ?? []).map((value): [string, string] => [name, value]));
      const event = eventOf(kind, { method: request.method ?? 'GET', path: url.pathname, query: url.search.slice(1), headers, body: await buffer(request) });
      const answer = answerOf(kind, throughJson(await handler(throughJson(event), { awsRequestId: 'id', functionName: 'tabreel' })));
      for (const [name, value] of answer.headers) response.appendHeader(name, value);
      response.writeHead(answer.status).end(request.method === 'HEAD' ? undefined : answer.body);
    } catch (error) {
      console.error(error);
      response.writeHead(502).end();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  urls[kind] = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
console.log(JSON.stringify({ urls }));
