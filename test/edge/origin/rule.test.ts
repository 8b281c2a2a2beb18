/** The rule of docs/origin.md, point by point. */
import { describe, expect, test } from 'vitest';
import { aliasNames, properName } from '../../../edge/origin/headers.ts';
import type { OriginError } from '../../../edge/origin/refusal.ts';
import { parseTrust } from '../../../edge/origin/trust.ts';
import { INGRESS, STRANGER, media, origin, policyOf, refusal, resolve } from './helper.ts';

const HTTPS = 'Host: rec.example.com\nX-Forwarded-Proto: https';

describe('1. the platform first', () => {
  const platform = { scheme: 'https', authority: 'abc.execute-api.eu-west-1.amazonaws.com', source: 'lambda', prefix: '/prod' } as const;

  test('what it says holds against every header', () => {
    const headers = 'Host: evil.example\nHost: evil.example\nX-Forwarded-Host: evil.example\nX-Forwarded-Proto: http\nForwarded: "';
    const verdict = resolve(headers, { from: null, platform });
    expect(verdict).toMatchObject({ scheme: 'https', host: platform.authority, prefix: '/prod', source: 'lambda', hops: 0, peer: null, trusted: false });
    expect(verdict.explain().map(({ use }) => use)).toEqual(['ignored', 'ignored', 'ignored', 'used']);
  });

  test('ALLOWED_HOSTS and PUBLIC_URL are above it', () => {
    expect(origin('', { platform }, { allowedHosts: ['rec.example.com'] })).toBe('origin_host_not_allowed');
    expect(origin('', { platform }, { publicUrl: 'https://rec.example.com' })).toBe('https://rec.example.com');
  });

  test('plain http of a platform is plain http', () => {
    expect(media('', { platform: { ...platform, scheme: 'http' } })).toBe('origin_insecure');
  });

  test.each([
    ['a broken authority', { ...platform, authority: 'a/b' }, 'origin_host_invalid'],
    ['a broken prefix', { ...platform, prefix: '//evil' }, 'origin_prefix_invalid'],
  ])('%s is refused, and nothing else is thrown', (_name, broken, code) => {
    expect(origin('', { platform: broken })).toBe(code);
  });

  test('a socket: Host, and a request line that agrees', () => {
    expect(origin('Host: h:8080', { from: STRANGER })).toBe('http://h:8080');
    expect(origin('Host: h:8080', { from: STRANGER, target: 'http://H:8080/v1/origin?x=//y' })).toBe('http://h:8080');
    expect(origin('Host: h', { from: STRANGER, target: 'http://h:80/' })).toBe('http://h');
    expect(origin('Host: h', { from: STRANGER, target: null })).toBe('http://h');
    expect(origin('Host: h', { from: STRANGER, target: '//evil.example/x' })).toBe('http://h');
    expect(origin(HTTPS, { target: 'http://rec.example.com/v1/origin' })).toBe('https://rec.example.com');
    expect(origin(HTTPS, { target: 'https://rec.example.com/v1/origin' })).toBe('https://rec.example.com');
  });
});

