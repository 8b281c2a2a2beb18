import { defineConfig } from 'vitest/config';
import LongestFirst from './test/longest-first.ts';

/** Whole recordings whose evenness is looked at, and fleets that need the machine. */
const measured = ['ant-media', 'engines', 'recorder-pause', 'recovery'].map((name) => `test/system/${name}.test.ts`);
const system = { testTimeout: 120_000, hookTimeout: 60_000 };

export default defineConfig({
  test: {
    globalSetup: 'test/compile-cache.ts',
    // Most tests drive browsers and servers beside others: one that fails has a second try, and is named at the end of the run.
    retry: 1,
    sequence: { sequencer: LongestFirst },
    reporters: ['default', './test/run-end.ts'],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['**/node_modules/**', 'test/system/**'],
          // ends what hangs, and nothing that only waits for the processor
          testTimeout: 30_000,
          hookTimeout: 60_000,
          // servers and waiting, little work
          maxWorkers: 4,
        },
      },
      {
        test: {
          ...system,
          name: 'measured',
          include: measured,
          // one at a time, and not beside the others
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...system,
          name: 'system',
          include: ['test/system/**/*.test.ts'],
          exclude: measured,
          // most of the time they wait for a recording to go on
          maxWorkers: 3,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
