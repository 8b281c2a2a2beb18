/** What the scaling rule promises, for any arrivals: the short form of `npm run simulate`. */
import { describe, expect, test } from 'vitest';
import { newSeed } from '../soak/outcome.ts';
import { NODE_START } from './fleet.ts';
import { SYNC_SECONDS } from './hpa.ts';
import { readRule } from './rule.ts';
import { run, runOnce, type Run } from './run.ts';
import { scenarioNames } from './scenarios.ts';

const rule = readRule();
const seed = newSeed();
const two: Omit<Run, 'name'> = { size: 100, slots: 2, rule, seeds: [seed, seed + 1, seed + 2] };

/** Until a new node's pod records: the next look, one more for each doubling from one pod, and the node. Seconds. */
const slowest = (pods: number) => SYNC_SECONDS * (1 + Math.max(0, Math.ceil(Math.log2(pods / rule.scaleUp.pods)))) + NODE_START[1] + SYNC_SECONDS;

describe(`the scaling rule (seed ${seed})`, () => {
  test.each(scenarioNames)('kills no recording, misses none, and keeps none waiting for longer than pods take to start: %s', (name) => {
    for (const size of [10, 100, 1000]) {
      for (const slots of [1, 2, 4]) {
        const figures = run({ ...two, name, size, slots, seeds: [seed] });
        const away = name === 'redis-away' ? 62 : 0;
        expect(figures, `${size} at once, ${slots} slots`).toMatchObject({ killed: 0, handedOver: 0, missed: 0 });
        expect(figures.most, `${size} at once, ${slots} slots`).toBeLessThanOrEqual(slowest((size * 1.5) / slots) + away);
      }
    }
  });

  test('has a slot for who comes while as many go', () => {
    for (const size of [100, 1000]) expect(run({ ...two, name: 'steady', size }).p99).toBe(0);
  });

  test('without a share of headroom leaves recordings waiting within the tolerance of the autoscaler', () => {
    const without = run({ ...two, name: 'steady', size: 1000, rule: { ...rule, headroom: { share: 0, slots: rule.headroom.slots } } });
    expect(without.waited).toBeGreaterThan(0.05);
    expect(without.p99).toBeGreaterThan(30);
  });

  test('lets a webinar of four hours end on its worker, which has long been told to leave', () => {
    const { points, killed, handedOver, missed } = runOnce({ ...two, name: 'webinar' }, seed);
    const late = points.filter(({ time }) => time > 3 * 3600);
    expect(late.some(({ pods, replicas }) => pods > replicas), 'pods that leave run on').toBe(true);
    expect({ killed, handedOver, missed }).toEqual({ killed: 0, handedOver: 0, missed: 0 });
  });

  test('gives what runs longer than DRAIN_TIMEOUT to another worker', () => {
    const figures = run({ ...two, name: 'webinar', more: { drainTimeout: 3600 } });
    expect(figures.handedOver).toBeGreaterThan(0);
    expect(figures).toMatchObject({ killed: 0, missed: 0 });
  });

  test('has workers for what others have no room for, where pages take more than their slots', () => {
    const day = (countFull: boolean) => run({ ...two, name: 'day', more: { closed: 0.25, countFull } });
    const [counted, not] = [day(true), day(false)];
    expect(counted).toMatchObject({ killed: 0, missed: 0 });
    expect(counted.most).toBeLessThanOrEqual(slowest(150));
    expect(not.waited).toBeGreaterThan(3 * counted.waited);
  });

  test('keeps its workers while Redis is away', () => {
    const { points } = runOnce({ ...two, name: 'redis-away', size: 1000 }, seed);
    const [from, until] = [45 * 60, 46 * 60 + 2 * SYNC_SECONDS];
    const during = points.filter(({ time }) => time >= from - SYNC_SECONDS && time <= until);
    expect(during.some(({ demand }) => Number.isNaN(demand))).toBe(true);
    for (const [i, { replicas }] of during.slice(1).entries()) expect(replicas).toBeGreaterThanOrEqual(during[i]?.replicas ?? 0);
  });

  test("is what the queue's length alone, or the processor, is not", () => {
    const ours = run({ ...two, name: 'day' });
    const queue = run({ ...two, name: 'day', way: 'queue' });
    const cpu = run({ ...two, name: 'day', way: 'cpu 20 %' });
    expect(ours.killed).toBe(0);
    for (const other of [queue, cpu]) {
      expect(other.killed).toBeGreaterThan(0);
      expect(other.waited).toBeGreaterThan(3 * ours.waited);
    }
  });
});
