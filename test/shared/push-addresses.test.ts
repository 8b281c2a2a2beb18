import { describe, expect, test } from 'vitest';
import { mayDialFor } from '../../shared/push-addresses.ts';

describe('where a push may send packets', () => {
  const abroad = mayDialFor('wss://media.example.com/LiveApp/websocket');
  const local = mayDialFor('ws://127.0.0.1:5080/LiveApp/websocket');

  test.each(['203.0.113.7', '10.0.0.5', '192.168.1.1', '2001:db8::1', 'fd00::7', '::ffff:203.0.113.7'])('%s: yes', (address) => {
    expect([abroad(address), local(address)]).toEqual([true, true]);
  });

  test.each([
    '169.254.169.254', '::ffff:169.254.169.254', '169.254.1.1', 'fe80::1', 'fe80::1%eth0', 'fd00:ec2::254', '100.100.100.200',
    '0.0.0.0', '::', '255.255.255.255', '224.0.0.1', 'ff02::1', '64:ff9b::a9fe:a9fe', '2002:a9fe:a9fe::1', 'media.example.com', '',
  ])('%j: never', (address) => {
    expect([abroad(address), local(address)]).toEqual([false, false]);
  });

  test.each(['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1'])('%s: only for a push whose URL names loopback', (address) => {
    expect([abroad(address), local(address)]).toEqual([false, true]);
    expect(mayDialFor('wss://localhost:5443/x')(address)).toBe(true);
  });
});
