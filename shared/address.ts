/** What a host name or an address says of itself, without asking a resolver. */

/** 127.0.0.0/8 and the name that browsers and resolvers keep for it (RFC 6761), also as an IPv6 address. */
const loopback =
  /^(?:(?:.+\.)?localhost\.?|127(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}|\[?(?:::1|(?:0+:){7}0*1|::ffff:(?:7f[0-9a-f]{2}:[0-9a-f]{1,4}|127(?:\.\d{1,3}){3}))\]?)$/i;

/** @param host a name or an address; an IPv6 one with or without its brackets */
export const isLoopbackHost = (host: string): boolean => loopback.test(host);

/** The names that never leave the machine, whatever its resolver knows (RFC 6761, 6.3). */
export const isLocalhost = (name: string): boolean => /^(?:.+\.)?localhost\.?$/i.test(name);
/** What they mean. */
export const localhostAddresses: readonly string[] = ['127.0.0.1', '::1'];
