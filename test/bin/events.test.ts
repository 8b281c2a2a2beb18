import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { readEvents, type ServerEvent } from '../../bin/events.ts';

afterEach(() => vi.unstubAllGlobals());

/** The stream of a recording, as the edge sends it. */
const text = [
  'retry: 1000\n\n',
  'event: state\ndata: {"state":"recording","at":"2030-01-01T00:00:00.000Z"}\nid: 1-0\n\n',
  ': still here\n\n',
  'event: log\ndata: {"level":"info","message":"a: b — «é日🎥»"}\nid: 2-0\n\n',
  'event: stats\ndata: {"fps":29.9}\nid: 3-0\n\n',
  'data: {"plain":true}\n\n',
].join('');
const events: ServerEvent[] = [
  { type: 'state', data: { state: 'recording', at: '2030-01-01T00:00:00.000Z' }, id: '1-0' },
  { type: 'log', data: { level: 'info', message: 'a: b — «é日🎥»' }, id: '2-0' },
  { type: 'stats', data: { fps: 29.9 }, id: '3-0' },
  { type: 'message', data: { plain: true } },
];

const arriving = (chunks: readonly Uint8Array[]) => {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  vi.stubGlobal('fetch', () => Promise.resolve(new Response(body)));
};
const all = async (url = 'http://edge/events'): Promise<ServerEvent[]> => {
  const read: ServerEvent[] = [];
  for await (const event of readEvents(url)) read.push(event);
  return read;
};

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

describe('the events of a recording', () => {
  const bytes = new TextEncoder().encode(text);

  test('are all read, wherever the network cuts them', async () => {
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      arriving([bytes.subarray(0, cut), bytes.subarray(cut)]);
      expect(await all(), `cut at ${cut}`).toEqual(events);
    }
    arriving(Array.from(bytes, (byte) => Uint8Array.of(byte)));
    expect(await all()).toEqual(events);
  });

  test('end with the stream; half an event is none', async () => {
    arriving([bytes, new TextEncoder().encode('event: state\ndata: {"state":"compl')]);
    expect(await all()).toEqual(events);
    arriving([]);
    expect(await all()).toEqual([]);
  });

  test('come as they are sent, and whoever has heard enough hangs up', async () => {
    const hungUp = Promise.withResolvers<void>();
    const url = await serve((request, response) => {
      expect(request.headers.accept).toBe('text/event-stream');
      response.on('close', hungUp.resolve);
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write(text);
    });
    for await (const event of readEvents(url)) {
      expect(event).toEqual(events[0]);
      break;
    }
    await hungUp.promise;
  });

  test('that are not there are an error with the address and the status', async () => {
    const url = await serve((_request, response) => response.writeHead(404).end('{}'));
    await expect(all(url)).rejects.toThrow(`${url} answered 404`);
  });

  test('end with the reason of who stops them', async () => {
    const stop = new AbortController();
    const url = await serve((_request, response) => void response.writeHead(200).write(text));
    const reading = (async () => {
      for await (const { type } of readEvents(url, stop.signal)) if (type === 'stats') stop.abort(new Error('enough'));
    })();
    await expect(reading).rejects.toThrow('enough');
  });
});