describe('2. an untrusted peer', () => {
  test.each([
    [STRANGER, false, 'http://inner:8080'],
    [STRANGER, true, 'https://inner:8080'],
    [null, true, 'https://inner:8080'],
    ['::ffff:203.0.113.9', false, 'http://inner:8080'],
  ])('%s, TLS %s: socket and Host, and no header of a proxy', (from, tls, expected) => {
    const headers = [
      'Host: inner:8080',
      'X-Forwarded-For: 10.0.0.1',
      'X-Forwarded-Proto: https',
      'X-Forwarded-Host: evil.example',
      'X-Forwarded-Port: 9',
      'X-Forwarded-Prefix: /evil',
      'Forwarded: not even "valid',
      ...aliasNames.map((name) => `${name}: https`),
    ].join('\n');
    expect(origin(headers, { from, tls })).toBe(expected);
    const verdict = resolve(headers, { from, tls });
    expect(verdict).toMatchObject({ trusted: false, hops: 0, source: 'socket', peer: from });
    expect(verdict.explain().filter(({ use }) => use === 'ignored')).toHaveLength(7 + aliasNames.length);
  });

  test('which peers those are is the operator’s word', () => {
    expect(origin(HTTPS, { from: '127.0.0.1' }, { trust: parseTrust([]) })).toBe('http://rec.example.com');
    expect(origin(HTTPS, { from: STRANGER }, { trust: parseTrust([`${STRANGER}/32`]) })).toBe('https://rec.example.com');
    expect(refusal(HTTPS, { from: STRANGER }).remedy).toMatch(/203\.0\.113\.9 sent X-Forwarded-Proto but is not in TRUSTED_PROXIES/);
  });
});

describe('3. one family', () => {
  const X = 'X-Forwarded-For: 198.51.100.7\nX-Forwarded-Proto: https\nX-Forwarded-Host: rec.example.com\nX-Forwarded-Port: 443';

  test('OpenShift’s router sends both, and they agree', () => {
    const verdict = resolve(`Host: rec.example.com\n${X}\nForwarded: for=198.51.100.7;host=rec.example.com;proto=https`);
    expect(verdict).toMatchObject({ scheme: 'https', host: 'rec.example.com', port: null, source: 'forwarded', hops: 1 });
    expect(origin(`Host: h:8443\nX-Forwarded-Proto: https\nX-Forwarded-Host: h:8443\nX-Forwarded-Port: 443\nForwarded: for=10.0.0.7;host=h:8443;proto=https`)).toBe('https://h:8443');
  });

  test('a port beside the name contradicts nothing', () => {
    expect(origin('Host: h\nX-Forwarded-Proto: https\nX-Forwarded-Host: h\nX-Forwarded-Port: 8443\nForwarded: host=h;proto=https')).toBe('https://h');
  });

  test.each([
    ['schemes', 'Forwarded: proto=http;host=rec.example.com', 'X-Forwarded-Proto: https'],
    ['schemes, the other way round', 'Forwarded: proto=https', 'X-Forwarded-Proto: http'],
    ['hosts', 'Forwarded: proto=https;host=evil.example', 'X-Forwarded-Host: rec.example.com'],
    ['ports', 'Forwarded: proto=https;host=rec.example.com', 'X-Forwarded-Host: rec.example.com:8443'],
    ['a host and the one that Host says', 'Forwarded: proto=https', 'X-Forwarded-Host: other.example'],
  ])('refuses two that disagree about %s, also where TLS would win', (_what, forwarded, x) => {
    const error = refusal(`Host: rec.example.com\n${forwarded}\n${x}`);
    expect(error.code).toBe('origin_conflict');
    expect(error.kind.status).toBe(400);
    expect(error.remedy).toContain('remove');
  });

  test('who tells the scheme is asked for the rest', () => {
    // Forwarded names the client alone, as in nginx’s own recipe
    expect(resolve(`Host: inner\nForwarded: for=198.51.100.7\n${X}`)).toMatchObject({ host: 'rec.example.com', source: 'x-forwarded' });
    expect(origin('Host: inner\nForwarded: host=rec.example.com\nX-Forwarded-Proto: https\nX-Forwarded-Host: rec.example.com')).toBe('https://rec.example.com');
    expect(origin('Host: inner\nForwarded: host=rec.example.com\nX-Forwarded-Proto: https')).toBe('origin_conflict');
    expect(origin('Host: rec.example.com\nForwarded: proto=gopher\nX-Forwarded-Proto: https')).toBe('https://rec.example.com');
  });

  test('never mixed field by field', () => {
    expect(origin('Host: rec.example.com\nForwarded: proto=https\nX-Forwarded-Port: 8443')).toBe('https://rec.example.com');
  });
});

