import { expect, test } from 'vitest';
import { createBackpressure } from '../../worker/backpressure.ts';

test('less is encoded the more waits, and all of it again once little does', () => {
  const normal = { bitrate: 3_000_000, frameRate: 30 };
  const terms = createBackpressure(normal);
  const half = { bitrate: 1_500_000, frameRate: 30 };
  const quarter = { bitrate: 750_000, frameRate: 15 };
  expect([0, 0.2, 0.26, 0.3, 0.51, 0.4, 0.2, 0.11, 0.09, 0, 0.9, 0.05].map((pressure) => terms(pressure))).toEqual([
    null, null, half, null, quarter, null, null, null, normal, null, quarter, normal,
  ]); // prettier-ignore
});
