/** What Kubernetes' own tests and documents say of the autoscaler, held against ours. */
import { describe, expect, test } from 'vitest';
import { createHpa, SYNC_SECONDS, type HpaSpec } from './hpa.ts';
import { createScaler, hpaSpec, readRule, type Rule } from './rule.ts';

const free: HpaSpec = {
  minReplicas: 1,
  maxReplicas: 1000,
  target: 2,
  scaleUp: { stabilizationSeconds: 0, policies: [{ type: 'Percent', value: 100, periodSeconds: 15 }, { type: 'Pods', value: 4, periodSeconds: 15 }], select: 'Max' },
  scaleDown: { stabilizationSeconds: 0, policies: [{ type: 'Percent', value: 100, periodSeconds: 15 }], select: 'Max' },
};

describe('the autoscaler', () => {
  test('does nothing within a tenth, and rounds up beyond it', () => {
    for (const [value, replicas] of [[20, 10], [21.9, 10], [22.1, 12], [18, 10], [17.9, 9], [18.1, 10]] as const) {
      expect(createHpa(free).sync(0, 10, value), `${value} for 10 replicas`).toBe(replicas);
    }
  });

  test('changes nothing without a metric, and keeps within its bounds', () => {
    const hpa = createHpa({ ...free, minReplicas: 2, maxReplicas: 12 });
    expect(hpa.sync(0, 10, null)).toBe(10);
    expect(hpa.sync(15, 10, 100)).toBe(12);
    expect(hpa.sync(30, 12, 0)).toBe(2);
  });

  test('doubles at most in fifteen seconds, or adds four, whichever is more', () => {
    const hpa = createHpa(free);
    const seen = [1];
    for (let i = 0; i < 6; i += 1) seen.push(hpa.sync(i * SYNC_SECONDS, seen.at(-1) as number, 200));
    expect(seen).toEqual([1, 5, 10, 20, 40, 80, 100]);
  });

  test('takes the least change where that is asked for', () => {
    const hpa = createHpa({ ...free, scaleUp: { ...free.scaleUp, select: 'Min' } });
    expect(hpa.sync(0, 10, 200)).toBe(14);
    expect(hpa.sync(5, 14, 200), 'in the same fifteen seconds').toBe(14);
    expect(hpa.sync(20, 14, 200)).toBe(18);
  });

  test('follows the most that it wanted within the stabilization window when it goes down', () => {
    const hpa = createHpa({ ...free, scaleDown: { ...free.scaleDown, stabilizationSeconds: 60 } });
    expect(hpa.sync(0, 10, 20)).toBe(10);
    expect(hpa.sync(15, 10, 6)).toBe(10);
    expect(hpa.sync(30, 10, 12)).toBe(10);
    expect(hpa.sync(61, 10, 6), 'of the last minute: 3, 6, 3').toBe(6);
    expect(hpa.sync(91, 6, 6)).toBe(3);
  });

  test('goes down by so many a period, what it has gone in it counted', () => {
    const hpa = createHpa({ ...free, scaleDown: { stabilizationSeconds: 0, policies: [{ type: 'Percent', value: 5, periodSeconds: 60 }, { type: 'Pods', value: 1, periodSeconds: 60 }], select: 'Max' } });
    expect(hpa.sync(0, 200, 20)).toBe(190);
    expect(hpa.sync(30, 190, 20)).toBe(190);
    expect(hpa.sync(61, 190, 20)).toBe(180);
    expect(hpa.sync(300, 10, 2)).toBe(9);
  });
});

describe('the rule', () => {
  test('adds its headroom to the demand, and divides by the slots of a worker', () => {
    const rule: Rule = { ...readRule(), headroom: { share: 0.15, slots: 1 }, maxReplicas: 1000 };
    expect(createScaler(rule, 2).sync(0, 50, 120)).toBe(Math.ceil((120 * 1.15 + 1) / 2));
    expect(createScaler(rule, 2).sync(0, 50, null), "KEDA's fallback").toBe(50);
  });

  test('has a share of headroom beyond the tolerance of the autoscaler', () => {
    const rule = readRule();
    expect(rule.headroom.share).toBeGreaterThan(0.1);
    expect(hpaSpec(rule, 2).scaleUp.stabilizationSeconds).toBe(0);
  });
});
