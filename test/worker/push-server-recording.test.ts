import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Judge } from '../../shared/outbound/policy.ts';
import { askToRecord } from '../../worker/push/server-recording.ts';
import { openTo, openToAll } from '../helpers/judges.ts';

const seen: string[] = [];
let answer: RequestListener = () => undefined;
const server = createServer((request, response) => {
  seen.push(`${request.method} ${request.url}`);
  answer(request, response);
});
const says = (status: number, body: string, headers: Record<string, string> = {}) => {
  answer = (_request, response) => response.writeHead(status, headers).end(body);
};
beforeAll(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
const at = (host = '127.0.0.1', path = '/live/websocket') => ({
  type: 'antmedia' as const,
  url: `ws://${host}:${(server.address() as AddressInfo).port}${path}`,
  streamId: 's.1',
  recordType: 'webm' as const,
});
const ask = async (push = at(), judge: Judge = openToAll) => {
  seen.length = 0;
  return askToRecord(push, { ca: null, judge, timeout: 500 }).then(() => 'records', ({ message }: Error) => message.replace(/:\d+/, ''));
};

describe('a server that is asked to record', () => {
  test('is asked beside its signalling socket', async () => {
    says(200, '{"success":true,"message":"0","dataId":"x","errorId":0}');
    expect(await ask()).toBe('records');
    expect(seen).toEqual(['PUT /live/rest/v2/broadcasts/s.1/recording/true?recordType=webm']);
  });

  test('is asked where the operator says that it is', async () => {
    says(200, '{"success":true,"message":"0","dataId":"x","errorId":0}');
    seen.length = 0;
    const push = { ...at(), url: 'wss://media.example.com/below/live/websocket' };
    await askToRecord(push, { ca: null, server: `http://127.0.0.1:${(server.address() as AddressInfo).port}/inner`, judge: openTo(() => false) });
    expect(seen).toEqual(['PUT /inner/live/rest/v2/broadcasts/s.1/recording/true?recordType=webm']);
  });

  test.each([
    [200, '{"success":false,"message":"webm recording couldn\'t be started"}', "127.0.0.1: webm recording couldn't be started"],
    [200, '<html>', '127.0.0.1 gave an answer that is not understood'],
    [200, 'x'.repeat(200_000), '127.0.0.1 answered at too great length'],
    [403, '', '127.0.0.1 answered with HTTP status 403'],
  ])('and answers %i %.20s: why it does not is told', async (status, body, message) => {
    says(status, body);
    expect(await ask()).toBe(message);
  });

  test('is not followed elsewhere', async () => {
    says(302, '', { location: '/live/other' });
    expect(await ask()).toBe('127.0.0.1 answered with HTTP status 302');
    expect(seen).toHaveLength(1);
  });

  test('is not waited for, also where it answers by drops', async () => {
    answer = () => undefined;
    expect(await ask()).toBe('127.0.0.1 did not answer within 0.5 s');
    answer = (_request, response) => {
      const timer = setInterval(() => response.write(' '), 50);
      response.on('close', () => clearInterval(timer));
    };
    expect(await ask()).toBe('127.0.0.1 did not answer within 0.5 s');
  });

  test('is not dialled at an address that it may not have, by name or not', async () => {
    expect(await ask(at(), openTo(() => false))).toBe('127.0.0.1 is a loopback address, which is not open here');
    expect(await ask(at('localhost'), openTo(() => false))).toBe('localhost is a loopback address, which is not open here');
    expect(await ask(at('127.0.0.1', '/socket'))).toContain('does not follow from /socket');
    expect(seen).toEqual([]);
  });
});