describe('4. right to left, while addresses are trusted', () => {
  test.each([
    // [addresses, protos, hosts, expected, hops]
    ['198.51.100.7', 'https', 'a.example', 'https://a.example', 1],
    ['198.51.100.7, 10.0.0.9', 'https, http', 'a.example, inner', 'https://a.example', 2],
    ['198.51.100.7, 10.0.0.9, 192.168.1.1', 'https, http, http', 'a.example, b, c', 'https://a.example', 3],
    ['203.0.113.1, 198.51.100.7', 'http, https', 'evil.example, a.example', 'https://a.example', 1],
    ['10.0.0.1, 198.51.100.7, 10.0.0.9', 'http, https, http', 'evil.example, a.example, b', 'https://a.example', 2],
    ['10.0.0.1, 10.0.0.2', 'https, http', 'a.example, b', 'https://a.example', 2],
    ['198.51.100.7, 10.0.0.9', 'https', 'a.example', 'https://a.example', 2],
    ['evil, 198.51.100.7:4711, 10.0.0.9', 'https', 'a.example', 'https://a.example', 2],
    ['[2001:db8::1]:4711, fd00::1', 'https', 'a.example', 'https://a.example', 2],
    ['unknown, 10.0.0.9', 'https, http', 'a.example, b', 'https://a.example', 2],
    // TLS at any trusted hop is evidence, and what came before the outermost one is nobody’s word
    ['198.51.100.7, 10.0.0.9', 'http, https', 'a.example, b', 'https://a.example', 2],
    ['203.0.113.1, 198.51.100.7', 'https, http', 'evil.example, a.example', 'http://a.example', 1],
  ])('for %s, proto %s, host %s: %s', (addresses, protos, hosts, expected, hops) => {
    const headers = `Host: inner\nX-Forwarded-For: ${addresses}\nX-Forwarded-Proto: ${protos}\nX-Forwarded-Host: ${hosts}`;
    expect(origin(headers)).toBe(expected);
    expect(resolve(headers).hops).toBe(hops);
  });

  test('the same with Forwarded', () => {
    const forwarded = 'Forwarded: for=198.51.100.7;proto=https;host=a.example\nForwarded: for="[fd00::1]:80";proto=http;host=b';
    expect(resolve(`Host: inner\n${forwarded}`)).toMatchObject({ scheme: 'https', host: 'a.example', hops: 2, source: 'forwarded' });
    expect(origin('Host: h\nForwarded: for=evil;host=evil.example;proto=http, for=198.51.100.7;host=a.example;proto=https')).toBe('https://a.example');
    expect(origin('Host: h\nForwarded: for=_hidden;host=a.example;proto=https, for=unknown;host=b;proto=https')).toBe('https://b');
    // the outermost trusted hop does not say the scheme: no word of an inner one stands in for it, but for https
    expect(resolve('Host: h\nForwarded: for=198.51.100.7, for=10.0.0.9;proto=http').source).toBe('socket');
    expect(origin('Host: h\nForwarded: for=198.51.100.7, for=10.0.0.9;proto=https')).toBe('https://h');
  });

  test.each([
    ['X-Forwarded-For: 198.51.100.7\nX-Forwarded-Proto: https, http', 'X-Forwarded-Proto'],
    ['X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3\nX-Forwarded-Proto: https, http', 'X-Forwarded-Proto'],
    ['X-Forwarded-Proto: https\nX-Forwarded-Host: a, b', 'X-Forwarded-Host'],
    ['X-Forwarded-Proto: https\nX-Forwarded-Port: 8443, 9443', 'X-Forwarded-Port'],
    ['X-Forwarded-Proto: https\nX-Forwarded-Port: 443, 9443', 'X-Forwarded-Port'],
    ['X-Forwarded-Proto: https\nX-Forwarded-Port: 8443, 80', 'X-Forwarded-Port'],
  ])('lists of unequal length that differ are refused: %j', (headers, header) => {
    const error = refusal(`Host: rec.example.com\n${headers}`);
    expect(error).toMatchObject({ code: 'origin_lists_unequal', kind: { status: 421, blame: 'service' } });
    expect(error.message).toContain(header);
    expect(error.remedy).toContain(header);
  });

  test('lists of unequal length that agree are not', () => {
    expect(origin('Host: h\nX-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: https, HTTPS, wss\nX-Forwarded-Host: A.example, a.example')).toBe('https://a.example');
  });
});

