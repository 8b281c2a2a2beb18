import { describe, expect, test } from 'vitest';
import { createWatchdog, watchdogTimes } from '../../worker/watchdog.ts';

/** Lets seconds pass, with what happens in each of them. */
function scene() {
  let now = 0;
  const watchdog = createWatchdog(watchdogTimes, () => now);
  const found: (string | null)[] = [];
  const pass = (seconds: number, each: { packet?: boolean; page?: boolean; capture?: boolean } = {}) => {
    for (let i = 0; i < seconds; i += 1) {
      now += 1000;
      if (each.page !== false) watchdog.pageAnswered();
      if (each.capture !== false) watchdog.captureAnswered();
      if (each.packet !== false) watchdog.packet();
      found.push(watchdog.check()?.code ?? null);
    }
    return found.findLast((code) => code !== null) ?? null;
  };
  return {
    watchdog,
    pass,
    /** As after a moment in which this process itself stood still. */
    stand(seconds: number) {
      now += seconds * 1000;
      return watchdog.check()?.code ?? null;
    },
  };
}

describe('a recording', () => {
  test('that records is left alone, and so is one of a still page', () => {
    const { watchdog, pass } = scene();
    watchdog.expect(true);
    expect(pass(100)).toBeNull();
    for (let i = 0; i < 50; i += 1) {
      expect(pass(1, { packet: false })).toBeNull();
      expect(pass(1)).toBeNull();
    }
  });

  test('of which no picture comes while everybody answers is frozen, after 6 seconds', () => {
    const { watchdog, pass } = scene();
    watchdog.expect(true);
    expect(pass(6, { packet: false })).toBeNull();
    expect(pass(1, { packet: false })).toBe('capture_frozen');
  });

  test('whose page blocks for 3 seconds goes on, for 9 is hung, whatever else stands still', () => {
    const blocked = { page: false, capture: false, packet: false };
    const { watchdog, pass } = scene();
    watchdog.expect(true);
    for (let i = 0; i < 10; i += 1) {
      expect(pass(3, blocked)).toBeNull();
      expect(pass(4)).toBeNull();
    }
    expect(pass(8, blocked)).toBeNull();
    expect(pass(1, blocked)).toBe('page_hung');
  });

  test('whose page was held up for 7 seconds gets a moment for its pictures', () => {
    const { watchdog, pass } = scene();
    watchdog.expect(true);
    pass(7, { page: false, capture: false, packet: false });
    expect(pass(2, { packet: false })).toBeNull();
    expect(pass(10)).toBeNull();
  });

  test('whose capture does not answer is frozen', () => {
    const { watchdog, pass } = scene();
    watchdog.expect(true);
    expect(pass(10, { capture: false, packet: false })).toBeNull();
    expect(pass(1, { capture: false, packet: false })).toBe('capture_frozen');
  });

  test('that rests gives no pictures, and its page may hang all the same', () => {
    const { watchdog, pass } = scene();
    watchdog.expect(true);
    pass(5);
    watchdog.expect(false);
    expect(pass(60, { packet: false })).toBeNull();
    watchdog.expect(true);
    expect(pass(5, { packet: false })).toBeNull();
    watchdog.expect(false);
    expect(pass(9, { packet: false, page: false })).toBe('page_hung');
  });

  test('whose own process stood still has not missed what came meanwhile', () => {
    const { watchdog, pass, stand } = scene();
    watchdog.expect(true);
    pass(5);
    expect(stand(60)).toBeNull();
    expect(pass(5)).toBeNull();
  });
});
