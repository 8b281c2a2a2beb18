import { createServer, get } from 'node:https';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from 'vitest';
import { createAuthority, hasOpenssl, type Leaf } from './certificates.ts';

if (!hasOpenssl) console.warn('Tests are skipped for want of openssl: apt-get install openssl');

/** What a client that trusts `ca` makes of a server with this certificate: null, or the error's code. */
async function verdict(leaf: Leaf, ca: string, servername: string): Promise<string | null> {
  const server = createServer({ cert: leaf.cert, key: leaf.key }, (_request, response) => response.end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  try {
    return await new Promise((resolve) => {
      const request = get({ host: '127.0.0.1', port, ca, servername, agent: false }, () => resolve(null));
      request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

describe.skipIf(!hasOpenssl)('test certificates', () => {
  it('are good for their names, their time and their authority only', async () => {
    await using authority = await createAuthority();
    await using other = await createAuthority('another authority');
    const names = ['rec.example.com', '127.0.0.1', '::1'];
    const leaf = await authority.issue(names);
    expect(await verdict(leaf, authority.ca, 'rec.example.com')).toBeNull();
    expect(await verdict(leaf, authority.ca, 'other.example.com')).toBe('ERR_TLS_CERT_ALTNAME_INVALID');
    expect(await verdict(leaf, other.ca, 'rec.example.com')).toBe('UNABLE_TO_VERIFY_LEAF_SIGNATURE');
    expect(await verdict(await authority.issue(names, { expired: true }), authority.ca, 'rec.example.com')).toBe('CERT_HAS_EXPIRED');
  });
});
