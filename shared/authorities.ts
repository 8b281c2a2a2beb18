/** Whose certificates are believed, and certificates in PEM that settings name. Not for runtimes without files. */
import { X509Certificate } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { platform } from 'node:os';
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls';
import { ConfigError } from './config.ts';

/**
 * PEM of each authority in Node's own list (and NODE_EXTRA_CA_CERTS), and in the system's store where there is one: on a
 * Linux without ca-certificates Node would complain to stderr that its directory is missing.
 */
export function trustedAuthorities(): string[] {
  const system = platform() !== 'linux' || existsSync('/etc/ssl/certs');
  return [...new Set([...getCACertificates('default'), ...(system ? getCACertificates('system') : [])])];
}

/**
 * What to trust: Node's own list (and NODE_EXTRA_CA_CERTS), the system's store, and the operator's authority. Some 15 ms of
 * work: made once for many connections.
 * @param own certificate and key, in PEM, to be shown to servers that ask for one
 * @throws where something is not PEM, or the key is another certificate's
 */
export const trusting = (ca: string | null, own: { cert: string; key: string } | null = null): SecureContext =>
  createSecureContext({ ca: [...trustedAuthorities(), ...(ca === null ? [] : [ca])], minVersion: 'TLSv1.2', ...own });

/** @throws {ConfigError} naming the variable, where its file has no certificates in PEM, or a bad one */
export async function readAuthorities(variable: string, path: string): Promise<string> {
  return readPem(variable, path, 'certificates', (pem) => {
    const certificates = pem.match(/-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[\s\S]*?-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g);
    if (certificates === null) throw new TypeError(`it has ${pem.includes('PRIVATE KEY') ? 'a key' : 'no BEGIN CERTIFICATE'} and no certificate`);
    // a bundle is read by TLS up to its first bad one, and the rest would be missed in silence
    for (const [i, certificate] of certificates.entries()) readCertificate(certificate, i + 1);
  });
}

/** As readAuthorities, of a private key. */
export async function readPrivateKey(variable: string, path: string): Promise<string> {
  return readPem(variable, path, 'a private key', (pem) => {
    if (!pem.includes('PRIVATE KEY-----')) throw new TypeError('it has no BEGIN PRIVATE KEY');
  });
}

/** @param given a path, or the PEM itself, for where there are no files */
async function readPem(variable: string, given: string, what: string, check: (pem: string) => void): Promise<string> {
  const isPem = given.startsWith('-----BEGIN');
  try {
    const pem = isPem ? given : await readFile(given, 'utf8');
    check(pem);
    return pem;
  } catch (error) {
    throw new ConfigError(`${variable}=${isPem ? '(PEM)' : JSON.stringify(given)}: must be a file with ${what} in PEM (${(error as Error).message})`);
  }
}

function readCertificate(pem: string, number: number): void {
  try {
    new X509Certificate(pem);
  } catch (error) {
    throw new TypeError(`certificate ${number} in it is not valid: ${(error as Error).message}`, { cause: error });
  }
}
