import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { classOf, type AddressClass } from '../../../shared/outbound/address-class.ts';
import { createJudge, outboundAllow, LOCAL_ALLOW, type OutboundRules } from '../../../shared/outbound/policy.ts';

describe('the class of an address', () => {
  it.each<[string, AddressClass]>([
    ['8.8.8.8', 'public'], ['1.1.1.1', 'public'], ['172.32.0.1', 'public'], ['100.128.0.1', 'public'], ['192.0.1.1', 'public'], ['223.255.255.255', 'public'],
    ['0.0.0.0', 'unspecified'], ['0.1.2.3', 'unspecified'],
    ['10.0.0.1', 'private'], ['172.16.0.1', 'private'], ['172.31.255.255', 'private'], ['192.168.255.1', 'private'],
    ['100.64.0.1', 'shared'], ['100.127.255.255', 'shared'],
    ['127.0.0.1', 'loopback'], ['127.255.255.254', 'loopback'],
    ['169.254.0.1', 'link_local'], ['169.254.169.254', 'metadata'], ['168.63.129.16', 'metadata'], ['100.100.100.200', 'metadata'], ['fd00:ec2::254', 'metadata'],
    ['192.0.0.1', 'reserved'], ['192.0.2.1', 'reserved'], ['198.18.0.1', 'reserved'], ['198.19.255.255', 'reserved'], ['198.51.100.7', 'reserved'], ['203.0.113.9', 'reserved'],
    ['224.0.0.1', 'multicast'], ['239.255.255.255', 'multicast'], ['240.0.0.1', 'reserved'], ['255.255.255.255', 'reserved'],
    ['2606:4700::1111', 'public'], ['2a00:1450::1', 'public'],
    ['::', 'unspecified'], ['::1', 'loopback'], ['fc00::1', 'private'], ['fdff::1', 'private'], ['fe80::1', 'link_local'], ['ff02::1', 'multicast'],
    ['2001::1', 'reserved'], ['2001:1ff::1', 'reserved'], ['2001:db8::1', 'reserved'], ['4000::1', 'reserved'], ['100::1', 'reserved'], ['::2', 'reserved'],
    // IPv4 by another name: what is inside counts
    ['::ffff:127.0.0.1', 'loopback'], ['::ffff:7f00:1', 'loopback'], ['[::ffff:10.0.0.1]', 'private'], ['::ffff:8.8.8.8', 'public'], ['::ffff:169.254.169.254', 'metadata'],
    ['64:ff9b::10.0.0.1', 'private'], ['64:ff9b::a9fe:a9fe', 'metadata'], ['64:ff9b::8.8.8.8', 'public'], ['64:ff9b:1::1', 'reserved'],
    ['2002:7f00:1::', 'loopback'], ['2002:a00:1::1', 'private'], ['2002:808:808::1', 'reserved'],
    ['::127.0.0.1', 'reserved'], ['::8.8.8.8', 'reserved'], ['::808:808', 'reserved'], ['::ffff:300.1.1.1', 'reserved'],
    // none at all, or in a spelling that not all read alike
    ['', 'reserved'], ['localhost', 'reserved'], ['127.1', 'reserved'], ['0177.0.0.1', 'reserved'], ['0x7f.0.0.1', 'reserved'], ['2130706433', 'reserved'], ['fe80::1%eth0', 'reserved'], ['2606::1%lo', 'reserved'],
  ])('%s is %s', (address, kind) => expect(classOf(address)).toBe(kind));

  it('is the same however an address of IPv4 is wrapped', () => {
    fc.assert(
      fc.property(fc.ipV4(), (address) => {
        const kind = classOf(address);
        const hex = address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'));
        const wrapped = `${hex[0]}${hex[1]}:${hex[2]}${hex[3]}`;
        expect(classOf(`::ffff:${wrapped}`)).toBe(kind);
        expect(classOf(`64:ff9b::${wrapped}`)).toBe(kind);
        expect(classOf(`2002:${wrapped}::1`)).toBe(kind === 'public' ? 'reserved' : kind);
      }),
    );
  });
});

const judgeOf = (rules: Partial<OutboundRules>, names: Record<string, string[]> = {}, here: string[] = []) =>
  createJudge(
    { allow: [], own: [], ...rules },
    {
      resolve: async (host) => names[host] ?? Promise.reject(new Error('no such name')),
      localAddresses: () => here,
    },
  );

