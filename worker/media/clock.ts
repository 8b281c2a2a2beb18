/** The one clock of a recording: the machine's monotonic clock, in microseconds; Chromium stamps its frames with it too. */

import { hrtime } from 'node:process';

/** CLOCK_MONOTONIC, as Chromium's base::TimeTicks on Linux. */
export const monotonicMicros = (): number => Number(hrtime.bigint() / 1000n);
