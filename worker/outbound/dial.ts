/** Resolves, asks whether that is allowed, and dials the very addresses that were judged: no second look-up in between. */
import { lookup } from 'node:dns/promises';
import { connect, isIP, type Socket } from 'node:net';
import { isLocalhost, localhostAddresses } from '../../shared/address.ts';
import type { Denial, Judge } from '../../shared/outbound/policy.ts';

/** @property path where it is dialled for one plain GET alone */
export type Target = { host: string; port: number; path?: string | undefined };

/** Milliseconds. */
export type DialTimes = { lookup: number; connect: number; stagger: number };

export const defaultDialTimes: DialTimes = { lookup: 10_000, connect: 15_000, stagger: 250 };

/** Why a target can't be reached: the system's code (`ENOTFOUND`, `ECONNREFUSED`), `ETIMEDOUT`, or `DENIED`. */
export class DialError extends Error {
  override readonly name = 'DialError';
  readonly code: string;
  /** Where it is `DENIED`. */
  readonly denial: Denial | null;

  constructor(code: string, message: string, denial: Denial | null = null) {
    super(message);
    this.code = code;
    this.denial = denial;
  }
}

/** @throws {DialError}; whatever the signal was aborted with. The socket is connected. */
export async function dial(target: Target, judge: Judge, signal: AbortSignal, times: DialTimes = defaultDialTimes): Promise<Socket> {
  const addresses = await addressesOf(target.host, times.lookup);
  signal.throwIfAborted();
  const denial = await judge({ ...target, addresses });
  signal.throwIfAborted();
  if (denial !== null) throw new DialError('DENIED', `${target.host} is ${denial.reason}, which is not open to recordings`, denial);
  return connectAny(addresses, target.port, signal, times);
}

async function addressesOf(host: string, limit: number): Promise<string[]> {
  const literal = host.startsWith('[') ? host.slice(1, -1) : host;
  if (isIP(literal) !== 0) return [literal];
  // browsers know these by themselves, but through a proxy they send the name
  if (isLocalhost(literal)) return [...localhostAddresses];
  const found = await within(lookup(literal, { all: true, order: 'verbatim' }), limit, () => new DialError('ETIMEDOUT', `looking up ${host} took too long`)).catch(
    (error: NodeJS.ErrnoException) => {
      throw error instanceof DialError ? error : new DialError(error.code ?? 'ENOTFOUND', `${host} does not resolve (${error.code ?? error.message})`);
    },
  );
  if (found.length === 0) throw new DialError('ENOTFOUND', `${host} has no address`);
  return alternate(found.map(({ address }) => address));
}

/** IPv6 and IPv4 by turns, beginning with whichever the resolver put first (RFC 8305). */
function alternate(addresses: readonly string[]): string[] {
  const first = isIP(addresses[0] ?? '');
  const one = addresses.filter((address) => isIP(address) === first);
  const other = addresses.filter((address) => isIP(address) !== first);
  return one.flatMap((address, i) => (other[i] === undefined ? [address] : [address, other[i]])).concat(other.slice(one.length));
}

/** Happy eyeballs: the next address gets its chance when one fails or is slow, and the first that connects wins. */
function connectAny(addresses: readonly string[], port: number, signal: AbortSignal, times: DialTimes): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const dialling = new Set<Socket>();
  const rest = [...addresses];
  let firstError: DialError | null = null;
  let staggered: NodeJS.Timeout | undefined;

  const end = () => {
    clearTimeout(staggered);
    clearTimeout(limit);
    signal.removeEventListener('abort', onAbort);
    for (const socket of dialling) socket.destroy();
    dialling.clear();
  };
  const onAbort = () => {
    end();
    reject(signal.reason as Error);
  };
  const limit = setTimeout(() => {
    end();
    reject(new DialError('ETIMEDOUT', `${addresses.join(', ')} port ${port} did not answer in ${times.connect / 1000} s`));
  }, times.connect);

  const next = () => {
    clearTimeout(staggered);
    const address = rest.shift();
    if (address === undefined) {
      if (dialling.size > 0) return;
      end();
      reject(firstError ?? new DialError('ENOTFOUND', 'no address to dial'));
      return;
    }
    // the name is settled: an address is dialled, so that nothing looks it up again
    const socket = connect({ host: address, port, noDelay: true, allowHalfOpen: true, keepAlive: true, keepAliveInitialDelay: 60_000 });
    dialling.add(socket);
    socket.once('connect', () => {
      dialling.delete(socket);
      socket.removeAllListeners('error');
      end();
      resolve(socket);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (!dialling.delete(socket)) return;
      firstError ??= new DialError(error.code ?? 'ECONNRESET', `${address} port ${port}: ${error.code ?? error.message}`);
      next();
    });
    if (rest.length > 0) staggered = setTimeout(next, times.stagger);
  };

  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  else next();
  return promise;
}

function within<T>(promise: Promise<T>, limit: number, error: () => Error): Promise<T> {
  const { promise: timeout, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(error()), limit);
  return Promise.race([promise, timeout]).finally(() => clearTimeout(timer));
}
