/** Ways to set the size of a fleet: ours, and those that come to mind first. */
import type { FleetOptions, Sight } from './fleet.ts';
import { createHpa } from './hpa.ts';
import { createScaler, hpaSpec, withHeadroom, type Rule } from './rule.ts';

export type Way = {
  told: string;
  /** What a pod that leaves is given, where that is not all that it needs: seconds. */
  grace?: number;
  scale: (rule: Rule, slots: number) => FleetOptions['scale'];
};

/** Of what a worker asks for: two cores for each slot. */
const CORES_OF_SLOT = 2;
/** Seconds: metrics-server looks every 15 s, and takes the mean since its last look. */
const METRICS_LATE = 30;

const byDemand = (rule: Rule, slots: number): FleetOptions['scale'] => {
  const scaler = createScaler(rule, slots);
  return ({ now, replicas, demand }) => scaler.sync(now, replicas, demand);
};

const byQueue = (rule: Rule, slots: number): FleetOptions['scale'] => {
  const hpa = createHpa(hpaSpec(rule, slots));
  return ({ now, replicas, waiting }) => hpa.sync(now, replicas, waiting === null ? null : withHeadroom(waiting, rule.headroom));
};

/** Resource metric with a Utilization: replica_calculator.go, GetResourceReplicas. */
const byCpu = (target: number) => (rule: Rule, slots: number): FleetOptions['scale'] => {
  const past: { now: number; use: number; ready: number }[] = [];
  const hpa = createHpa({
    ...hpaSpec(rule, slots),
    replicasOf(ratio, replicas, within) {
      const ready = past[0]?.ready ?? replicas;
      if (within(ratio)) return replicas;
      if (ratio < 1 || ready >= replicas) return Math.ceil(ratio * ready);
      // pods that are not ready yet count as using nothing
      const all = (ratio * ready) / replicas;
      return within(all) || all < 1 ? replicas : Math.ceil(all * replicas);
    },
  });
  return ({ now, replicas, cores, ready }: Sight) => {
    past.push({ now, use: cores, ready });
    while ((past[1]?.now ?? Infinity) <= now - METRICS_LATE) past.shift();
    const [seen] = past;
    if (seen === undefined || seen.ready === 0) return replicas;
    return hpa.sync(now, replicas, seen.use / (seen.ready * slots * CORES_OF_SLOT) / target);
  };
};

export const ways = {
  demand: { told: 'demand with headroom: the rule', scale: byDemand },
  'slots only': {
    told: 'demand, and slots for headroom, but no share',
    scale: (rule, slots) => byDemand({ ...rule, headroom: { share: 0, slots: rule.headroom.slots } }, slots),
  },
  queue: { told: "the queue's length; pods are given 30 s to leave, Kubernetes' default", grace: 30, scale: byQueue },
  'queue, drained': { told: "the queue's length; pods may finish", scale: byQueue },
  'cpu 50 %': { told: 'half of the processor that workers ask for; 30 s to leave', grace: 30, scale: byCpu(0.5) },
  'cpu 20 %': { told: 'a fifth of it; 30 s to leave', grace: 30, scale: byCpu(0.2) },
} as const satisfies Record<string, Way>;
