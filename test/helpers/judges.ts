import type { Judge } from '../../shared/outbound/policy.ts';

/** Opens what passes, whatever the rules of the product would say. */
export const openTo =
  (passes: (address: string, port: number) => boolean): Judge =>
  async ({ addresses, port }) =>
    addresses.every((address) => passes(address, port)) ? null : { class: 'loopback', reason: 'a loopback address' };

export const openToAll = openTo(() => true);
