/** What trusted proxies say of the origin, in `Forwarded` or in `X-Forwarded-*`: each family read by itself. */
import type { Scheme } from './authority.ts';
import { ForwardedSyntaxError, nodeAddress, parseForwarded, type ForwardedElement } from './forwarded.ts';
import { listItems, properName, type ForwardingName, type SeenHeaders } from './headers.ts';
import { OriginError, shown } from './refusal.ts';
import { safest, schemeOf } from './scheme.ts';
import { isTrusted, type Trust } from './trust.ts';

export type Said = {
  family: 'forwarded' | 'x-forwarded';
  /** Null where it is not said, or in words that are no scheme. */
  scheme: Scheme | null;
  /** The header that says the scheme and what it holds, also where that is no scheme; null where there is none. */
  proto: { header: string; value: string } | null;
  host: { header: string; value: string } | null;
  /** Trusted proxies on the way; 0 where nothing tells of any. */
  hops: number;
  /** The address that the outermost of them had the request from, where it tells. */
  from: string | null;
  /** Says https, but comes from before the outermost trusted proxy: a proxy that is not trusted, or the client. */
  beyond: Scheme | null;
};

/** @returns null where there is no such header */
export function readForwarded({ forwarding: { forwarded } }: SeenHeaders, trust: Trust): Said | null {
  if (forwarded === undefined) return null;
  const elements = parse(forwarded);
  if (elements.length === 0) return null;
  let outermost = elements.length - 1;
  while (outermost > 0 && isTrusted(trust, addressOf(elements[outermost]))) outermost -= 1;
  const element = elements[outermost] as ForwardedElement;
  const protoOf = ({ proto }: ForwardedElement) => (proto === null ? null : schemeOf(proto));
  // a hop that does not say leaves the client's scheme open, whatever those behind it say, unless one of them says https
  const own = protoOf(element);
  return {
    family: 'forwarded',
    scheme: elements.slice(outermost).some((hop) => protoOf(hop) === 'https') ? 'https' : own,
    proto: element.proto === null ? null : { header: 'Forwarded proto', value: element.proto },
    host: element.host === null ? null : { header: 'Forwarded host', value: element.host },
    hops: elements.length - outermost,
    from: element.for,
    beyond: safest(elements.slice(0, outermost).map(protoOf)),
  };
}

const addressOf = (element: ForwardedElement | undefined): string | null =>
  element === undefined || element.for === null ? null : nodeAddress(element.for);

function parse(text: string): ForwardedElement[] {
  try {
    return parseForwarded(text);
  } catch (error) {
    if (!(error instanceof ForwardedSyntaxError)) throw error;
    throw new OriginError('origin_forwarded_invalid', {
      what: 'Forwarded',
      value: null,
      message: `Forwarded is not what RFC 7239 says: ${error.message}`,
      remedy:
        'Either the client sent a Forwarded header of its own and the proxy kept it, or the proxy puts a value into it without quotes. ' +
        'Let the outermost proxy remove or replace the Forwarded header of clients.',
    });
  }
}

/** In quotes these are a value's own: whoever left a quote open has an extension, and what it holds, in there. */
const separators = /[\s;,="]/;

/** For error messages: what is known of an element, and nothing that an extension may hold. */
export const forwardedText = (elements: readonly ForwardedElement[]): string =>
  elements
    .map((element) =>
      (['for', 'host', 'proto'] as const).flatMap((name) => (element[name] === null ? [] : [`${name}=${separators.test(element[name]) ? '(hidden)' : element[name]}`])).join(';'),
    )
    .join(', ');

type Lists = { proto: string[]; host: string[]; port: string[] };

/** X-Forwarded-Port comes apart, in `ports`: which of them counts depends on the scheme. @returns null where there are no such headers */
export function readXForwarded({ forwarding }: SeenHeaders, trust: Trust): (Said & { ports: readonly string[] }) | null {
  const addresses = listItems(forwarding['x-forwarded-for']);
  const lists: Lists = {
    proto: listItems(forwarding['x-forwarded-proto']),
    host: listItems(forwarding['x-forwarded-host']),
    port: listItems(forwarding['x-forwarded-port']),
  };
  const said = lists.proto.length + lists.host.length + lists.port.length;
  if (said + addresses.length === 0) return null;
  let outermost = addresses.length - 1;
  while (outermost > 0 && isTrusted(trust, nodeAddress(addresses[outermost] ?? ''))) outermost -= 1;

  const schemes = lists.proto.map(schemeOf);
  const hops = addresses.length > 0 ? addresses.length - outermost : 1;
  return {
    family: 'x-forwarded',
    scheme: pickScheme(schemes, addresses.length, outermost),
    proto: lists.proto.length === 0 ? null : { header: 'X-Forwarded-Proto', value: lists.proto.join(', ') },
    host: pickHost(lists.host, addresses.length, outermost),
    hops,
    from: addresses[outermost] ?? null,
    beyond: schemes.length === addresses.length ? safest(schemes.slice(0, Math.max(outermost, 0))) : null,
    ports: lists.port.length === addresses.length && outermost >= 0 ? lists.port.slice(outermost, outermost + 1) : lists.port,
  };
}

function pickScheme(schemes: readonly (Scheme | null)[], addresses: number, outermost: number): Scheme | null {
  if (schemes.length <= 1) return schemes[0] ?? null;
  // no addresses, no lengths to compare: nobody knows whose word is whose, so that https wins
  if (addresses === 0) return schemes.includes('https') ? 'https' : schemes.includes(null) ? null : 'http';
  if (schemes.length === addresses) return schemes.slice(outermost).includes('https') ? 'https' : (schemes[outermost] ?? null);
  if (schemes.every((scheme) => scheme === schemes[0])) return schemes[0] ?? null;
  throw unequal('x-forwarded-proto', schemes.map((scheme) => scheme ?? '?').join(', '), schemes.length, addresses);
}

function pickHost(hosts: readonly string[], addresses: number, outermost: number): Said['host'] {
  const header = 'X-Forwarded-Host';
  const [first] = hosts;
  if (first === undefined) return null;
  if (hosts.length > 1 && hosts.length === addresses) return { header, value: hosts[outermost] ?? first };
  if (hosts.some((host) => host.toLowerCase() !== first.toLowerCase())) throw unequal('x-forwarded-host', hosts.join(', '), hosts.length, addresses);
  return { header, value: first };
}

export function unequal(name: ForwardingName, value: string, length: number, addresses?: number): OriginError {
  const header = properName(name);
  return new OriginError('origin_lists_unequal', {
    what: header,
    value,
    message:
      `${header} has ${length} values that differ (${shown(value)})` +
      `${addresses === undefined ? '' : `, X-Forwarded-For has ${addresses || 'none'}`}: which proxy said what can not be told`,
    remedy:
      `Let the outermost proxy replace ${header} instead of adding to what clients send, ` +
      'or let every proxy add to both headers; or set PUBLIC_URL.',
  });
}
