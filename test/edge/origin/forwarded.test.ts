import { describe, expect, test } from 'vitest';
import { ForwardedSyntaxError, parseForwarded } from '../../../edge/origin/forwarded.ts';

const one = (change: object) => ({ for: null, proto: null, host: null, ...change });

describe('Forwarded as RFC 7239 has it', () => {
  test.each([
    // the examples of the RFC, section 4 and 7.1
    ['for="_gazonk"', [one({ for: '_gazonk' })]],
    ['For="[2001:db8:cafe::17]:4711"', [one({ for: '[2001:db8:cafe::17]:4711' })]],
    ['for=192.0.2.60;proto=http;by=203.0.113.43', [one({ for: '192.0.2.60', proto: 'http' })]],
    ['for=192.0.2.43, for=198.51.100.17', [one({ for: '192.0.2.43' }), one({ for: '198.51.100.17' })]],
    ['for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown', [one({ for: '192.0.2.43' }), one({ for: '[2001:db8:cafe::17]' }), one({ for: 'unknown' })]],
    ['for=192.0.2.43, for="[2001:db8:cafe::17]"\nfor=unknown', [one({ for: '192.0.2.43' }), one({ for: '[2001:db8:cafe::17]' }), one({ for: 'unknown' })]],
    ['for=_hidden, for=_SEVKISEK', [one({ for: '_hidden' }), one({ for: '_SEVKISEK' })]],
    // OpenShift's router
    ['for=198.51.100.7;host=rec.example.com:8443;proto=https', [one({ for: '198.51.100.7', host: 'rec.example.com:8443', proto: 'https' })]],
    ['FOR=a;PROTO=b;HOST=c', [one({ for: 'a', proto: 'b', host: 'c' })]],
    ['for="a\\"b\\\\c"', [one({ for: 'a"b\\c' })]],
    ['for="a, for=b;proto=https"', [one({ for: 'a, for=b;proto=https' })]],
    ['for=""', [one({ for: '' })]],
    ['for=a ; proto=https ,\tfor=b', [one({ for: 'a', proto: 'https' }), one({ for: 'b' })]],
    [';;for=a;,,;,', [one({ for: 'a' })]],
    ['secret=x;by="y z"', [one({})]],
    ['', []],
    [' , ', []],
  ])('%j', (text, elements) => {
    expect(parseForwarded(text)).toEqual(elements);
  });

  test.each([
    ['for', 'no ='],
    ['for=', 'no value'],
    ['for="a', 'without an end'],
    ['for="a\\', 'without an end'],
    ['for="a\nfor="b"', 'may not be in quotes'],
    ['for="a\u0000"', 'may not be in quotes'],
    ['for="a"b', 'out of place'],
    ['for=a b', 'out of place'],
    ['for=a;for=b', 'a second for'],
    ['proto=http;PROTO=https', 'a second proto'],
    ['x=1;x=2', 'a second x'],
    ['for =a', 'no ='],
    ['for= a', 'no value'],
    ['for=a{b}', 'out of place'],
    ['for=ä', 'no value'],
    ['[=a', 'out of place'],
    ['=a', 'out of place'],
    ['"for"=a', 'out of place'],
    ['for=a\r\nproto=https', 'out of place'],
  ])('%j is refused', (text, reason) => {
    expect(() => parseForwarded(text)).toThrow(ForwardedSyntaxError);
    expect(() => parseForwarded(text)).toThrow(reason);
  });

  test('a long one takes time in proportion to its length', () => {
    const begin = performance.now();
    for (const text of ['for="' + '\\"'.repeat(500_000), 'for=a,'.repeat(200_000), ';'.repeat(1_000_000), 'a'.repeat(1_000_000), 'for="' + 'x'.repeat(1_000_000)]) {
      try {
        parseForwarded(text);
      } catch (error) {
        expect(error).toBeInstanceOf(ForwardedSyntaxError);
      }
    }
    // a quadratic one would take minutes
    expect(performance.now() - begin).toBeLessThan(10_000);
  });
});
