/**
 * Each way in which services behind a proxy that ends TLS have told their clients a wrong address, by what they were sent.
 * The edge gets all of it from an ingress: plain http, on an inner port.
 */
import { describe, expect, test } from 'vitest';
import { INGRESS, STRANGER, media, origin, refusal } from './helper.ts';

describe('a service that got this wrong was sent', () => {
  test.each([
    ['HTTPS', 'X-Forwarded-Proto: HTTPS', 'wss://rec.example.com'],
    ['https,http', 'X-Forwarded-Proto: https,http', 'wss://rec.example.com'],
    ['http,https', 'X-Forwarded-Proto: http,https', 'wss://rec.example.com'],
    ['https,http with an address for each', 'X-Forwarded-For: 198.51.100.7, 10.0.0.9\nX-Forwarded-Proto: https,http', 'wss://rec.example.com'],
    ['wss', 'X-Forwarded-Proto: wss', 'wss://rec.example.com'],
    ['spaces and two lines', 'X-Forwarded-Proto:  https \nX-Forwarded-Proto: https', 'wss://rec.example.com'],
    ['a host with a port plus X-Forwarded-Port', 'X-Forwarded-Proto: https\nX-Forwarded-Host: rec.example.com:8443\nX-Forwarded-Port: 8443', 'wss://rec.example.com:8443'],
    ['a host with a port plus another X-Forwarded-Port', 'X-Forwarded-Proto: https\nX-Forwarded-Host: rec.example.com:8443\nX-Forwarded-Port: 5080', 'wss://rec.example.com:8443'],
    ['proto without a port, with an inner port 5080', 'X-Forwarded-Proto: https\nX-Forwarded-Host: rec.example.com', 'wss://rec.example.com'],
    ['443,80', 'X-Forwarded-Proto: https\nX-Forwarded-Port: 443,80', 'wss://rec.example.com'],
    ['443,80 with one address', 'X-Forwarded-For: 198.51.100.7\nX-Forwarded-Proto: https\nX-Forwarded-Port: 443,80', 'wss://rec.example.com'],
    ['8443,80 with an address for each', 'X-Forwarded-For: 198.51.100.7, 10.0.0.9\nX-Forwarded-Proto: https\nX-Forwarded-Port: 8443,80', 'wss://rec.example.com:8443'],
    ['no Forwarded', 'X-Forwarded-For: 198.51.100.7\nX-Forwarded-Proto: https\nX-Forwarded-Host: rec.example.com', 'wss://rec.example.com'],
    ['Forwarded alone', 'Forwarded: for=198.51.100.7;proto=https;host=rec.example.com', 'wss://rec.example.com'],
    ['80 beside https', 'X-Forwarded-Proto: https\nX-Forwarded-Port: 80', 'wss://rec.example.com'],
    ['an inner port 80 in the host', 'X-Forwarded-Proto: https\nX-Forwarded-Host: rec.example.com:80', 'wss://rec.example.com'],
  ])('%s', (_name, headers, expected) => {
    const inner = headers.includes('X-Forwarded-Host') || headers.includes('host=') ? 'Host: 10.9.8.7:5080' : 'Host: rec.example.com';
    expect(media(`${inner}\n${headers}`)).toBe(expected);
  });

  test('spoofed host: a client that reaches the service by itself names no other', () => {
    const spoofed = 'Host: rec.example.com\nX-Forwarded-Host: evil.example\nX-Forwarded-Proto: https\nForwarded: host=evil.example;proto=https';
    expect(origin(spoofed, { from: STRANGER })).toBe('http://rec.example.com');
    expect(origin(spoofed, { from: STRANGER, tls: true })).toBe('https://rec.example.com');
  });

  test('spoofed host: through a proxy that passes it on, ALLOWED_HOSTS keeps the credential from going there', () => {
    const passedOn = 'Host: rec.example.com\nX-Forwarded-Host: evil.example\nX-Forwarded-For: 198.51.100.7\nX-Forwarded-Proto: https';
    expect(origin(passedOn, { from: INGRESS }, { allowedHosts: ['rec.example.com'] })).toBe('origin_host_not_allowed');
    // and so where the client names itself in Host
    expect(origin('Host: evil.example\nX-Forwarded-Proto: https', {}, { allowedHosts: ['rec.example.com'] })).toBe('origin_host_not_allowed');
  });

  test('nothing of TLS: the recorder is not sent to ws://, and the operator learns which header is missing', () => {
    const { code, remedy, kind } = refusal('Host: rec.example.com\nX-Forwarded-For: 198.51.100.7');
    expect({ code, status: kind.status }).toEqual({ code: 'origin_insecure', status: 421 });
    expect(remedy).toContain('X-Forwarded-Proto: https');
  });
});
