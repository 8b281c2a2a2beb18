/** Short forms of `npm run soak`: real processes, killed for real. Redis and disks that are away: trouble.test.ts. */
import { describe, expect, it } from 'vitest';
import { lacks } from '../helpers/service.ts';
import { kills } from '../soak/kills.ts';
import { newSeed, type Outcome } from '../soak/outcome.ts';
import { stops } from '../soak/stops.ts';

const holds = ({ seed, figures, failures }: Outcome) => {
  console.log(`seed ${seed}: ${JSON.stringify(figures)}`);
  expect(failures, `seed ${seed}`).toEqual([]);
};
/** Two fleets run side by side: `npm run soak` looks at the times that are promised. */
const slack = 3;
const size = { width: 320, height: 180 };

describe.skipIf(await lacks('ffmpeg', 'redis-server', 'headless shell')).concurrent('recordings', () => {
  it('outlive what they are made with, and have all that was stored', async () => {
    const killed = ['recorder', ['edge', 'finaliser'], 'browser', 'worker'] as const;
    holds(await kills({ seed: newSeed(), length: 34, kills: killed, settle: null, size, slack }));
  });

  it('end in a file, or canceled, whenever they are stopped', async () => {
    holds(await stops({ seed: newSeed(), count: 6, latest: 6, lanes: 1, slack }));
  });
});
