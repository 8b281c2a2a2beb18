import { describe, expect, test } from 'vitest';
import { isLiveOver, renderPlaylist } from '../../edge/ingest/playlist.ts';
import { parseRange } from '../../edge/recording/range.ts';
import { lastContiguous, parsePartName, partName, partsOf } from '../../edge/storage/part-names.ts';
import type { PartHeader } from '../../shared/media-protocol.ts';
import type { RecordingState } from '../../shared/recording.ts';
import { decodePart, encodePart } from '../../shared/media-protocol.ts';

const init = (attempt: number, seq = 1) => partName(attempt, { type: 'init', seq });
const segment = (attempt: number, seq: number, start: number, duration = 2_000_000) =>
  partName(attempt, { type: 'segment', seq, start, duration, frames: 60 });

describe("parts' names", () => {
  test.each<PartHeader>([
    { type: 'init', seq: 1 },
    { type: 'segment', seq: 12, start: 20_000_000, duration: 1_999_999, frames: 60 },
    { type: 'thumbnail', seq: 3 },
    { type: 'end', seq: 99_999_999, duration: 0 },
  ])('$type survives', (header) => {
    expect(parsePartName(partName(3, header))).toMatchObject({ attempt: 3, ...header });
  });

  test.each(['x', 'a1-s1-init.mp4', 'a0001-s0000001-init.mp4.new', '../a0001-s0000001-init.mp4', '.new-1'])('%s is none', (name) => {
    expect(parsePartName(name)).toBeNull();
  });

  test('a listing in any order gives the parts in theirs', () => {
    const keys = [segment(2, 2, 0), segment(1, 10_000_000, 9), init(2), segment(1, 2, 0), init(1), 'junk'].map((name) => `rec/parts/${name}`);
    expect(partsOf(keys).map(({ attempt, seq }) => [attempt, seq])).toEqual([[1, 1], [1, 2], [1, 10_000_000], [2, 1], [2, 2]]);
    expect(lastContiguous(partsOf(keys), 1)).toBe(2);
    expect(lastContiguous(partsOf(keys), 3)).toBe(0);
  });
});

