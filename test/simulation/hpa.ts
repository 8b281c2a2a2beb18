/**
 * The horizontal pod autoscaler for one external metric with an AverageValue, as Kubernetes carries it out:
 * pkg/controller/podautoscaler/replica_calculator.go (GetExternalPerPodMetricReplicas) and horizontal.go
 * (stabilizeRecommendationWithBehaviors, convertDesiredReplicasWithBehaviorRate, calculateScale{Up,Down}Limit...).
 * Whether pods are ready plays no part for such a metric. Times are in seconds.
 */

/** Between two looks, `--horizontal-pod-autoscaler-sync-period`; the next one is so long after the last has ended. */
export const SYNC_SECONDS = 15;
/** `--horizontal-pod-autoscaler-tolerance`: a share by which the metric may be off before anything is done. */
export const TOLERANCE = 0.1;

export type Policy = { type: 'Pods' | 'Percent'; value: number; periodSeconds: number };
export type Behavior = {
  stabilizationSeconds: number;
  policies: readonly Policy[];
  /** Which policy holds of several: that of the largest change, or of the least. */
  select: 'Max' | 'Min';
};

export type HpaSpec = {
  minReplicas: number;
  maxReplicas: number;
  /** AverageValue: of the metric, for each replica. */
  target: number;
  scaleUp: Behavior;
  scaleDown: Behavior;
  tolerance?: number;
  /**
   * How many replicas a metric asks for, where that is not the metric's value for each replica (AverageValue).
   * @param within the ratio is within the tolerance
   */
  replicasOf?: (value: number, replicas: number, within: (ratio: number) => boolean) => number;
};

export type Hpa = {
  /** One look. @param value of the metric; null where it can't be had, and nothing is changed. @returns replicas that there should be */
  sync(now: number, replicas: number, value: number | null): number;
};

type Change = { time: number; replicas: number };

export function createHpa(spec: HpaSpec): Hpa {
  const tolerance = spec.tolerance ?? TOLERANCE;
  let recommended: Change[] = [];
  let ups: Change[] = [];
  let downs: Change[] = [];
  const longest = (behavior: Behavior) => Math.max(...behavior.policies.map(({ periodSeconds }) => periodSeconds));
  const within = (ratio: number) => Math.abs(1 - ratio) <= tolerance;

  const wanted = (value: number, replicas: number): number => {
    if (spec.replicasOf !== undefined) return spec.replicasOf(value, replicas, within);
    // the metric travels in thousandths
    const milli = Math.round(value * 1000);
    if (replicas > 0 && within(milli / (spec.target * 1000 * replicas))) return replicas;
    return Math.ceil(milli / (spec.target * 1000));
  };

  const stabilized = (now: number, replicas: number, desired: number): number => {
    const since = (seconds: number) => recommended.filter(({ time }) => time > now - seconds).map((each) => each.replicas);
    const least = Math.min(desired, ...since(spec.scaleUp.stabilizationSeconds));
    const most = Math.max(desired, ...since(spec.scaleDown.stabilizationSeconds));
    const window = Math.max(spec.scaleUp.stabilizationSeconds, spec.scaleDown.stabilizationSeconds);
    recommended = recommended.filter(({ time }) => time > now - window);
    recommended.push({ time: now, replicas: desired });
    return Math.min(Math.max(replicas, least), most);
  };

  /** How far a behavior lets go from here. */
  const limit = (now: number, replicas: number, { policies, select }: Behavior, sign: 1 | -1): number => {
    const proposals = policies.map(({ type, value, periodSeconds }) => {
      const sum = (changes: readonly Change[]) => changes.reduce((all, { time, replicas: by }) => all + (time > now - periodSeconds ? by : 0), 0);
      const start = replicas - sum(ups) + sum(downs);
      if (type === 'Pods') return start + sign * value;
      // up it is rounded up, so that it goes up at all; down it is cut off by the conversion to an integer
      return sign > 0 ? Math.ceil(start * (1 + value / 100)) : Math.trunc(start * (1 - value / 100));
    });
    return (select === 'Max') === (sign > 0) ? Math.max(...proposals) : Math.min(...proposals);
  };

  return {
    sync(now, replicas, value) {
      if (value === null) return replicas;
      if (recommended.length === 0) recommended.push({ time: now, replicas });
      const desired = stabilized(now, replicas, wanted(value, replicas));
      let next = desired;
      if (desired > replicas) next = Math.min(desired, spec.maxReplicas, Math.max(replicas, limit(now, replicas, spec.scaleUp, 1)));
      if (desired < replicas) next = Math.max(desired, spec.minReplicas, Math.min(replicas, limit(now, replicas, spec.scaleDown, -1)));
      next = Math.min(Math.max(next, spec.minReplicas), spec.maxReplicas);
      ups = ups.filter(({ time }) => time > now - longest(spec.scaleUp) - longest(spec.scaleDown));
      downs = downs.filter(({ time }) => time > now - longest(spec.scaleUp) - longest(spec.scaleDown));
      if (next > replicas) ups.push({ time: now, replicas: next - replicas });
      if (next < replicas) downs.push({ time: now, replicas: replicas - next });
      return next;
    },
  };
}
