/** The origin from what proxies and platforms are documented to send. `UPDATE_DOCS=1` writes the table to docs/proxies.md. */
import { describe, expect, it } from 'vitest';
import type { HeaderLine } from '../../edge/origin/facts.ts';
import { mediaBase } from '../../edge/origin/media.ts';
import { originPolicy } from '../../edge/origin/policy.ts';
import { OriginError } from '../../edge/origin/refusal.ts';
import { resolveOrigin } from '../../edge/origin/resolve.ts';
import { parseTrust } from '../../edge/origin/trust.ts';
import { checkDocs, markdownTable } from './document.ts';
import { golden, upgradeOf, type Golden } from './golden.ts';

const list = (text: string | undefined) => text?.split(',') ?? [];

/** The base of media URLs, or the refusal. */
function verdictOn(peer: string, headers: readonly HeaderLine[], settings: Golden['settings']): string | OriginError {
  const policy = originPolicy({
    publicUrl: null,
    mediaUrl: null,
    trust: parseTrust(['loopback', 'private', ...list(settings.TRUSTED_PROXIES)]),
    allowedHosts: settings.ALLOWED_HOSTS === undefined ? null : list(settings.ALLOWED_HOSTS),
    wsScheme: 'auto',
    allowInsecureWs: false,
  });
  try {
    return mediaBase(resolveOrigin({ peer: { address: peer, encrypted: false }, headers, target: '/v1/recordings', platform: null }, policy), policy).url;
  } catch (error) {
    if (error instanceof OriginError) return error;
    throw error;
  }
}

function matches(verdict: string | OriginError, expected: Golden['expected']) {
  if (typeof expected === 'string') {
    expect(verdict).toBe(expected);
  } else {
    expect(verdict).toBeInstanceOf(OriginError);
    const { code, message, remedy } = verdict as OriginError;
    expect(code).toBe(expected.code);
    expect(`${message} ${remedy}`).toContain(expected.names);
  }
}

describe.each(golden.map((each) => [each.who, each] as const))('%s', (_who, set) => {
  const { peer, headers, expected, settings } = set;

  it('an https client', () => matches(verdictOn(peer, headers, settings), expected));

  if (set.upgrade !== null) it('a WebSocket upgrade', () => matches(verdictOn(peer, upgradeOf(set), settings), expected));

  if (settings.TRUSTED_PROXIES !== undefined) {
    it('is not believed before it is in TRUSTED_PROXIES', () => {
      matches(verdictOn(peer, headers, {}), { code: 'origin_insecure', names: 'TRUSTED_PROXIES' });
    });
  }

  it('a host that a client made up goes nowhere with ALLOWED_HOSTS', () => {
    const forged: HeaderLine[] = [['X-Forwarded-Host', 'evil.example'], ...headers.filter(([name]) => name.toLowerCase() !== 'x-forwarded-host')];
    const verdict = verdictOn(peer, forged, { ...settings, ALLOWED_HOSTS: 'rec.example.com' });
    expect(verdict).toBeInstanceOf(OriginError);
  });
});

it('the documentation says what each needs', async () => {
  const rows = golden.map(({ who, source, expected, advice }) => [
    `[${who}](${source})`,
    typeof expected === 'string' ? `\`${expected}\`` : `refused: \`${expected.code}\``,
    advice === '' ? 'nothing' : advice,
  ]);
  await checkDocs({ platforms: markdownTable(['behind', 'media URLs', 'needs'], rows) });
});
