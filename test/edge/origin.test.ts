import { describe, expect, test } from 'vitest';
import type { Peer } from '../../edge/origin/facts.ts';
import { mediaBase, resolveOrigin } from '../../edge/origin/resolve.ts';
import { isTrusted, parseTrust } from '../../edge/origin/trust.ts';
import { ConfigError } from '../../shared/config.ts';
import { toHttpUrl, toWebSocketUrl } from '../../shared/origin.ts';

const trust = parseTrust(['loopback', 'private']);
const proxy: Peer = { address: '::ffff:10.1.2.3', encrypted: false };
const stranger: Peer = { address: '203.0.113.9', encrypted: false };
const resolve = (headers: Record<string, string>, peer = proxy, publicUrl: string | null = null) =>
  resolveOrigin({ peer, headers: Object.entries(headers), target: null, platform: null }, { publicUrl, trust });

describe('the origin of a request', () => {
  test.each([
    ['host alone', { host: 'rec.example.com' }, 'ws://rec.example.com'],
    ['host with a port', { host: 'localhost:8080' }, 'ws://localhost:8080'],
    ['an ingress that ends TLS', { host: 'pod:8080', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'rec.example.com' }, 'wss://rec.example.com'],
    ['Traefik on upgrades', { host: 'rec.example.com', 'x-forwarded-proto': 'wss' }, 'wss://rec.example.com'],
    ['upper case', { host: 'Rec.Example.com', 'x-forwarded-proto': 'HTTPS' }, 'wss://rec.example.com'],
    ['agreeing proxies', { host: 'rec.example.com', 'x-forwarded-proto': 'https,https' }, 'wss://rec.example.com'],
    ['a port of its own', { host: 'h', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'h:5443', 'x-forwarded-port': '5080' }, 'wss://h:5443'],
    ['a port beside the name', { host: 'h', 'x-forwarded-proto': 'https', 'x-forwarded-port': '5443' }, 'wss://h:5443'],
    ["a proxy's inner port", { host: 'h', 'x-forwarded-proto': 'https', 'x-forwarded-port': '80' }, 'wss://h'],
    ['an IPv6 address', { host: '[2001:db8::1]:8443', 'x-forwarded-proto': 'https' }, 'wss://[2001:db8::1]:8443'],
  ])('%s', (_name, headers, expected) => {
    expect(toWebSocketUrl(resolve(headers))).toBe(expected);
  });

  test('a stranger can not choose it', () => {
    const headers = { host: 'rec.example.com', 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https' };
    expect(toHttpUrl(resolve(headers, stranger))).toBe('http://rec.example.com');
  });

  test('a TLS socket is https', () => {
    expect(toWebSocketUrl(resolve({ host: 'h' }, { address: '203.0.113.9', encrypted: true }))).toBe('wss://h');
  });

  test('PUBLIC_URL wins, with its prefix', () => {
    const origin = resolve({ host: 'inner' }, stranger, 'https://rec.example.com:8443/tab/reel');
    expect(toWebSocketUrl(origin)).toBe('wss://rec.example.com:8443/tab/reel');
    expect(origin.source).toBe('PUBLIC_URL');
  });

  test.each([
    ['no host', {}, 'Host'],
    ['a user name', { host: 'a@b' }, 'Host'],
    ['a path', { host: 'a/b' }, 'Host'],
    ['a name that is too long', { host: 'a'.repeat(15_000) }, 'Host'],
    ['port 0', { host: 'a:0' }, 'Host'],
    ['a port out of range', { host: 'a:70000' }, 'Host'],
    ['hosts that differ', { host: 'a', 'x-forwarded-host': 'b, c' }, 'x-forwarded-host'],
    ['schemes that differ', { host: 'a', 'x-forwarded-proto': 'https, http' }, 'x-forwarded-proto'],
    ['an unknown scheme', { host: 'a', 'x-forwarded-proto': 'gopher' }, 'X-Forwarded-Proto'],
    ['ports that make no sense', { host: 'a', 'x-forwarded-port': '443;80' }, 'X-Forwarded-Port'],
  ])('refuses %s and names the header', (_name, headers, header) => {
    expect(() => resolve(headers as Record<string, string>)).toThrow(header);
  });

  test('media never goes over ws to another machine by accident', () => {
    const plain = resolve({ host: 'rec.example.com' });
    expect(() => mediaBase(plain, { mediaUrl: null, allowInsecureWs: false })).toThrow(/X-Forwarded-Proto/);
    expect(mediaBase(plain, { mediaUrl: null, allowInsecureWs: true })).toBe('ws://rec.example.com');
    expect(mediaBase(plain, { mediaUrl: 'wss://media.example.com', allowInsecureWs: false })).toBe('wss://media.example.com');
    expect(mediaBase(resolve({ host: '127.0.0.1:8080' }), { mediaUrl: null, allowInsecureWs: false })).toBe('ws://127.0.0.1:8080');
  });
});

describe('trusted peers', () => {
  test.each([
    ['127.0.0.1', true],
    ['::1', true],
    ['::ffff:127.9.9.9', true],
    ['192.168.3.4', true],
    ['172.32.0.1', false],
    ['fd12::1', true],
    ['fe80::1%eth0', true],
    ['2001:db8::1', false],
    ['8.8.8.8', false],
    ['not an address', false],
    [null, false],
  ])('%s: %s', (address, trusted) => {
    expect(isTrusted(trust, address)).toBe(trusted);
  });

  test('CIDRs and single addresses', () => {
    const own = parseTrust(['203.0.113.0/24', '2001:db8::/32', '198.51.100.7']);
    expect(isTrusted(own, '203.0.113.200')).toBe(true);
    expect(isTrusted(own, '203.0.114.1')).toBe(false);
    expect(isTrusted(own, '2001:db8:ffff::1')).toBe(true);
    expect(isTrusted(own, '198.51.100.7')).toBe(true);
    expect(isTrusted(own, '198.51.100.8')).toBe(false);
    expect(() => parseTrust(['10.0.0.0/33'])).toThrow(ConfigError);
    expect(() => parseTrust(['proxy.local'])).toThrow(/proxy\.local/);
  });
});
