/** Generated requests, in a short form; `npm run fuzz` makes many more. */
import { expect, test } from 'vitest';
import { errorKinds } from '../../../shared/errors.ts';
import { aliasNames } from '../../../edge/origin/headers.ts';
import { fuzzOrigin } from '../../fuzz/run.ts';

const RUNS = 30_000;

test(`of ${RUNS} requests none breaks a promise, and every answer there is was given`, { timeout: 60_000 }, async () => {
  // a failure names its seed
  const counts = await fuzzOrigin(RUNS, Date.now() % 2 ** 31);
  const refusals = Object.keys(errorKinds).filter((code) => code.startsWith('origin_')).map((code) => `refused ${code}`);
  const sources = ['PUBLIC_URL', 'platform', 'forwarded', 'x-forwarded', 'socket', ...aliasNames].map((source) => `source ${source}`);
  const answers = ['media ws', 'media wss', 'way honest, truth told', 'way forged, truth told', ...refusals, ...sources];
  expect(answers.filter((answer) => (counts.get(answer) ?? 0) < 3)).toEqual([]);
});
