import { describe, expect, test } from 'vitest';
import { avcCodec } from '../../../worker/capture/capture.ts';

/** H.264 (08/2021), table A-1: level, macroblocks a second, macroblocks a frame. Levels up to 4.2 that differ in these. */
const tableA1 = [
  [30, 40_500, 1620],
  [31, 108_000, 3600],
  [32, 216_000, 5120],
  [40, 245_760, 8192],
  [42, 522_240, 8704],
  [50, 589_824, 22_080],
  [51, 983_040, 36_864],
  [52, 2_073_600, 36_864],
] as const;

/** What a decoder of this level need not be able to decode, A.3.1; null where it fits. */
function beyond(level: number, width: number, height: number, frameRate: number): string | null {
  const row = tableA1.find(([each]) => each === level);
  if (row === undefined) return 'no such level';
  const [, maxPerSecond, maxPerFrame] = row;
  const [columns, rows] = [Math.ceil(width / 16), Math.ceil(height / 16)];
  if (columns * rows > maxPerFrame) return 'frame';
  if (columns * rows * frameRate > maxPerSecond) return 'rate';
  // c) and d): no side longer than this, however small the frame is
  if (Math.max(columns, rows) > Math.sqrt(maxPerFrame * 8)) return 'side';
  return null;
}
const levelOf = (codec: string): number => Number.parseInt(codec.slice(-2), 16);

describe('the codec that a recording says it is of', () => {
  test.each([
    [1280, 720, 30, 'avc1.42001f'],
    [1280, 720, 60, 'avc1.420020'],
    [1920, 1080, 30, 'avc1.420028'],
    [1920, 1080, 29.97, 'avc1.420028'],
    [1920, 1080, 60, 'avc1.42002a'],
    [3840, 2160, 30, 'avc1.420033'],
    [3840, 2160, 60, 'avc1.420034'],
    [640, 360, 30, 'avc1.42001e'],
    // to the macroblock: 54 x 30
    [854, 480, 25, 'avc1.42001e'],
    [854, 480, 25.1, 'avc1.42001f'],
    // 86 x 48: a part of a macroblock is a whole one
    [1366, 768, 30, 'avc1.420020'],
    [1080, 1920, 30, 'avc1.420028'],
    [16, 16, 1, 'avc1.42001e'],
    // few macroblocks, but 240 in a row
    [3840, 200, 30, 'avc1.420028'],
    [64, 2160, 30, 'avc1.42001f'],
  ])('%i x %i at %f is %s', (width, height, frameRate, codec) => {
    expect(avcCodec(width, height, frameRate)).toBe(codec);
  });

  test('is of the lowest level that its size and rate fit in, whatever can be asked for', () => {
    for (let width = 16; width <= 3840; width += 76) {
      for (let height = 16; height <= 2160; height += 62) {
        for (const frameRate of [1, 15, 24, 30, 59.94, 60]) {
          const level = levelOf(avcCodec(width, height, frameRate));
          const what = `${width} x ${height} at ${frameRate}: level ${level}`;
          expect(beyond(level, width, height, frameRate), what).toBeNull();
          const lower = tableA1.filter(([each]) => each < level);
          expect(lower.every(([each]) => beyond(each, width, height, frameRate) !== null), what).toBe(true);
        }
      }
    }
  });
});
