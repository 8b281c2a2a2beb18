/** What a caller is told of a page that can't be had, as a browser and our proxy see it. */
import type { Page } from 'puppeteer-core';
import { describe, expect, test } from 'vitest';
import { recordingRequest, type RecordingSpec } from '../../../shared/recording.ts';
import { openPage } from '../../../worker/browser/page.ts';
import { PROXY_ERROR_HEADER } from '../../../worker/outbound/proxy.ts';

/** A page that comes to this on its way to its URL. */
const pageOf = (response: () => { status: number; headers?: Record<string, string> }): Page =>
  ({
    on: () => undefined,
    once: () => undefined,
    createCDPSession: async () => ({ on: () => undefined, send: async () => ({}) }),
    evaluateOnNewDocument: async () => undefined,
    goto: async () => {
      const { status, headers = {} } = response();
      return { status: () => status, statusText: () => '', headers: () => headers, url: () => 'https://meet.example.com/room?token=secret' };
    },
  }) as unknown as Page;

const open = (page: Page, failures: ReadonlyMap<string, string> = new Map()) => {
  const spec = { ...recordingRequest.parse({ url: 'https://meet.example.com/room?token=secret' }), webrtc: 'proxied' } as RecordingSpec;
  return openPage(page, spec, { headers: {}, cookies: [] }, { failures }, new AbortController().signal);
};

describe('a page that answers with an error', () => {
  test.each([400, 401, 403, 404, 410])('%i is not worth a retry', async (status) => {
    const error = { code: 'target_http_status', kind: { blame: 'target', retryable: false }, message: `https://meet.example.com/room answered ${status}` };
    await expect(open(pageOf(() => ({ status })))).rejects.toMatchObject(error);
  });
  test.each([408, 425, 429, 500, 502, 503, 504])('%i is', async (status) => {
    await expect(open(pageOf(() => ({ status })))).rejects.toMatchObject({ code: 'target_http_unavailable', kind: { blame: 'target', retryable: true } });
  });
});

describe('a host name', () => {
  const failing = (code: string): Page =>
    pageOf(() => {
      throw Object.assign(new Error('net::ERR_TUNNEL_CONNECTION_FAILED'), { code });
    });
  test.each([
    ['that does not exist', 'ENOTFOUND', 'target_dns', false],
    ['whose name server does not answer', 'EAI_AGAIN', 'target_dns_temporary', true],
    ['where nothing listens', 'ECONNREFUSED', 'target_unreachable', true],
  ])('%s: through a tunnel, and in plain http', async (_what, code, expected, retryable) => {
    const error = { code: expected, kind: { retryable } };
    await expect(open(failing(code), new Map([['meet.example.com:443', code]]))).rejects.toMatchObject(error);
    await expect(open(pageOf(() => ({ status: 502, headers: { [PROXY_ERROR_HEADER]: code } })))).rejects.toMatchObject(error);
  });
});

test('a load that is broken off once is begun again, as where the document’s process died; a second time it is a download', async () => {
  let loads = 0;
  const abortedFor = (times: number) =>
    pageOf(() => {
      loads += 1;
      if (loads <= times) throw new Error('net::ERR_ABORTED at https://meet.example.com/room');
      return { status: 200 };
    });
  await open(abortedFor(1));
  expect(loads).toBe(2);
  loads = 0;
  await expect(open(abortedFor(9))).rejects.toMatchObject({ code: 'target_not_a_page', kind: { retryable: false } });
  expect(loads).toBe(2);
});
