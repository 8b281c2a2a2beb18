/** Makes requests and checks them; what fails is made as small as it can be. */
import fc from 'fast-check';
import { checkSoup, checkWay, type Counts } from './check.ts';
import { facts, policy } from './soup.ts';
import { way } from './way.ts';

/**
 * Half of the runs are requests of any kind, half came a way that is known.
 * @throws {Error} with the smallest request that breaks a promise, and the seed
 */
export async function fuzzOrigin(runs: number, seed: number, counts: Counts = new Map()): Promise<Counts> {
  const half = Math.ceil(runs / 2);
  const parameters = { seed, numRuns: half, endOnFailure: false };
  await fc.assert(
    fc.asyncProperty(facts(5), policy, fc.boolean(), (request, settings, workerHere) => checkSoup(request, settings, counts, workerHere)),
    parameters,
  );
  fc.assert(
    fc.property(way, (request) => checkWay(request, counts)),
    parameters,
  );
  return counts;
}
