import { expect, test } from 'vitest';
import { createStretches } from '../../worker/stretches.ts';

function told(least = 10, atMost = 3) {
  const warnings: [string, string][] = [];
  const stretches = createStretches({
    code: 'silence',
    least,
    atMost,
    text: (from, to, worst) => `No sound from ${from} to ${to} (${worst})`,
    warn: (code, message) => warnings.push([code, message]),
  });
  return { ...stretches, warnings };
}

test('a stretch is told once, when it is over, with its times and its worst', () => {
  const { note, end, warnings } = told();
  note(12, 1);
  for (let at = 13; at < 45; at += 1) note(at, at === 30 ? 7 : 2);
  expect(warnings).toEqual([]);
  note(45, null);
  note(46, null);
  end(60);
  expect(warnings).toEqual([['silence-12', 'No sound from 12.0 s to 45.0 s (7)']]);
});

test('one that lasts to the end is told at the end; one that is short is not', () => {
  const { note, end, warnings } = told();
  note(0, 1);
  note(9.9, null);
  note(20, 1);
  end(30);
  end(31);
  expect(warnings).toEqual([['silence-20', 'No sound from 20.0 s to 30.0 s (1)']]);
});

test('of many, the first are told, and that there are more', () => {
  const { note, warnings } = told();
  for (let at = 0; at < 2000; at += 40) {
    note(at, 1);
    note(at + 20, null);
  }
  expect(warnings.map(([code]) => code)).toEqual(['silence-0', 'silence-40', 'silence-80', 'silence-more']);
});
