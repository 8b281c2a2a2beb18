import { expect, test } from 'vitest';
import { killCreates } from './create-killed.ts';

test('an edge that is killed between the two writes of a create leaves exactly one recording, with its job', async () => {
  const found = await killCreates(6, { jobless: 500, round: 500 });
  console.log(`create killed: ${JSON.stringify(found)}`);
  expect(found).toMatchObject({ kills: 6, unqueued: 0, doubled: 0, recordings: 6, jobs: 6, left: 0 });
});
