/**
 * Run by compose: hands the certificate of the proxy's own authority on to the workers, who trust it by MEDIA_CA, and to their
 * Chromium, by a managed policy. The authority's key stays with the proxy.
 */
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const from = '/proxy/caddy/pki/authorities/local/root.crt';
const PATIENCE_MS = 60_000;

function put(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

for (const until = Date.now() + PATIENCE_MS; !existsSync(from); await sleep(200)) {
  if (Date.now() > until) throw new Error(`the proxy made no authority in ${PATIENCE_MS / 1000} s`);
}
const pem = readFileSync(from, 'utf8');
put('/authority/ca.pem', pem);
put('/policies/ca.json', JSON.stringify({ CACertificates: [new X509Certificate(pem).raw.toString('base64')] }));
