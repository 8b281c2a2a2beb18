/** Authorities and certificates for tests, made by openssl; skip with `lacks('openssl')` where there is none. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

export const hasOpenssl = spawnSync('openssl', ['version']).status === 0;

/** A server's certificate and key, in PEM and as files; `bundlePath` has both in one, as HAProxy wants them. */
export type Leaf = { cert: string; key: string; certPath: string; keyPath: string; bundlePath: string };

export type Authority = AsyncDisposable & {
  /** The authority's own certificate in PEM. */
  ca: string;
  /** The same as a file: for `curl --cacert`, or MEDIA_CA. */
  caPath: string;
  /**
   * A certificate for these names and IP addresses (IPv6 without brackets), two days long.
   *
   * @param options.expired it ended yesterday
   */
  issue(names: readonly string[], options?: { expired?: boolean }): Promise<Leaf>;
};

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/**
 * An authority that nothing trusts until it is told to. A second one is an unknown authority to whoever trusts the first.
 *
 * @returns its files go when it is disposed
 */
export async function createAuthority(name = 'test authority'): Promise<Authority> {
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-ca-'));
  const openssl = (...args: string[]) => promisify(execFile)('openssl', args, { cwd: directory });
  const at = (file: string) => join(directory, file);
  const read = (file: string) => readFile(at(file), 'utf8');
  await openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', `/CN=${name}`, '-days', '2');
  let issued = 0;
  return {
    ca: await read('ca.pem'),
    caPath: at('ca.pem'),
    async issue(names, { expired = false } = {}) {
      issued += 1;
      const [key, request, cert, bundle, extensions] = ['key', 'csr', 'pem', 'bundle', 'ext'].map((suffix) => `leaf-${issued}.${suffix}`) as [
        string, string, string, string, string,
      ];
      const alternatives = names.map((each) => `${isIP(each) === 0 ? 'DNS' : 'IP'}:${each}`).join(',');
      await writeFile(at(extensions), `subjectAltName=${alternatives}\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n`);
      await openssl('req', '-new', ...newKey, '-keyout', key, '-out', request, '-subj', '/CN=leaf');
      const serial = ['-set_serial', String(Date.now() * 1000 + issued)];
      // -1 is the least that openssl takes
      await openssl('x509', '-req', '-in', request, '-CA', 'ca.pem', '-CAkey', 'ca.key', ...serial, '-days', expired ? '-1' : '2', '-extfile', extensions, '-out', cert);
      const leaf = { cert: await read(cert), key: await read(key) };
      await writeFile(at(bundle), leaf.cert + leaf.key);
      return { ...leaf, certPath: at(cert), keyPath: at(key), bundlePath: at(bundle) };
    },
    async [Symbol.asyncDispose]() {
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
