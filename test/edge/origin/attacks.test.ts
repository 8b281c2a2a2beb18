/** What a client can send to be told, or to make a worker dial, another origin than it came to. */
import { describe, expect, test } from 'vitest';
import { INGRESS, STRANGER, factsOf, media, origin, policyOf, refusal, type Request } from './helper.ts';
import { resolveOrigin } from '../../../edge/origin/resolve.ts';
import type { OriginSettings } from '../../../edge/origin/policy.ts';

/** What an ingress that does its work adds to, or puts in place of, what the client sent. */
const REAL = 'Host: rec.example.com\nX-Forwarded-For: 198.51.100.7\nX-Forwarded-Proto: https\nX-Forwarded-Host: rec.example.com';
const GOOD = 'wss://rec.example.com';

const attacks: [name: string, headers: string, expected: string, request?: Request, settings?: Partial<OriginSettings>][] = [
  // straight to the edge
  ['spoofed headers from an untrusted peer', 'Host: rec.example.com\nX-Forwarded-Host: evil.example\nX-Forwarded-Proto: http', GOOD, { from: STRANGER, tls: true }],
  ['a trusted address in X-Forwarded-For of an untrusted peer', 'Host: rec.example.com\nX-Forwarded-For: 127.0.0.1\nX-Forwarded-Host: evil.example', GOOD, { from: STRANGER, tls: true }],
  ['an address that only looks trusted', 'Host: rec.example.com\nX-Forwarded-Host: evil.example', GOOD, { from: '10.0.0.1.evil', tls: true }],
  ['no address at all', 'Host: rec.example.com\nX-Forwarded-Host: evil.example', GOOD, { from: null, tls: true }],
  // through a proxy that adds to lists
  ['leftmost values of the client’s', `Host: rec.example.com\nX-Forwarded-For: 127.0.0.1, 198.51.100.7\nX-Forwarded-Proto: http, https\nX-Forwarded-Host: evil.example, rec.example.com`, GOOD],
  ['leftmost values in lines of their own', `X-Forwarded-For: 127.0.0.1\nX-Forwarded-Proto: http\nX-Forwarded-Host: evil.example\n${REAL}`, GOOD],
  ['leftmost values with odd commas', `Host: rec.example.com\nX-Forwarded-For: ,,127.0.0.1,, 198.51.100.7\nX-Forwarded-Proto: ,http,,https\nX-Forwarded-Host: evil.example, ,rec.example.com`, GOOD],
  ['one list longer by a client’s value', `X-Forwarded-Proto: http\n${REAL}`, 'origin_lists_unequal'],
  ['one host more than addresses', `X-Forwarded-Host: evil.example\n${REAL}`, 'origin_lists_unequal'],
  ['one address more', `X-Forwarded-For: 127.0.0.1\n${REAL}`, GOOD],
  ['a port more', `X-Forwarded-Port: 9999\n${REAL}\nX-Forwarded-Port: 443`, 'origin_lists_unequal'],
  ['mixed case of names', 'hOST: rec.example.com\nx-FORWARDED-proto: HTTPS\nX-forwarded-HOST: REC.example.com', GOOD],
  // the other family
  ['Forwarded, which the ingress does not know', `${REAL}\nForwarded: host=evil.example;proto=https`, 'origin_conflict'],
  ['Forwarded that would take TLS away', `${REAL}\nForwarded: proto=http`, 'origin_conflict'],
  ['Forwarded with an open quote', `${REAL}\nForwarded: for="`, 'origin_forwarded_invalid'],
  ['Forwarded, an open quote around what the proxy adds', 'Host: rec.example.com\nForwarded: host=evil.example;for="\nForwarded: for=198.51.100.7;host=rec.example.com;proto=https', 'origin_forwarded_invalid'],
  ['Forwarded, an open quote on the same line', 'Host: rec.example.com\nForwarded: host=evil.example;for=", for="[2001:db8::1]";host=rec.example.com;proto=https', 'origin_forwarded_invalid'],
  ['Forwarded, a host with parameters of its own', 'Host: rec.example.com\nForwarded: for=198.51.100.7;host=evil.example;proto=http;host=rec.example.com;proto=https', 'origin_forwarded_invalid'],
  ['Forwarded, a comma in a quoted host', 'Host: rec.example.com\nForwarded: for=198.51.100.7;proto=https;host="rec.example.com,evil.example"', 'origin_host_invalid'],
  ['Forwarded, an escaped host', 'Host: rec.example.com\nForwarded: for=198.51.100.7;proto=https;host="rec.example.com\\@evil.example"', 'origin_host_invalid'],
  ['Forwarded, a semicolon in quotes', 'Host: rec.example.com\nForwarded: for="198.51.100.7;host=evil.example";proto=https', GOOD],
  ['Forwarded, elements before the client’s own', 'Host: h\nForwarded: for=127.0.0.1;host=evil.example;proto=http, for=198.51.100.7;host=rec.example.com;proto=https', GOOD],
  // names that are not read
  ['underscore twins', `${REAL}\nX_Forwarded_Proto: http\nX_FORWARDED_HOST: evil.example\nX-Forwarded_Host: evil.example`, GOOD],
  ['dot twins', `${REAL}\nX.Forwarded.Proto: http\nX.Forwarded.Host: evil.example`, GOOD],
  ['X-Original-*', `${REAL}\nX-Original-Proto: http\nX-Original-Host: evil.example\nX-Original-URL: //evil.example`, GOOD],
  ['an alias beside the main header', `${REAL}\nX-Forwarded-Ssl: off\nFront-End-Https: off\nX-Url-Scheme: http`, GOOD],
  ['a name with a blank', `${REAL}\nX-Forwarded-Host : evil.example`, GOOD],
  // the request line
  ['an absolute-form target', 'Host: rec.example.com', 'origin_target_mismatch', { from: STRANGER, target: 'http://evil.example/v1/recordings' }],
  ['an absolute-form target through a proxy', REAL, 'origin_target_mismatch', { target: 'https://evil.example/v1/recordings' }],
  ['an absolute-form target with a user', 'Host: rec.example.com', 'origin_target_mismatch', { from: STRANGER, target: 'http://rec.example.com@evil.example/' }],
  ['an absolute-form target with another port', 'Host: rec.example.com', 'origin_target_mismatch', { from: STRANGER, target: 'http://rec.example.com:9/' }],
  ['an absolute-form target that claims TLS', 'Host: rec.example.com', 'origin_target_mismatch', { from: STRANGER, target: 'https://rec.example.com/' }],
  ['an absolute-form target of another scheme', 'Host: rec.example.com', 'origin_target_mismatch', { from: STRANGER, tls: true, target: 'gopher://rec.example.com/' }],
  ['an absolute-form target without a Host', '', 'origin_target_mismatch', { from: STRANGER, target: 'http://rec.example.com/' }],
  ['a target that begins with two slashes', 'Host: rec.example.com', GOOD, { from: STRANGER, tls: true, target: '//evil.example/v1/recordings' }],
  // Host
  ['a duplicate Host', 'Host: rec.example.com\nHost: evil.example', 'origin_host_duplicate', { from: STRANGER }],
  ['a duplicate Host that agrees', 'Host: rec.example.com\nhost: rec.example.com', 'origin_host_duplicate', { from: STRANGER }],
  ['a duplicate Host behind a proxy that names another', `Host: a\n${REAL}`, 'origin_host_duplicate'],
  ['a Host joined by the runtime', 'Host: rec.example.com, evil.example', 'origin_host_invalid', { from: STRANGER }],
  ['userinfo', 'Host: rec.example.com@evil.example', 'origin_host_invalid', { from: STRANGER }],
  ['userinfo with a password', 'Host: rec.example.com:pw@evil.example', 'origin_host_invalid', { from: STRANGER }],
  ['a slash', 'Host: evil.example/rec.example.com', 'origin_host_invalid', { from: STRANGER }],
  ['a backslash', 'Host: evil.example\\rec.example.com', 'origin_host_invalid', { from: STRANGER }],
  ['a question mark', 'Host: evil.example?rec.example.com', 'origin_host_invalid', { from: STRANGER }],
  ['a fragment', 'Host: evil.example#rec.example.com', 'origin_host_invalid', { from: STRANGER }],
  ['a percent-encoded host', 'Host: evil%2eexample', 'origin_host_invalid', { from: STRANGER }],
  ['a name in Unicode', 'Host: réc.example.com', 'origin_host_invalid', { from: STRANGER }],
  ['a fullwidth dot', 'Host: evil．example', 'origin_host_invalid', { from: STRANGER }],
  ['a zone in IPv6', 'Host: [fe80::1%25eth0]', 'origin_host_invalid', { from: STRANGER }],
  ['an open bracket', 'Host: [::1', 'origin_host_invalid', { from: STRANGER }],
  ['something after the bracket', 'Host: [::1].evil.example', 'origin_host_invalid', { from: STRANGER }],
  ['two dots at the end', 'Host: rec.example.com..', 'origin_host_invalid', { from: STRANGER }],
  ['one dot at the end', 'Host: rec.example.com.', GOOD, { from: STRANGER, tls: true }, { allowedHosts: ['rec.example.com'] }],
  ['a dot alone', 'Host: .', 'origin_host_invalid', { from: STRANGER }],
  ['a loopback in other words', 'Host: 0x7f000001', 'origin_host_invalid', { from: STRANGER }],
  ['a loopback inside IPv6', 'Host: [::ffff:127.0.0.1]', 'ws://[::ffff:7f00:1]', { from: STRANGER }],
  ['a label of 64', `Host: ${'a'.repeat(64)}.example`, 'origin_host_invalid', { from: STRANGER }],
  ['a name of 254', `Host: ${'a.'.repeat(126)}aa`, 'origin_host_invalid', { from: STRANGER }],
  ['port 0', 'Host: rec.example.com:0', 'origin_port_invalid', { from: STRANGER }],
  ['port 65536', 'Host: rec.example.com:65536', 'origin_port_invalid', { from: STRANGER }],
  ['port 443,80', 'Host: rec.example.com:443,80', 'origin_port_invalid', { from: STRANGER }],
  ['a port with a sign', 'Host: rec.example.com:+443', 'origin_port_invalid', { from: STRANGER }],
  ['a port in other digits', 'Host: rec.example.com:４４３', 'origin_port_invalid', { from: STRANGER }],
  ['another port of an allowed name and port', 'Host: rec.example.com:9', 'origin_host_not_allowed', { from: STRANGER, tls: true }, { allowedHosts: ['rec.example.com:443', 'rec.example.com:8443'] }],
  // prefix
  ['a prefix that is a host', `${REAL}\nX-Forwarded-Prefix: //evil.example`, 'origin_prefix_invalid'],
  ['a prefix that goes up', `${REAL}\nX-Forwarded-Prefix: /../..`, 'origin_prefix_invalid'],
];

