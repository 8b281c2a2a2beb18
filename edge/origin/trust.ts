/** Which peers may speak for a caller: CIDRs and the names `loopback` and `private`. */
import { ConfigError } from '../../shared/config.ts';

type Range = { bits: 32 | 128; base: bigint; prefix: number };
export type Trust = readonly Range[];

const names: Readonly<Record<string, readonly string[]>> = {
  loopback: ['127.0.0.0/8', '::1/128'],
  // RFC 1918, RFC 6598, link-local and unique local addresses
  private: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '169.254.0.0/16', 'fc00::/7', 'fe80::/10'],
};

/** @throws {ConfigError} naming the item that is neither an address, a CIDR nor a known name */
export function parseTrust(items: readonly string[]): Trust {
  return items.flatMap((item) => {
    const ranges = (names[item] ?? [item]).map(parseRange);
    if (ranges.some((range) => range === null)) {
      throw new ConfigError(`TRUSTED_PROXIES: ${JSON.stringify(item)} is not an address, a CIDR, loopback or private`);
    }
    return ranges as Range[];
  });
}

/** @param address as the socket tells it; an IPv4 one mapped into IPv6 counts as IPv4 */
export function isTrusted(trust: Trust, address: string | null): boolean {
  const parsed = address === null ? null : parseAddress(address);
  if (parsed === null) return false;
  return trust.some(({ bits, base, prefix }) => {
    if (bits !== parsed.bits) return false;
    const shift = BigInt(bits - prefix);
    return base >> shift === parsed.value >> shift;
  });
}

function parseRange(text: string): Range | null {
  const [address, prefix, ...rest] = text.split('/');
  const parsed = parseAddress(address ?? '');
  if (parsed === null || rest.length > 0) return null;
  if (prefix === undefined) return { bits: parsed.bits, base: parsed.value, prefix: parsed.bits };
  if (!/^\d{1,3}$/.test(prefix) || Number(prefix) > parsed.bits) return null;
  return { bits: parsed.bits, base: parsed.value, prefix: Number(prefix) };
}

function parseAddress(text: string): { bits: 32 | 128; value: bigint } | null {
  const v4 = parseV4(text);
  if (v4 !== null) return { bits: 32, value: v4 };
  const v6 = parseV6(text.replace(/%.*$/, ''));
  if (v6 === null) return null;
  return v6 >> 32n === 0xffffn ? { bits: 32, value: v6 & 0xffff_ffffn } : { bits: 128, value: v6 };
}

function parseV4(text: string): bigint | null {
  if (!/^\d{1,3}(\.\d{1,3}){3}$/.test(text)) return null;
  const parts = text.split('.').map(Number);
  if (parts.some((part) => part > 255)) return null;
  return parts.reduce((value, part) => (value << 8n) | BigInt(part), 0n);
}

function parseV6(text: string): bigint | null {
  const tail = /^(.*:)(\d[\d.]*\.\d+)$/.exec(text);
  const v4 = tail ? parseV4(tail[2] ?? '') : null;
  if (tail && v4 === null) return null;
  const hex = tail ? `${tail[1]}${((v4 ?? 0n) >> 16n).toString(16)}:${((v4 ?? 0n) & 0xffffn).toString(16)}` : text;
  const halves = hex.split('::');
  if (halves.length > 2) return null;
  const [head, rest] = halves.map((half) => (half === '' ? [] : half.split(':')));
  if (!head || [...head, ...(rest ?? [])].some((group) => !/^[0-9a-f]{1,4}$/i.test(group))) return null;
  const missing = 8 - head.length - (rest?.length ?? 0);
  if (rest === undefined ? missing !== 0 : missing < 1) return null;
  const groups = [...head, ...Array<string>(Math.max(missing, 0)).fill('0'), ...(rest ?? [])];
  return groups.reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n);
}