describe('5. words for a scheme', () => {
  test.each([
    ['https', 'https'],
    ['HTTPS', 'https'],
    ['wss', 'https'],
    ['on', 'https'],
    ['  Https\t', 'https'],
    ['http', 'http'],
    ['ws', 'http'],
    ['OFF', 'http'],
  ])('%j is %s', (word, scheme) => {
    expect(resolve(`Host: localhost\nX-Forwarded-Proto: ${word}`)).toMatchObject({ scheme, source: 'x-forwarded' });
  });

  test.each(['gopher', 'https:', 'https/1.1', '1', 'true', 'toString', '__proto__', 'https;http', 'hhttps'])('%j is none: discarded', (word) => {
    expect(origin(`Host: localhost\nX-Forwarded-Proto: ${word}`)).toBe('origin_proto_invalid');
    expect(refusal(`Host: localhost\nX-Forwarded-Proto: ${word}`).message).toContain('X-Forwarded-Proto');
    // another that knows may speak
    expect(origin(`Host: h\nX-Forwarded-Proto: ${word}\nX-Forwarded-Ssl: on`)).toBe('https://h');
    expect(origin(`Host: h\nX-Forwarded-Proto: ${word}, https`)).toBe('https://h');
    expect(origin(`Host: h\nX-Forwarded-Proto: ${word}`, { tls: true })).toBe('https://h');
  });

  test('an empty header is none', () => {
    expect(origin('Host: localhost\nX-Forwarded-Proto: \nX-Forwarded-Host: ,\nForwarded: ,')).toBe('http://localhost');
  });
});

describe('6. aliases', () => {
  test.each([
    ['x-forwarded-protocol', 'https', 'http'],
    ['x-forwarded-scheme', 'https', 'http'],
    ['x-forwarded-ssl', 'on', 'off'],
    ['x-scheme', 'https', 'http'],
    ['x-url-scheme', 'https', 'http'],
    ['front-end-https', 'On', 'off'],
    ['cloudfront-forwarded-proto', 'https', 'http'],
    ['cf-visitor', '{"scheme":"https"}', '{"scheme":"http"}'],
    ['x-arr-ssl', '2048|256|C=US, O=Microsoft|CN=*.azurewebsites.net', ''],
    ['x-appengine-https', 'on', 'off'],
  ] as const)('%s: %s', (name, secure, insecure) => {
    expect(resolve(`Host: h\n${properName(name)}: ${secure}`)).toMatchObject({ scheme: 'https', source: name, hops: 1 });
    expect(resolve(`Host: h\n${name}: ${insecure}`).scheme).toBe('http');
    expect(origin(`Host: h\n${name}: ${secure}`, { from: STRANGER })).toBe('http://h');
    // only where the main field is absent
    expect(resolve(`Host: h\nX-Forwarded-Proto: http\n${name}: ${secure}`)).toMatchObject({ scheme: 'http', source: 'x-forwarded' });
    expect(resolve(`Host: h\nX-Forwarded-Proto: https\n${name}: ${insecure}`)).toMatchObject({ scheme: 'https', source: 'x-forwarded' });
    expect(resolve(`Host: h\nForwarded: proto=http\n${name}: ${secure}`)).toMatchObject({ scheme: 'http', source: 'forwarded' });
  });

  test('of several, https wins', () => {
    expect(resolve('Host: h\nX-Scheme: http\nX-Forwarded-Ssl: off\nFront-End-Https: on')).toMatchObject({ scheme: 'https', source: 'front-end-https' });
  });

  test.each(['{"scheme":"gopher"}', '{"scheme":', 'null', '"https"', '{"scheme":{"scheme":"https"}}', `{"x":"${'y'.repeat(300)}","scheme":"https"}`, 'https'])(
    'CF-Visitor %j says nothing',
    (value) => expect(resolve(`Host: h\nCF-Visitor: ${value}`)).toMatchObject({ scheme: 'http', source: 'socket' }),
  );

  test.each(['X_Forwarded_Proto', 'X-Forwarded_Proto', 'X.Forwarded.Proto', 'X-Original-Proto', 'X_Forwarded_Ssl', 'Front_End_Https'])('%s is ignored, and that is said', (name) => {
    const verdict = resolve(`Host: h\n${name}: https`);
    expect(verdict).toMatchObject({ scheme: 'http', source: 'socket', hops: 0 });
    expect(verdict.explain()).toContainEqual({ what: name, value: 'https', use: 'ignored', why: expect.stringContaining('any client') });
  });
});

