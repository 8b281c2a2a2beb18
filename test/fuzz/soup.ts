/** Requests of any kind: header lines as no proxy and every attacker would send them, and any policy. */
import fc from 'fast-check';
import type { HeaderLine, PlatformOrigin, RequestFacts } from '../../edge/origin/facts.ts';
import { aliasNames } from '../../edge/origin/headers.ts';
import type { OriginSettings } from '../../edge/origin/policy.ts';
import { parseTrust } from '../../edge/origin/trust.ts';

/** Stands where a credential would; it must not come out again. */
export const SECRET = 'hunter2';

export const trustedPeers = ['127.0.0.1', '::1', '10.1.2.3', '::ffff:10.1.2.3', '192.168.0.1', 'fd00::1', '100.64.1.1'];
export const untrustedPeers = ['203.0.113.9', '2001:db8::9', '::ffff:8.8.8.8', '172.32.0.1', '', 'unix', '10.0.0.1 '];

const pick = fc.constantFrom;
const often = <T>(weight: number, arbitrary: fc.Arbitrary<T>) => ({ weight, arbitrary });

const goodHosts = ['rec.example.com', 'Rec.Example.com.', 'a.allowed.example', 'rec.example.com:8443', 'rec.example.com:80', 'evil.example', 'localhost', 'localhost:8080', 'x.localhost:81', '127.0.0.1:8080', '[::1]:8080', '[2001:db8::1]', '[2001:DB8:0:0::1]:8443', 'my_host:443', 'xn--bcher-kva.example'];
const badHosts = ['', ' ', '.', 'a..b', 'a/b', 'a\\b', `u:${SECRET}@evil.example`, '@', 'rec.example.com:0', 'rec.example.com:65536', 'rec.example.com:443,80', 'rec.example.com:', ':80', '[::1', '::1', '[::1]x', '[fe80::1%eth0]', '127.1', '0x7f.1', '2130706433', '1.2.3.4.5', 'é.example', 'a%2eb', 'a b', '-a', 'a-', `${'a'.repeat(64)}.b`, 'a.'.repeat(130), 'x'.repeat(9000), 'rec.example.com\r\nX: y', 'a\u0000', 'a?b', 'a#b', 'a;b', '*', '*.example.com'];
const words = ['https', 'http', 'HTTPS', 'Http', 'wss', 'ws', 'on', 'off', 'ON'];
const badWords = ['gopher', '', ' ', '1', 'https:', 'https;http', 'toString', '__proto__', 'constructor', '"https"'];
const ports = ['443', '80', '8443', '5080', '1', '65535'];
const badPorts = ['0', '65536', '-1', '+1', 'x', '', '443;80', '1e3', '0x1bb', '９', '99999999999999999999'];
const addresses = [...trustedPeers, '203.0.113.9', '198.51.100.7', '198.51.100.7:4711', '[2001:db8::1]:80', '[fd00::2]', '2001:db8::2', 'unknown', '_hidden', '10.0.0.1:_x', '', '010.0.0.1', '127.1', '[::1', 'a,b', '999.1.1.1'];
const prefixes = ['/p', '/p/q/', '/', '', '/~a', '//evil.example', '/../x', '/a/./b', 'p', '/%2e', '/a?b', `/${'a'.repeat(300)}`, '/é', '/a b'];

const garbage = fc.string({ maxLength: 40, unit: 'binary' });
const host = fc.oneof(often(8, pick(...goodHosts)), often(3, pick(...badHosts)), often(1, garbage));
const word = fc.oneof(often(8, pick(...words)), often(1, pick(...badWords)), often(1, garbage));
const port = fc.oneof(often(5, pick(...ports)), often(1, pick(...badPorts)));
const address = fc.oneof(often(12, pick(...addresses)), often(1, garbage));
const listOf = (item: fc.Arbitrary<string>) =>
  fc.oneof(
    often(5, item),
    often(3, fc.array(item, { maxLength: 4 }).map((items) => items.join(', '))),
    often(1, fc.array(item, { maxLength: 4 }).map((items) => items.join(',,'))),
  );

const quoted = (text: string) => `"${text.replaceAll(/["\\]/g, '\\$&')}"`;
const pair = fc.oneof(
  often(4, address.map((value) => `for=${quoted(value)}`)),
  often(4, word.map((value) => `proto=${value}`)),
  often(4, host.map((value) => `host=${quoted(value)}`)),
  often(1, pick(`secret=${SECRET}`, `by="_${SECRET}"`, 'for=192.0.2.1', 'host=rec.example.com:8443', 'host="', 'for="a', 'for', '=a', 'proto =https', 'PROTO=https', 'ext="a;b,c\\"d"')),
);
const element = fc.array(pair, { maxLength: 3 }).map((pairs) => pairs.join(';'));
const forwarded = fc.oneof(often(10, fc.array(element, { maxLength: 3 }).map((elements) => elements.join(', '))), often(1, garbage));
const goodElement = fc
  .record({ for: pick(...addresses.slice(0, 9)), proto: pick('https', 'http'), host: pick(...goodHosts) })
  .map(({ proto, ...rest }) => `for=${quoted(rest.for)};proto=${proto};host=${quoted(rest.host)}`);

