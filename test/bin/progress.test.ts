import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createProgress } from '../../bin/progress.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: 1_753_900_000_000 });
});
afterEach(() => {
  vi.useRealTimers();
});
const later = (seconds: number) => vi.setSystemTime(Date.now() + seconds * 1000);

function terminal(isTTY: boolean) {
  let written = '';
  return {
    stream: { isTTY, write: (text: string) => (written += text) !== '' } as unknown as NodeJS.WriteStream,
    written: () => written,
    /** What stands on the screen: a line is wiped by what comes after a carriage return. */
    screen: () =>
      written
        .split('\n')
        .map((line) => line.split('\r\u001b[2K').at(-1) ?? '')
        .join('\n'),
  };
}
const stats = { frames: 300, dropped: 0, bytes: 3_456_789, fps: 29.97, bitrate: 3_041_000, avDrift: 0, lagSeconds: 1 };

describe('on a terminal', () => {
  test('one line follows the recording', () => {
    const { stream, screen, written } = terminal(true);
    const progress = createProgress(stream, 90);
    progress.state('queued');
    expect(screen()).toBe('queued …');
    progress.state('starting');
    expect(screen()).toBe('starting …');
    progress.state('recording');
    expect(screen()).toBe('recording  00:00 / 01:30  0.0 fps  0.00 Mb/s  0.0 MB');
    later(65.9);
    progress.stats(stats);
    expect(screen()).toBe('recording  01:05 / 01:30  30.0 fps  3.04 Mb/s  3.5 MB');
    // finishing takes longer than what is recorded
    later(60);
    progress.stats({ ...stats, dropped: 7 });
    progress.state('finishing');
    expect(screen()).toBe('finishing  01:30 / 01:30  30.0 fps  3.04 Mb/s  3.5 MB  7 dropped');
    expect(written()).not.toContain('\n');
    progress.end();
    expect(screen()).toBe('');
  });

  test('a word in between stands above it, and another attempt does not set the clock back', () => {
    const { stream, screen } = terminal(true);
    const progress = createProgress(stream, null);
    progress.state('recording');
    later(3600 + 23 * 60 + 45);
    progress.line('the page was loaded anew');
    expect(screen()).toBe('the page was loaded anew\nrecording  1:23:45  0.0 fps  0.00 Mb/s  0.0 MB');
    progress.stats(stats);
    progress.state('starting');
    later(3);
    progress.line('Attempt 1 ended: the tab crashed');
    // what is lost between two attempts stays in the file
    expect(screen()).toMatch(/\nAttempt 1 ended: the tab crashed\nstarting again {2}1:23:48 {2}3\.5 MB$/);
    progress.state('recording');
    expect(screen()).toMatch(/\nrecording {2}1:23:48 {2}30\.0 fps/);
  });

  test('the clock stands still in a pause, and once there is nothing more to record', () => {
    const { stream, screen } = terminal(true);
    const progress = createProgress(stream, null);
    progress.state('starting');
    progress.state('paused');
    expect(screen()).toBe('paused …');
    later(5);
    progress.state('recording');
    later(10);
    progress.state('paused');
    later(100);
    progress.line('still here');
    expect(screen()).toBe('still here\npaused  00:10  0.0 MB');
    progress.state('recording');
    later(2);
    progress.state('finishing');
    later(60);
    progress.state('completed');
    expect(screen()).toMatch(/\ncompleted {2}00:12 {2}/);
  });
});

describe('in a log', () => {
  test('a change of state is a line at once, and figures are one every ten seconds', () => {
    const { stream, written } = terminal(false);
    const progress = createProgress(stream, 30);
    progress.state('queued');
    progress.state('recording');
    for (let second = 1; second <= 25; second += 1) {
      later(1);
      progress.stats({ ...stats, bytes: second * 100_000 });
    }
    progress.line('a word');
    progress.state('completed');
    progress.end();
    expect(written().split('\n')).toEqual([
      'queued …',
      'recording  00:00 / 00:30  0.0 fps  0.00 Mb/s  0.0 MB',
      'recording  00:10 / 00:30  30.0 fps  3.04 Mb/s  1.0 MB',
      'recording  00:20 / 00:30  30.0 fps  3.04 Mb/s  2.0 MB',
      'a word',
      'completed  00:25 / 00:30  30.0 fps  3.04 Mb/s  2.5 MB',
      '',
    ]);
    // nothing that only a terminal understands
    for (const control of ['\r', '\u001b']) expect(written()).not.toContain(control);
  });
});