describe('7. asymmetry', () => {
  test('a TLS socket is never http, whatever proxies say', () => {
    for (const headers of ['X-Forwarded-Proto: http', 'Forwarded: proto=http', 'X-Scheme: http', 'X-Forwarded-Proto: gopher']) {
      expect(media(`Host: h\n${headers}`, { tls: true })).toBe('wss://h');
    }
  });

  test('ws:// only to loopback, or where the operator allows it', () => {
    expect(media('Host: rec.example.com')).toBe('origin_insecure');
    expect(media('Host: rec.example.com', {}, { allowInsecureWs: true })).toBe('ws://rec.example.com');
    for (const host of ['localhost:8080', 'app.localhost', '127.0.0.1:8080', '127.9.9.9', '[::1]:8080']) {
      expect(media(`Host: ${host}`)).toBe(`ws://${host}`);
    }
    for (const host of ['localhost.example.com', '128.0.0.1', '[::2]', '0.0.0.0', 'local', '10.0.0.1']) {
      expect(media(`Host: ${host}`)).toBe('origin_insecure');
    }
  });

  test('where a header says http and another one https, there is no ws:// even where it is allowed', () => {
    const headers = 'Host: rec.example.com\nX-Forwarded-Proto: http\nCloudFront-Forwarded-Proto: https';
    const error = refusal(headers, {}, { allowInsecureWs: true });
    expect(error.code).toBe('origin_insecure');
    expect(error.remedy).toContain('CloudFront-Forwarded-Proto says https');
  });

  test.each([
    ['Host: h', INGRESS, /X-Forwarded-Proto: https/],
    ['Host: h', STRANGER, /TRUSTED_PROXIES.*X-Forwarded-Proto/],
    ['Host: h\nForwarded: proto=https', STRANGER, /203\.0\.113\.9 sent Forwarded but is not in TRUSTED_PROXIES/],
    ['Host: h\nX-Forwarded-Proto: http', INGRESS, /X-Forwarded-Proto says http/],
    ['Host: h\nX-Forwarded-For: 198.51.100.7, 203.0.113.80\nX-Forwarded-Proto: https, http', INGRESS, /203\.0\.113\.80.*TRUSTED_PROXIES/],
  ])('%j from %s: the operator is told what is missing', (headers, from, remedy) => {
    const error = refusal(headers, { from });
    expect(error).toMatchObject({ code: 'origin_insecure', kind: { status: 421, blame: 'service' } });
    expect(error.remedy).toMatch(remedy);
    expect(error.remedy).toMatch(/PUBLIC_URL.*ALLOW_INSECURE_WS/);
  });
});