const nameCase = (name: string) => fc.oneof(often(3, fc.constant(name)), often(1, fc.mixedCase(fc.constant(name))));
const alias = pick(...aliasNames).chain((name) => {
  const value = name === 'cf-visitor' ? pick('{"scheme":"https"}', '{"scheme":"http"}', '{"scheme":1}', '{', 'null') : fc.oneof(often(3, pick('https', 'on', 'http')), often(1, listOf(word)));
  return fc.tuple(nameCase(name), value);
}) as fc.Arbitrary<HeaderLine>;

const line = (weight: number, name: string, value: fc.Arbitrary<string>) => often(weight, fc.tuple(nameCase(name), value) as fc.Arbitrary<HeaderLine>);

const headerLine = fc.oneof(
  line(5, 'X-Forwarded-For', listOf(address)),
  line(6, 'X-Forwarded-Proto', listOf(word)),
  line(6, 'X-Forwarded-Host', listOf(host)),
  line(5, 'X-Forwarded-Port', listOf(port)),
  line(3, 'X-Forwarded-Prefix', listOf(pick(...prefixes))),
  line(2, 'Forwarded', forwarded),
  line(3, 'Forwarded', fc.array(goodElement, { minLength: 1, maxLength: 3 }).map((elements) => elements.join(', '))),
  often(3, alias),
  often(1, fc.tuple(pick('X_Forwarded_Proto', 'X-Forwarded_Host', 'X.Forwarded.Host', 'X-Original-Proto', 'X-Original-Host', 'Accept', 'Authorization', '__proto__', ''), fc.oneof(host, word)) as fc.Arbitrary<HeaderLine>),
);
const hostLines = fc.oneof(
  often(8, fc.tuple(host).map(([value]): HeaderLine[] => [['Host', value]])),
  often(8, pick(...goodHosts).map((value): HeaderLine[] => [['Host', value]])),
  often(1, fc.constant<HeaderLine[]>([])),
  often(1, fc.tuple(host, host).map(([one, two]): HeaderLine[] => [['Host', one], ['host', two]])),
);

const target = fc.oneof(
  often(12, fc.constant('/v1/recordings')),
  often(1, fc.constant(null)),
  often(1, fc.tuple(pick('http', 'https', 'HTTP', 'gopher'), host).map(([scheme, value]) => `${scheme}://${value}/v1/recordings`)),
  often(1, fc.oneof(pick('*', '', '//evil.example/', 'evil.example:443', '?', 'http://', 'http:///'), garbage)),
);
const platform: fc.Arbitrary<PlatformOrigin | null> = fc.oneof(
  often(14, fc.constant(null)),
  often(1, fc.record({ scheme: pick('http', 'https'), authority: host, source: fc.constant('platform'), prefix: pick(...prefixes) })),
);

/** @param lines further header lines, up to this many */
export const facts = (lines: number): fc.Arbitrary<RequestFacts> =>
  fc
    .record({
      address: fc.oneof(often(5, pick(...trustedPeers)), often(1, pick(...untrustedPeers, null)), often(1, fc.ipV4()), often(1, garbage)),
      encrypted: fc.oneof(often(4, fc.constant(false)), often(1, fc.constant(true))),
      host: hostLines,
      lines: fc.oneof(
        often(6, fc.array(headerLine, { maxLength: lines })),
        often(2, fc.array(alias, { minLength: 1, maxLength: 2 })),
        often(1, fc.tuple(line(1, 'X-Forwarded-Proto', fc.oneof(pick(...badWords), garbage)).arbitrary)),
      ),
      target,
      platform,
    })
    .map((request) => ({
      peer: { address: request.address, encrypted: request.encrypted },
      headers: [...request.host, ...request.lines],
      target: request.target,
      platform: request.platform,
    }));

/** A policy, and in words of its own what ALLOWED_HOSTS means in it. */
export type Policy = OriginSettings & { mayBe(hostname: string): boolean };

const allowed: readonly Pick<Policy, 'allowedHosts' | 'mayBe'>[] = [
  { allowedHosts: null, mayBe: () => true },
  { allowedHosts: ['rec.example.com', '*.allowed.example', 'LOCALHOST'], mayBe: (name) => ['rec.example.com', 'localhost'].includes(name) || /^.+\.allowed\.example$/.test(name) },
  { allowedHosts: ['[2001:db8::1]', '127.0.0.1'], mayBe: (name) => name === '[2001:db8::1]' || name === '127.0.0.1' },
];

export const policy: fc.Arbitrary<Policy> = fc
  .record({
    publicUrl: fc.oneof(often(18, fc.constant(null)), often(1, pick('https://public.example/p', 'http://localhost:8080', 'http://public.example'))),
    mediaUrl: fc.oneof(often(12, fc.constant(null)), often(1, fc.constant('wss://media.example'))),
    wsScheme: fc.oneof(often(10, fc.constant('auto' as const)), often(1, pick('wss' as const, 'ws' as const))),
    allowInsecureWs: fc.boolean(),
    hosts: fc.oneof(often(3, pick(allowed[0])), often(1, pick(...allowed.slice(1)))) as fc.Arbitrary<(typeof allowed)[number]>,
  })
  .map(({ hosts, ...settings }) => ({ ...settings, ...hosts, trust }));

const trust = parseTrust(['loopback', 'private']);
