/** Whose certificates are believed. For Node only. */
import { existsSync } from 'node:fs';
import { platform } from 'node:os';
import { getCACertificates } from 'node:tls';

/**
 * PEM of each authority in Node's own list (and NODE_EXTRA_CA_CERTS), and in the system's store where there is one: on a
 * Linux without ca-certificates Node would complain to stderr that its directory is missing.
 */
export function trustedAuthorities(): string[] {
  const system = platform() !== 'linux' || existsSync('/etc/ssl/certs');
  return [...new Set([...getCACertificates('default'), ...(system ? getCACertificates('system') : [])])];
}
