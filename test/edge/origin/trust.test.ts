import { describe, expect, test } from 'vitest';
import { nodeAddress } from '../../../edge/origin/forwarded.ts';
import { isTrusted, parseTrust } from '../../../edge/origin/trust.ts';
import { ConfigError } from '../../../shared/config.ts';

describe('trusted peers', () => {
  test.each([
    ['127.0.0.1', true],
    ['::1', true],
    ['::ffff:127.9.9.9', true],
    ['::FFFF:7f00:1', true],
    ['192.168.3.4', true],
    ['172.16.0.1', true],
    ['172.32.0.1', false],
    ['100.64.0.1', true],
    ['100.128.0.1', false],
    ['169.254.1.1', true],
    ['fd12::1', true],
    ['fe80::1%eth0', true],
    ['2001:db8::1', false],
    ['::ffff:8.8.8.8', false],
    ['8.8.8.8', false],
    // forms that some resolvers read as 127.0.0.1 or 10.0.0.1
    ['127.1', false],
    ['0177.0.0.1', false],
    ['010.0.0.1', false],
    ['0x7f.0.0.1', false],
    ['2130706433', false],
    ['10.0.0.1 ', false],
    ['10.0.0.1:80', false],
    ['not an address', false],
    ['', false],
    [null, false],
  ])('%s: %s', (address, trusted) => {
    expect(isTrusted(parseTrust(['loopback', 'private']), address)).toBe(trusted);
  });

  test('CIDRs and single addresses', () => {
    const own = parseTrust(['203.0.113.0/24', '2001:db8::/32', '198.51.100.7', '::ffff:192.0.2.0/120']);
    expect(isTrusted(own, '203.0.113.200')).toBe(true);
    expect(isTrusted(own, '203.0.114.1')).toBe(false);
    expect(isTrusted(own, '2001:db8:ffff::1')).toBe(true);
    expect(isTrusted(own, '198.51.100.7')).toBe(true);
    expect(isTrusted(own, '198.51.100.8')).toBe(false);
    expect(isTrusted(own, '192.0.2.9')).toBe(true);
    expect(isTrusted(own, '127.0.0.1')).toBe(false);
    expect(isTrusted(parseTrust([]), '127.0.0.1')).toBe(false);
    expect(isTrusted(parseTrust(['0.0.0.0/0']), '8.8.8.8')).toBe(true);
    expect(isTrusted(parseTrust(['0.0.0.0/0']), '2001:db8::1')).toBe(false);
  });

  test.each(['10.0.0.0/33', '10.0.0.0/', '10.0.0.0/-1', '10.0.0.0/8/8', '10.0.0', '010.0.0.0/8', '::/129', '::ffff:10.0.0.0/64', 'proxy.local', 'toString', ''])(
    'refuses %j by name',
    (item) => {
      expect(() => parseTrust([item])).toThrow(ConfigError);
      expect(() => parseTrust([item])).toThrow(JSON.stringify(item));
    },
  );
});

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['192.0.2.1:4711', '192.0.2.1'],
  ['[2001:db8::1]', '2001:db8::1'],
  ['[2001:db8::1]:4711', '2001:db8::1'],
  ['[2001:db8::1]:_port', '2001:db8::1'],
  ['2001:db8::1', '2001:db8::1'],
  ['::1', '::1'],
  ['unknown', null],
  ['_hidden', null],
  ['_10.0.0.1', null],
  ['unknown:80', null],
  ['[10.0.0.1', null],
  ['', null],
])('the address of the node %j is %j', (node, address) => {
  expect(nodeAddress(node)).toBe(address);
});
