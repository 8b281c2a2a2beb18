/** How long recordings waited for a slot: what a fleet is sized by. */
import { metricText } from '../shared/metrics.ts';

/** Seconds: from a slot that is free to a new machine that has to come up, and what is too long by any measure. */
const buckets = [0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 900];

export function createQueueWait() {
  const within = buckets.map(() => 0);
  let sum = 0;
  let count = 0;
  return {
    /** @param seconds from when a job was due until its attempt began, by the clocks of the edge and of Redis */
    note(seconds: number): void {
      sum += seconds;
      count += 1;
      buckets.forEach((limit, i) => {
        if (seconds <= limit) within[i] = (within[i] ?? 0) + 1;
      });
    },
    text: (): string =>
      metricText('tabreel_queue_wait_seconds', 'histogram', 'From when an attempt was due until it began.', [
        ...buckets.map((le, i) => ({ suffix: '_bucket', labels: { le }, value: within[i] ?? 0 })),
        { suffix: '_bucket', labels: { le: '+Inf' }, value: count },
        { suffix: '_sum', value: sum },
        { suffix: '_count', value: count },
      ]),
  };
}
