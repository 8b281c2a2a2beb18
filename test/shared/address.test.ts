import { expect, test } from 'vitest';
import { isLocalhost, isLoopbackHost } from '../../shared/address.ts';

test.each(['localhost', 'LOCALHOST', 'localhost.', 'app.localhost', '127.0.0.1', '127.255.255.254', '::1', '[::1]', '0:0:0:0:0:0:0:1', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '::FFFF:7F12:ab'])(
  '%s is loopback',
  (host) => expect(isLoopbackHost(host)).toBe(true),
);

test.each(['', 'localhost.example.com', 'notlocalhost', '127.0.0.1.example.com', '127.0.0', '127.0.0.256', '128.0.0.1', '0.0.0.0', '::', '[::2]', '::ffff:8.8.8.8', '[::ffff:8000:1]', '10.0.0.1', '1127.0.0.1', '127.0.0.1:80'])(
  '%j is not',
  (host) => expect(isLoopbackHost(host)).toBe(false),
);

test.each([['localhost', true], ['App.LOCALHOST.', true], ['localhost.example.com', false], ['notlocalhost', false], ['127.0.0.1', false]])('%s needs no resolver: %s', (name, known) => {
  expect(isLocalhost(name)).toBe(known);
});
