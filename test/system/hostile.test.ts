/** A short form of the soak's hostile pages: one that floods whoever listens, beside an ordinary recording. */
import { describe, expect, it } from 'vitest';
import { lacks } from '../helpers/service.ts';
import { hostile } from '../soak/hostile.ts';

describe.skipIf(await lacks('ffmpeg', 'headless shell'))('a hostile page', () => {
  it('has a recording that goes on or ends with a true error, and leaves the one beside it alone', async () => {
    // how evenly that one goes on is soak's to say, on a machine that has nothing else to do
    const { figures, failures } = await hostile({ engine: 'self', length: 6, deeds: ['flood'], shareAlone: 1, shareLoss: 0.5, gap: 3 });
    console.log(JSON.stringify(figures));
    expect(failures).toEqual([]);
  });
});