describe('attacks', () => {
  test.each(attacks)('%s', (_name, headers, expected, request = {}, settings = {}) => {
    expect(media(headers, request, settings)).toBe(expected);
    if (expected.startsWith('origin_')) {
      // what the operator reads of it helps him
      expect(refusal(headers, request, settings).remedy.length).toBeGreaterThan(30);
    }
  });

  test.each(['\r\n', '\n', '\r', '\u0000', '\u0085', '\u2028'])('%j in a value is refused wherever a runtime lets it through', (line) => {
    const evil = `rec.example.com${line}X-Forwarded-Host: evil.example`;
    const headers = [
      [['Host', evil]],
      [['Host', 'h'], ['X-Forwarded-Host', evil]],
      [['Host', 'h'], ['Forwarded', `proto=https;host="${evil}"`]],
      [['Host', 'h'], ['X-Forwarded-Proto', 'https'], ['X-Forwarded-Port', `443${line}9`]],
      [['Host', 'h'], ['X-Forwarded-Proto', 'https'], ['X-Forwarded-Prefix', `/a${line}b`]],
    ] as const;
    for (const each of headers) {
      let error: unknown = null;
      try {
        resolveOrigin(factsOf(each, { from: INGRESS }), policyOf());
      } catch (thrown) {
        error = thrown;
      }
      expect(error, JSON.stringify(each)).toMatchObject({ code: expect.stringMatching(/^origin_/) });
      // and it does not get into a log line or an answer
      expect(JSON.stringify((error as { explain(): unknown }).explain())).not.toMatch(/\\r|\\n|[\p{Cc}\u2028]/u);
    }
  });

  test.each([
    ['Host', 'a'.repeat(8192), 'origin_host_invalid'],
    ['X-Forwarded-Host', 'a,'.repeat(4096), 'wss://a'],
    ['X-Forwarded-Host', 'a, b,'.repeat(2000), 'origin_lists_unequal'],
    ['X-Forwarded-For', '10.0.0.1,'.repeat(900), 'wss://h'],
    ['X-Forwarded-Proto', 'https,'.repeat(1300), 'wss://h'],
    ['X-Forwarded-Port', '443,'.repeat(2000), 'wss://h'],
    ['X-Forwarded-Port', '9'.repeat(8192), 'origin_port_invalid'],
    ['X-Forwarded-Prefix', '/a'.repeat(4096), 'origin_prefix_invalid'],
    ['Forwarded', 'for=10.0.0.1,'.repeat(600), 'wss://h'],
    ['Forwarded', 'for="' + '\\"'.repeat(4096), 'origin_forwarded_invalid'],
    ['Forwarded', `${'x'.repeat(8192)}=1`, 'wss://h'],
    ['CF-Visitor', '{'.repeat(8192), 'wss://h'],
  ])('8 KB of %s is answered at once, and not repeated', (name, value, expected) => {
    const headers = `${name === 'Host' ? '' : 'Host: h\n'}${name === 'X-Forwarded-Proto' ? '' : 'X-Forwarded-Proto: https\n'}${name}: ${value}`;
    const begin = performance.now();
    for (let i = 0; i < 20; i++) expect(media(headers)).toBe(expected);
    expect(performance.now() - begin).toBeLessThan(10_000);
    if (expected.startsWith('origin_')) {
      const error = refusal(headers);
      expect(JSON.stringify([error.message, error.remedy, error.explain()]).length).toBeLessThan(1500);
    }
  });

  test('a client in the private network is as far as trust goes: what it adds to its lists counts, ALLOWED_HOSTS bounds it', () => {
    const headers = 'Host: rec.example.com\nX-Forwarded-For: 1.1.1.1, 10.0.0.66\nX-Forwarded-Proto: https, https\nX-Forwarded-Host: evil.example, rec.example.com';
    expect(origin(headers)).toBe('https://evil.example');
    expect(origin(headers, {}, { allowedHosts: ['rec.example.com'] })).toBe('origin_host_not_allowed');
  });
});