describe('8. the host', () => {
  test.each([
    ['Rec.Example.COM', 'rec.example.com'],
    ['rec.example.com.', 'rec.example.com'],
    ['rec.example.com.:8443', 'rec.example.com:8443'],
    ['my_service:8080', 'my_service:8080'],
    ['xn--bcher-kva.example', 'xn--bcher-kva.example'],
    ['192.0.2.1:8443', '192.0.2.1:8443'],
    ['[2001:DB8::1]:8443', '[2001:db8::1]:8443'],
    ['[2001:db8:0:0:0:0:0:1]', '[2001:db8::1]'],
    ['a'.repeat(63) + '.example', 'a'.repeat(63) + '.example'],
  ])('%s is %s', (host, expected) => {
    expect(origin(`Host: ${host}\nX-Forwarded-Proto: https`)).toBe(`https://${expected}`);
    expect(origin(`Host: inner\nX-Forwarded-Host: ${host}\nX-Forwarded-Proto: https`)).toBe(`https://${expected}`);
    expect(origin(`Host: inner\nForwarded: proto=https;host="${host}"`)).toBe(`https://${expected}`);
  });

  test('a missing one is refused', () => {
    expect(origin('X-Forwarded-Proto: https')).toBe('origin_host_missing');
    expect(origin('Host: ', { from: STRANGER })).toBe('origin_host_missing');
    expect(origin('X-Forwarded-Proto: https\nX-Forwarded-Host: h')).toBe('https://h');
  });

  describe('ALLOWED_HOSTS', () => {
    test.each([
      ['rec.example.com', ['rec.example.com'], true],
      ['REC.example.com.', ['rec.example.com'], true],
      ['rec.example.com:8443', ['rec.example.com'], true],
      ['rec.example.com', ['Rec.Example.Com'], true],
      ['rec.example.com:8443', ['rec.example.com:8443'], true],
      ['rec.example.com:9443', ['rec.example.com:8443'], false],
      ['rec.example.com', ['rec.example.com:8443'], false],
      ['a.example.com', ['*.example.com'], true],
      ['a.b.example.com', ['*.example.com'], true],
      ['example.com', ['*.example.com'], false],
      ['evilexample.com', ['*.example.com'], false],
      ['rec.example.com.evil.example', ['rec.example.com', '*.example.com'], false],
      ['[2001:db8::1]:8443', ['[2001:DB8:0::1]'], true],
      ['anything', ['*'], true],
      ['anything', [], false],
    ])('%s with %j: %s', (host, allowedHosts, allowed) => {
      expect(origin(`Host: ${host}\nX-Forwarded-Proto: https`, {}, { allowedHosts })).toMatch(allowed ? /^https:/ : /^origin_host_not_allowed$/);
    });

    test('a refusal tells the operator what to add, and the caller nothing of the list', () => {
      const error = refusal('Host: other.example\nX-Forwarded-Proto: https', {}, { allowedHosts: ['secret-name.example'] });
      expect(error.remedy).toContain('add other.example to ALLOWED_HOSTS');
      expect(JSON.stringify([error.message, error.remedy, error.explain()])).not.toContain('secret-name');
    });

    test.each(['a/b', 'https://a', 'a:0', '*.', '*.a:80', '*a', ''])('%j stops the process by name', (item) => {
      expect(() => policyOf({ allowedHosts: [item] })).toThrow(`ALLOWED_HOSTS: ${JSON.stringify(item)}`);
    });
  });
});

