/** Short forms of `npm run soak`: real processes, killed for real. */
import { describe, expect, it } from 'vitest';
import { lacks } from '../helpers/service.ts';
import { fullDisk } from '../soak/full-disk.ts';
import { kills } from '../soak/kills.ts';
import { newSeed, type Outcome } from '../soak/outcome.ts';
import { redisAway } from '../soak/redis-away.ts';
import { stops } from '../soak/stops.ts';

const holds = ({ seed, figures, failures }: Outcome) => {
  console.log(`seed ${seed}: ${JSON.stringify(figures)}`);
  expect(failures, `seed ${seed}`).toEqual([]);
};
/** Four fleets run side by side: `npm run soak` looks at the times that are promised. */
const slack = 3;
const size = { width: 320, height: 180 };
const noDisk = await lacks('root');

describe.skipIf(await lacks('ffmpeg', 'redis-server', 'headless shell')).concurrent('recordings', () => {
  it('outlive what they are made with, and have all that was stored', async () => {
    const killed = ['recorder', ['edge', 'finaliser'], 'browser', 'worker'] as const;
    holds(await kills({ seed: newSeed(), length: 34, kills: killed, settle: null, size, slack }));
  });

  it('end in a file, or canceled, whenever they are stopped', async () => {
    holds(await stops({ seed: newSeed(), count: 6, latest: 6, lanes: 1, slack }));
  });

  it('go on where Redis is away, and are not begun again when it is back', async () => {
    holds(await redisAway({ seed: newSeed(), away: 6, after: 4, slack }));
  });

  it.skipIf(noDisk)('keep what was stored where the disk is full, and say so', async () => {
    holds(await fullDisk({ seed: newSeed(), length: 14, full: 6, stop: false }));
  });
});