describe('the playlist', () => {
  const render = (names: string[], over = false, query = '') => renderPlaylist(partsOf(names), { over, query });

  test('is missing before the first segment', () => {
    expect(render([init(1)])).toBeNull();
    expect(render([segment(1, 2, 0)])).toBeNull();
  });

  test('grows, and ends where the recording did', () => {
    const names = [init(1), segment(1, 2, 0), segment(1, 3, 2_000_000, 1_500_000)];
    expect(render(names, false, '?token=t')).toBe(
      [
        '#EXTM3U',
        '#EXT-X-VERSION:7',
        '#EXT-X-TARGETDURATION:2',
        '#EXT-X-MEDIA-SEQUENCE:0',
        '#EXT-X-PLAYLIST-TYPE:EVENT',
        '#EXT-X-INDEPENDENT-SEGMENTS',
        '#EXT-X-START:TIME-OFFSET=-5',
        '#EXT-X-MAP:URI="live/a0001-s0000001-init.mp4?token=t"',
        '#EXTINF:2.000000,',
        'live/a0001-s0000002-t0-d2000000-f60.m4s?token=t',
        '#EXTINF:1.500000,',
        'live/a0001-s0000003-t2000000-d1500000-f60.m4s?token=t',
        '',
      ].join('\n'),
    );
    expect(render(names, true)).toContain('#EXT-X-ENDLIST');
    expect(render([...names, partName(1, { type: 'end', seq: 4, duration: 3_500_000 })])).not.toContain('#EXT-X-ENDLIST');
  });

  test('a new attempt is a discontinuity with a header of its own', () => {
    const text = render([init(1), segment(1, 2, 0), init(2), segment(2, 2, 0, 5_400_000)]) ?? '';
    expect(text.split('\n').filter((line) => /MAP|DISC|TARGET/.test(line))).toEqual([
      '#EXT-X-TARGETDURATION:5',
      '#EXT-X-MAP:URI="live/a0001-s0000001-init.mp4"',
      '#EXT-X-DISCONTINUITY',
      '#EXT-X-MAP:URI="live/a0002-s0000001-init.mp4"',
    ]);
  });

  test('each section is a discontinuity with its own header, also where headers change twice', () => {
    const text = render([init(1), segment(1, 2, 0), init(1, 3), segment(1, 4, 2_000_000), init(2), init(2, 2), segment(2, 3, 9_000_000)]) ?? '';
    const lines = text.split('\n');
    const after = lines.flatMap((line, i) => (line === '#EXT-X-DISCONTINUITY' ? [lines[i + 1]] : []));
    expect(after).toEqual(['#EXT-X-MAP:URI="live/a0001-s0000003-init.mp4"', '#EXT-X-MAP:URI="live/a0002-s0000002-init.mp4"']);
  });

  test('takes nothing back: each part only adds to what was said', () => {
    const names = [
      init(1), segment(1, 2, 0), segment(1, 3, 2_000_000), init(1, 4), segment(1, 5, 4_000_000, 900_000),
      partName(1, { type: 'end', seq: 6, duration: 4_900_000 }), init(2), segment(2, 2, 30_000_000), segment(2, 3, 32_000_000),
    ]; // prettier-ignore
    const body = (count: number) => (render(names.slice(0, count)) ?? '').replace(/#EXT-X-TARGETDURATION:\d+\n/, '').trimEnd();
    for (let count = 2; count < names.length; count += 1) expect(body(count + 1).startsWith(body(count))).toBe(true);
    expect(body(names.length).match(/DISCONTINUITY/g)).toHaveLength(2);
  });

  test('ends with the recording, or with the end of its newest attempt once no other comes', () => {
    const end = (attempt: number) => partName(attempt, { type: 'end', seq: 3, duration: 2_000_000 });
    const over = (state: RecordingState, attempt: number, names: string[]) => isLiveOver({ state, attempt }, partsOf(names));
    const first = [init(1), segment(1, 2, 0), end(1)];
    expect(over('recording', 1, first)).toBe(false);
    expect(over('starting', 2, first)).toBe(false);
    expect(over('finishing', 1, first)).toBe(true);
    // the second attempt may still be delivering
    expect(over('finishing', 2, [...first, init(2), segment(2, 2, 9)])).toBe(false);
    expect(over('finishing', 2, [...first, init(2), segment(2, 2, 9), end(2)])).toBe(true);
    expect(over('completed', 2, [...first, init(2), segment(2, 2, 9)])).toBe(true);
  });
});

describe('ranges', () => {
  test.each([
    [undefined, 'whole'],
    ['bytes=0-', { start: 0, end: 100 }],
    ['bytes=10-19', { start: 10, end: 20 }],
    ['bytes=90-200', { start: 90, end: 100 }],
    ['bytes=-5', { start: 95, end: 100 }],
    ['bytes=-500', { start: 0, end: 100 }],
    ['bytes=100-', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=9-3', 'whole'],
    ['bytes=0-1,5-6', 'whole'],
    ['lines=1-2', 'whole'],
    ['bytes=-', 'whole'],
  ])('%s of 100 bytes', (header, expected) => {
    expect(parseRange(header, 100)).toEqual(expected);
  });

  test('an empty file has no range', () => {
    expect(parseRange('bytes=0-', 0)).toBe('unsatisfiable');
  });
});

describe('parts on the wire', () => {
  const header = { type: 'segment' as const, seq: 2, start: 0, duration: 1, frames: 1 };

  test('come out as they went in', () => {
    const message = Buffer.concat(encodePart({ header, payload: new Uint8Array([1, 2, 3]) }));
    expect(decodePart(message)).toEqual({ header, payload: Buffer.from([1, 2, 3]) });
  });

  test.each([
    ['too short', Buffer.from([0, 0])],
    ['a length that lies', Buffer.from([0, 0, 0, 9, 123])],
    ['no JSON', Buffer.concat([Buffer.from([0, 0, 0, 1]), Buffer.from('x')])],
    ['an unknown type', Buffer.concat([Buffer.from([0, 0, 0, 12]), Buffer.from('{"type":"x"}')])],
  ])('%s is refused', (_name, message) => {
    expect(() => decodePart(message)).toThrow(TypeError);
  });
});
