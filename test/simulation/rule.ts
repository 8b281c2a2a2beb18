/** The rule by which the number of workers follows the demand, with the chart's own values. */
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { createHpa, type Behavior, type Hpa, type HpaSpec } from './hpa.ts';

/** As `worker.autoscaling` in the chart's values; seconds. */
export type Rule = {
  minReplicas: number;
  maxReplicas: number;
  /** What there is to be beyond the demand: a share of it, and slots. */
  headroom: { share: number; slots: number };
  scaleUp: Steps;
  scaleDown: Steps;
};
/** Within a period, whichever is more. */
type Steps = { stabilizationSeconds: number; percent: number; pods: number; periodSeconds: number };

const chart = new URL('../../deploy/chart/values.yaml', import.meta.url);

/** The chart's own. */
export function readRule(): Rule {
  const { worker } = parse(readFileSync(chart, 'utf8')) as { worker: { autoscaling: Rule } };
  return worker.autoscaling;
}

/** KEDA's formula over the demand: what the autoscaler divides by the slots of a worker. */
export const withHeadroom = (demand: number, { share, slots }: Rule['headroom']): number => demand * (1 + share) + slots;

const behavior = ({ stabilizationSeconds, percent, pods, periodSeconds }: Steps): Behavior => ({
  stabilizationSeconds,
  policies: [
    ...(percent > 0 ? [{ type: 'Percent' as const, value: percent, periodSeconds }] : []),
    ...(pods > 0 ? [{ type: 'Pods' as const, value: pods, periodSeconds }] : []),
  ],
  select: 'Max',
});

export const hpaSpec = (rule: Rule, slots: number): HpaSpec => ({
  minReplicas: rule.minReplicas,
  maxReplicas: rule.maxReplicas,
  target: slots,
  scaleUp: behavior(rule.scaleUp),
  scaleDown: behavior(rule.scaleDown),
});

/** @param slots of a worker. @returns one that is given the demand, without headroom; null while it can't be read, as KEDA's fallback to the current replicas */
export function createScaler(rule: Rule, slots: number): Hpa {
  const hpa = createHpa(hpaSpec(rule, slots));
  return { sync: (now, replicas, demand) => hpa.sync(now, replicas, demand === null ? null : withHeadroom(demand, rule.headroom)) };
}
