/** What was denied to the pages of all recordings of this worker, for its metrics. */
import { metricText } from '../shared/metrics.ts';
import { denialClasses, type DenialClass } from '../shared/outbound/policy.ts';

export type OutboundMetrics = {
  denied(dials: Partial<Record<DenialClass, number>>): void;
  /** As Prometheus reads it. */
  text(): string;
};

export function createOutboundMetrics(): OutboundMetrics {
  const counts = new Map<DenialClass, number>(denialClasses.map((name) => [name, 0]));
  return {
    denied(dials) {
      for (const name of denialClasses) counts.set(name, (counts.get(name) ?? 0) + (dials[name] ?? 0));
    },
    text: () =>
      metricText(
        'tabreel_worker_outbound_denied_total',
        'counter',
        'Connections of pages that were denied, by what their address is.',
        [...counts].map(([name, value]) => ({ labels: { class: name }, value })),
      ),
  };
}
