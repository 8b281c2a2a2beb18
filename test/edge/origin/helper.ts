/** Requests as the rule gets them. */
import type { HeaderLine, RequestFacts } from '../../../edge/origin/facts.ts';
import { mediaBase } from '../../../edge/origin/media.ts';
import { originPolicy, type OriginPolicy, type OriginSettings } from '../../../edge/origin/policy.ts';
import { OriginError } from '../../../edge/origin/refusal.ts';
import { resolveOrigin, type OriginVerdict } from '../../../edge/origin/resolve.ts';
import { parseTrust } from '../../../edge/origin/trust.ts';
import { toHttpUrl } from '../../../shared/origin.ts';

/** The address of an ingress: trusted by default. */
export const INGRESS = '10.1.2.3';
export const STRANGER = '203.0.113.9';

export const policyOf = (settings: Partial<OriginSettings> = {}): OriginPolicy =>
  originPolicy({
    publicUrl: null,
    mediaUrl: null,
    trust: parseTrust(['loopback', 'private']),
    allowedHosts: null,
    wsScheme: 'auto',
    allowInsecureWs: false,
    ...settings,
  });

/** `Name: value` lines. */
export const lines = (text: string): HeaderLine[] =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]);

export type Request = { from?: string | null; tls?: boolean; target?: string | null; platform?: RequestFacts['platform'] };

export const factsOf = (headers: string | readonly HeaderLine[], { from = INGRESS, tls = false, target = '/v1/recordings', platform = null }: Request = {}): RequestFacts => ({
  peer: { address: from, encrypted: tls },
  headers: typeof headers === 'string' ? lines(headers) : headers,
  target,
  platform,
});

export const resolve = (headers: string, request: Request = {}, settings: Partial<OriginSettings> = {}): OriginVerdict =>
  resolveOrigin(factsOf(headers, request), policyOf(settings));

/** `https://host:port/prefix`, or the code of the refusal. */
export const origin = (headers: string, request: Request = {}, settings: Partial<OriginSettings> = {}): string =>
  codeOr(() => toHttpUrl(resolve(headers, request, settings)));

/** The base of media URLs, or the code of the refusal. */
export const media = (headers: string, request: Request = {}, settings: Partial<OriginSettings> = {}): string =>
  codeOr(() => mediaBase(resolve(headers, request, settings), policyOf(settings)).url);

export function codeOr(read: () => string): string {
  try {
    return read();
  } catch (error) {
    if (error instanceof OriginError) return error.code;
    throw error;
  }
}

/** @throws where nothing is refused */
export function refusal(headers: string, request: Request = {}, settings: Partial<OriginSettings> = {}): OriginError {
  try {
    const policy = policyOf(settings);
    const { url } = mediaBase(resolveOrigin(factsOf(headers, request), policy), policy);
    throw new Error(`nothing was refused: ${url}`);
  } catch (error) {
    if (error instanceof OriginError) return error;
    throw error;
  }
}