describe('9. the port', () => {
  test.each([
    ['https', 'h', null, 'https://h'],
    ['https', 'h', '443', 'https://h'],
    ['https', 'h', '8443', 'https://h:8443'],
    ['https', 'h:8443', '443', 'https://h:8443'],
    ['https', 'h:8443', 'nonsense', 'https://h:8443'],
    ['https', 'h:443', null, 'https://h'],
    ['https', 'h:80', null, 'https://h'],
    ['https', 'h:80', '8443', 'https://h'],
    ['https', 'h', '80', 'https://h'],
    ['http', 'h', '443', 'http://h'],
    ['http', 'h:443', null, 'http://h'],
    ['http', 'h:80', null, 'http://h'],
    ['http', 'h', '8080', 'http://h:8080'],
    ['https', 'h', '1', 'https://h:1'],
    ['https', 'h', '65535', 'https://h:65535'],
    ['https', 'h', '0', 'origin_port_invalid'],
    ['https', 'h', '65536', 'origin_port_invalid'],
    ['https', 'h', '443;80', 'origin_port_invalid'],
    ['https', 'h', '-1', 'origin_port_invalid'],
    ['https', 'h', '0x1bb', 'origin_port_invalid'],
    ['https', 'h', '99999999999999999999', 'origin_port_invalid'],
    ['https', 'h:0', null, 'origin_port_invalid'],
    ['https', 'h:65536', null, 'origin_port_invalid'],
    ['https', 'h:', null, 'origin_port_invalid'],
  ])('%s, %s, X-Forwarded-Port %s: %s', (scheme, host, port, expected) => {
    expect(origin(`Host: ${host}\nX-Forwarded-Proto: ${scheme}${port === null ? '' : `\nX-Forwarded-Port: ${port}`}`)).toBe(expected);
  });

  test('of the same hop where the lists are equal', () => {
    const headers = 'Host: h\nX-Forwarded-For: 198.51.100.7, 10.0.0.9\nX-Forwarded-Proto: https, http\nX-Forwarded-Port: 8443, 5080';
    expect(origin(headers)).toBe('https://h:8443');
  });
});

describe('10. the prefix', () => {
  test.each([
    ['/tab', '/tab'],
    ['/tab/reel/', '/tab/reel'],
    ['/', ''],
    ['/a, /a', '/a'],
    ["/~u/a-b_c.d!$&'()*+;=:@e", "/~u/a-b_c.d!$&'()*+;=:@e"],
  ])('%j goes before the path', (value, prefix) => {
    expect(media(`${HTTPS}\nX-Forwarded-Prefix: ${value}`)).toBe(`wss://rec.example.com${prefix}`);
    expect(resolve(`${HTTPS}\nX-Forwarded-Prefix: ${value}`, { from: STRANGER }).prefix).toBe('');
  });

  test.each(['tab', '//evil.example', '/a//b', '/../x', '/a/..', '/./a', '/%2e%2e/', '/a?b', '/a#b', '/a b', '\\a', '/a, /b', `/${'a'.repeat(300)}`, 'https://evil.example/'])(
    '%j is refused',
    (value) => expect(origin(`${HTTPS}\nX-Forwarded-Prefix: ${value}`)).toBe('origin_prefix_invalid'),
  );
});

describe('11. MEDIA_URL', () => {
  const mediaUrl = 'wss://media.example.com:9443/in';
  test.each(['Host: rec.example.com', 'Host: localhost:8080', HTTPS])('%j: media goes there, links go where the caller came from', (headers) => {
    expect(media(headers, {}, { mediaUrl })).toBe(mediaUrl);
    expect(origin(headers, {}, { mediaUrl })).toBe(origin(headers));
  });

  test('an origin that can not be told is refused all the same', () => {
    expect(media('Host: a@b', {}, { mediaUrl })).toBe('origin_host_invalid');
  });
});