describe('a judge', () => {
  it('lets only what is public through, and says why it does not, without an address', async () => {
    const judge = judgeOf({});
    expect(await judge({ host: 'example.com', port: 443, addresses: ['93.184.215.14', '2606:2800::1'] })).toBeNull();
    expect(await judge({ host: 'intranet.example', port: 443, addresses: ['10.1.2.3'] })).toEqual({ class: 'private', reason: 'a private address' });
    expect(await judge({ host: 'both.example', port: 443, addresses: ['93.184.215.14', '127.0.0.1'] })).toMatchObject({ class: 'loopback' });
  });

  it.each([
    // entry, host, port, addresses, open
    ['*', 'a.example', 80, ['10.0.0.1', '127.0.0.1'], true],
    ['*', 'a.example', 80, ['169.254.169.254'], false],
    ['*', 'a.example', 80, ['0.0.0.0'], false],
    ['10.0.0.0/8', 'a.example', 80, ['10.9.9.9'], true],
    ['10.0.0.0/8', 'a.example', 80, ['10.9.9.9', '192.168.0.1'], false],
    ['10.0.0.0/8', 'a.example', 80, ['::ffff:10.9.9.9'], true],
    ['10.0.0.0/8:443', 'a.example', 443, ['10.9.9.9'], true],
    ['10.0.0.0/8:443', 'a.example', 80, ['10.9.9.9'], false],
    ['10.0.0.7', 'a.example', 80, ['10.0.0.7'], true],
    ['10.0.0.7', 'a.example', 80, ['10.0.0.8'], false],
    ['169.254.169.254', '169.254.169.254', 80, ['169.254.169.254'], true],
    ['fd00::/8', 'a.example', 80, ['fd12::1'], true],
    ['[fd12::1]:8443', 'a.example', 8443, ['fd12::1'], true],
    ['[fd12::1]:8443', 'a.example', 443, ['fd12::1'], false],
    ['::1', 'localhost', 80, ['::1'], true],
    ['::1', 'localhost', 80, ['127.0.0.1', '::1'], false],
    ['intranet.example', 'Intranet.Example.', 80, ['10.0.0.1'], true],
    ['intranet.example', 'www.intranet.example', 80, ['10.0.0.1'], false],
    ['intranet.example', 'intranet.example', 80, ['169.254.169.254'], false],
    ['*.intranet.example', 'www.intranet.example', 80, ['10.0.0.1'], true],
    ['*.intranet.example', 'intranet.example', 80, ['10.0.0.1'], false],
    ['*.intranet.example', 'evilintranet.example', 80, ['10.0.0.1'], false],
    ['grafana.svc:3000', 'grafana.svc', 3000, ['10.0.0.1'], true],
    ['grafana.svc:3000', 'grafana.svc', 3001, ['10.0.0.1'], false],
  ] as const)('with %s opens %s:%d at %j: %s', async (entry, host, port, addresses, open) => {
    const denial = await judgeOf({ allow: [entry] })({ host, port, addresses });
    expect(denial === null).toBe(open);
  });

  it('opens no port of its own, by whatever address it is reached', async () => {
    const own = [{ host: 'redis.svc', port: 6379 }, { host: '10.0.0.9', port: 8080 }, { host: null, port: 9090 }, { host: 'gone.svc', port: 7000 }, { host: '127.0.0.1', port: 5000 }];
    const judge = judgeOf({ allow: ['*', '10.0.0.0/8'], own }, { 'redis.svc': ['10.0.0.5'] }, ['10.0.0.77']);
    const ask = (port: number, ...addresses: string[]) => judge({ host: 'a.example', port, addresses });
    for (const [port, address] of [
      [6379, '10.0.0.5'], [6379, '::ffff:10.0.0.5'], [8080, '10.0.0.9'],
      [9090, '127.0.0.1'], [9090, '127.9.9.9'], [9090, '::1'], [9090, '0.0.0.0'], [9090, '10.0.0.77'], [9090, '::ffff:10.0.0.77'],
      [7000, '10.0.0.1'], [5000, '127.0.0.2'], [5000, '10.0.0.77'],
    ] as const) {
      expect(await ask(port, address), `${address}:${port}`).toEqual({ class: 'own', reason: 'a port of this service' });
    }
    expect(await ask(6379, '10.0.0.6')).toBeNull();
    expect(await ask(9090, '10.0.0.78')).toBeNull();
    expect(await ask(443, '10.0.0.5')).toBeNull();
  });
});

describe('OUTBOUND_ALLOW', () => {
  it('is a list', () => {
    expect(outboundAllow.parse(' 10.0.0.0/8, intranet.example:8443 ,,*')).toEqual(['10.0.0.0/8', 'intranet.example:8443', '*']);
    expect(outboundAllow.parse('')).toEqual([]);
    expect(() => judgeOf({ allow: outboundAllow.parse(LOCAL_ALLOW) })).not.toThrow();
  });

  it.each(['10.0.0.0/33', '10.0.0.0/', '10.0.0/8', '300.0.0.1', '127.1', 'http://intranet.example', 'host:0', 'host:70000', 'a b', '*.', 'a*.example', '::ffff:10.0.0.0/100', '[::1', 'host/8', '-a.example', '10.0.0.0/8/8', 'fd00::/129'])(
    'refuses %s, and names it',
    (entry) => {
      const { success, error } = outboundAllow.safeParse(`example.com,${entry}`);
      expect(success).toBe(false);
      expect(error?.issues[0]?.message).toContain(JSON.stringify(entry));
    },
  );
});
