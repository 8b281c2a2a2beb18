import { describe, expect, test } from 'vitest';
import { mediaUrlOf, toHttpUrl, toWebSocketUrl, type ExternalOrigin } from '../../shared/origin.ts';

const origin = (change: Partial<ExternalOrigin> = {}): ExternalOrigin => ({
  scheme: 'https',
  host: 'rec.example.com',
  port: null,
  source: 'socket',
  prefix: '',
  hops: 0,
  ...change,
});

describe('the URLs that a caller and a worker are given', () => {
  test.each<[change: Partial<ExternalOrigin>, http: string, webSocket: string]>([
    [{}, 'https://rec.example.com', 'wss://rec.example.com'],
    [{ scheme: 'http' }, 'http://rec.example.com', 'ws://rec.example.com'],
    [{ port: 8443, prefix: '/tab/reel' }, 'https://rec.example.com:8443/tab/reel', 'wss://rec.example.com:8443/tab/reel'],
    [{ scheme: 'http', host: '127.0.0.1', port: 8080 }, 'http://127.0.0.1:8080', 'ws://127.0.0.1:8080'],
    [{ host: '[2001:db8::1]', port: 8443 }, 'https://[2001:db8::1]:8443', 'wss://[2001:db8::1]:8443'],
    [{ host: 'Rec.Example.com' }, 'https://Rec.Example.com', 'wss://Rec.Example.com'],
  ])('%j', (change, http, webSocket) => {
    expect(toHttpUrl(origin(change))).toBe(http);
    expect(toWebSocketUrl(origin(change))).toBe(webSocket);
    const media = mediaUrlOf(toWebSocketUrl(origin(change)), 'rec_1');
    expect(media).toBe(`${webSocket}/v1/recordings/rec_1/media`);
    expect(URL.canParse(media)).toBe(true);
  });

  test.each(['evil.example/', 'a@evil.example', 'rec.example.com#', 'rec.example.com?', 'a\\b', 'rec.exa\tmple.com'])(
    'media is not sent elsewhere by a host like %j',
    (host) => {
      expect(() => toWebSocketUrl(origin({ host }))).toThrow(TypeError);
    },
  );
});