describe('12. overrides', () => {
  test('PUBLIC_URL is the whole origin, whatever the request says', () => {
    const publicUrl = 'https://rec.example.com:8443/tab/reel';
    for (const headers of ['', 'Host: a@b\nHost: c', 'Host: evil.example\nX-Forwarded-Host: evil.example\nForwarded: "']) {
      const verdict = resolve(headers, { target: 'http://evil.example/' }, { publicUrl, allowedHosts: ['other.example'] });
      expect(verdict).toMatchObject({ scheme: 'https', host: 'rec.example.com', port: 8443, prefix: '/tab/reel', source: 'PUBLIC_URL', hops: 0 });
      expect(media(headers, {}, { publicUrl })).toBe('wss://rec.example.com:8443/tab/reel');
    }
    expect(origin('', {}, { publicUrl: 'https://h:443/' })).toBe('https://h');
    expect(media('', {}, { publicUrl: 'http://h' })).toBe('origin_insecure');
    expect(media('', {}, { publicUrl: 'http://h', allowInsecureWs: true })).toBe('ws://h');
  });

  test('WS_SCHEME', () => {
    expect(media('Host: rec.example.com:8443', {}, { wsScheme: 'wss' })).toBe('wss://rec.example.com:8443');
    expect(origin('Host: rec.example.com', {}, { wsScheme: 'wss' })).toBe('http://rec.example.com');
    expect(media(HTTPS, {}, { wsScheme: 'ws' })).toBe('origin_insecure');
    expect(media(HTTPS, {}, { wsScheme: 'ws', allowInsecureWs: true })).toBe('ws://rec.example.com');
    expect(media('Host: localhost', {}, { wsScheme: 'ws' })).toBe('ws://localhost');
  });
});

describe('13. the round trip', () => {
  test.each(['127.1', '2130706433', '0x7f.0.0.1', '0177.0.0.1', '1.2.3.4.5', '1.2.3.256', 'a.0x1', 'xn--a-ä'])('%s would be dialled as another host, or as none', (host) => {
    expect(origin(`Host: ${host}\nX-Forwarded-Proto: https`)).toBe('origin_host_invalid');
  });
});

describe('14. where it came from', () => {
  test('steps tell of each forwarding header, and of what decided', () => {
    const verdict = resolve(
      [
        'Host: inner:5080',
        'X-Forwarded-For: 198.51.100.7, 10.0.0.9',
        'X-Forwarded-Proto: https',
        'X-Forwarded-Host: rec.example.com',
        'X-Forwarded-Port: 80',
        'X-Forwarded-Prefix: /p',
        'X-Forwarded-Ssl: off',
        'X_Forwarded_Proto: http',
        'Accept: */*',
      ].join('\n'),
    );
    expect(verdict.explain().map(({ what, value, use }) => `${use} ${what}: ${value}`)).toEqual([
      'used peer: 10.1.2.3',
      'ignored X_Forwarded_Proto: http',
      'used X-Forwarded-For: 198.51.100.7, 10.0.0.9',
      'used X-Forwarded-Proto: https',
      'ignored X-Forwarded-Ssl: off',
      'used X-Forwarded-Host: rec.example.com',
      'ignored X-Forwarded-Port: 80',
      'used X-Forwarded-Prefix: /p',
    ]);
  });

  test('nor where a quote that is left open in Forwarded takes it in', () => {
    for (const name of ['for', 'host', 'proto']) {
      const header = `Host: rec.example.com\nForwarded: ${name}="a;secret=hunter2, ${name}="`;
      let told: unknown;
      try {
        told = resolve(header).explain();
      } catch (error) {
        const { message, remedy, explain } = error as OriginError;
        told = [message, remedy, explain()];
      }
      expect(JSON.stringify(told)).not.toContain('hunter2');
    }
  });

  test('what is repeated is short, printable and without credentials', () => {
    const error = refusal(`Host: user:pa55word@h\nForwarded: secret=hunter2;for="${'x'.repeat(5000)}";proto=https`);
    const said = JSON.stringify([error.message, error.remedy, error.explain()]);
    expect(said).not.toMatch(/pa55word|hunter2/);
    expect(said.length).toBeLessThan(2000);
    const { explain } = resolve('Host: h\nX-ARR-SSL: 2048|256|C=US|CN=someone\nForwarded: proto=https;secret=hunter2;by=_key');
    expect(JSON.stringify(explain())).not.toMatch(/someone|hunter2|_key/);
  });
});
