/**
 * The barcode by which a test page numbers its frames, and the flash that goes with its beeps.
 *
 * All lengths are in units of 1/40 of the picture's width, so one geometry serves every 16:9 size
 * (32 px a unit at 1280x720, 16 px at 640x360). A browser can't load this file, so the pages have a
 * plain JavaScript copy of the geometry and of `barcodeCells` in `test/fixtures/pages/barcode.js`;
 * `analyse.test.ts` fails when the two differ.
 */

/** Units in the picture's width: one unit is `width / GRID` pixels. */
export const GRID = 40;

/** A rectangle from the picture's top left corner, in units of 1/40 of the picture's width. */
export interface Area {
  /** Left edge, in units. */
  readonly x: number;
  /** Top edge, in units. */
  readonly y: number;
  /** Width, in units. */
  readonly width: number;
  /** Height, in units. */
  readonly height: number;
}

/** Where the barcode is: one row of `CELLS` cells, each one unit wide. */
export const BARCODE: Area = { x: 2, y: 1, width: 36, height: 2 };

/** Where the flash is: a square, black but for about 100 ms each second. */
export const FLASH: Area = { x: 2, y: 4, width: 8, height: 8 };

/** Height in units of the band at the picture's top that holds barcode and flash. */
export const BAND_HEIGHT = 13;

/** Cells in the barcode: white, black, 24 bits of counter, 8 bits of checksum, black, white. */
export const CELLS = 36;

/** Largest counter: 24 bits, three days at 60 frames a second. */
export const MAX_COUNTER = 0xff_ff_ff;

/** The flash's length in ms. */
export const FLASH_MS = 100;

/** The beep's frequency in Hz. */
export const BEEP_HZ = 1000;

/** The beep's length in ms. */
export const BEEP_MS = 60;

/** An 8 bit gray picture, row by row without padding, 0 black to 255 white. */
export interface GrayPicture {
  /** `width * height` bytes, one a pixel. */
  readonly data: Uint8Array;
  /** Width in pixels; the geometry's unit is 1/40 of it. */
  readonly width: number;
  /** Height in pixels; may be less than the picture's, as long as the top band is whole. */
  readonly height: number;
}

/** What a picture of a test page says. */
export interface Reading {
  /** The page's frame number, or null where there is no barcode or it mixes two frames. */
  readonly counter: number | null;
  /** True while the flash is white. */
  readonly flash: boolean;
}

// Any start but 0 makes the checksum of an all black counter differ from all black cells.
const CHECKSUM_START = 0xa5;

/** CRC-8 (polynomial 0x07) of a 24 bit counter, most significant byte first. */
export function checksum(counter: number): number {
  let crc = CHECKSUM_START;
  for (const shift of [16, 8, 0]) {
    crc ^= (counter >> shift) & 0xff;
    for (let bit = 0; bit < 8; bit++) {
      crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : crc << 1;
    }
  }
  return crc;
}

/** The barcode of a counter (0 to `MAX_COUNTER`): `CELLS` values from left to right, true for white. */
export function barcodeCells(counter: number): boolean[] {
  const cells = [true, false];
  for (let bit = 23; bit >= 0; bit--) cells.push(((counter >> bit) & 1) === 1);
  const crc = checksum(counter);
  for (let bit = 7; bit >= 0; bit--) cells.push(((crc >> bit) & 1) === 1);
  cells.push(false, true);
  return cells;
}

/** Reads barcode and flash from a gray picture of a test page, of any size from about 160 pixels wide. */
export function readPicture(picture: GrayPicture): Reading {
  const levels: number[] = [];
  for (let cell = 0; cell < CELLS; cell++) {
    levels.push(mean(picture, { x: BARCODE.x + cell, y: BARCODE.y, width: 1, height: BARCODE.height }));
  }
  const guards = { white: [0, CELLS - 1], black: [1, CELLS - 2] };
  const white = Math.min(...guards.white.map((cell) => levels[cell] ?? 0));
  const black = Math.max(...guards.black.map((cell) => levels[cell] ?? 255));
  const flashLevel = mean(picture, FLASH);
  // Without guards of a clear contrast this is no barcode, but the flash may still be there.
  if (white - black < 80) return { counter: null, flash: flashLevel > 128 };
  const share = (level: number): number => (level - black) / (white - black);
  return { counter: decode(levels.map(share)), flash: share(flashLevel) > 0.5 };
}

/** Draws a test page's top band, barcode and flash, as a gray picture `width` by `height` pixels. */
export function drawPicture(width: number, height: number, reading: { counter: number; flash: boolean }): GrayPicture {
  const data = new Uint8Array(width * height);
  const fill = (area: Area): void => {
    const box = pixels(area, width, height);
    for (let y = box.top; y < box.bottom; y++) data.fill(255, y * width + box.left, y * width + box.right);
  };
  barcodeCells(reading.counter).forEach((isWhite, cell) => {
    if (isWhite) fill({ x: BARCODE.x + cell, y: BARCODE.y, width: 1, height: BARCODE.height });
  });
  if (reading.flash) fill(FLASH);
  return { data, width, height };
}

// Cells are 0 (black) to 1 (white). A gray cell is a blend of two frames, of which neither is shown.
function decode(cells: number[]): number | null {
  let counter = 0;
  let crc = 0;
  for (let cell = 2; cell < CELLS - 2; cell++) {
    const level = cells[cell] ?? 0.5;
    if (level > 0.35 && level < 0.65) return null;
    const bit = level > 0.5 ? 1 : 0;
    if (cell < 26) counter = (counter << 1) | bit;
    else crc = (crc << 1) | bit;
  }
  return crc === checksum(counter) ? counter : null;
}

// Only the middle of an area counts: its edges are blurred by scaling and by the codec.
function mean(picture: GrayPicture, area: Area): number {
  const inset = Math.min(area.width, area.height) / 4;
  const inner = { x: area.x + inset, y: area.y + inset, width: area.width - 2 * inset, height: area.height - 2 * inset };
  const box = pixels(inner, picture.width, picture.height);
  let sum = 0;
  let count = 0;
  for (let y = box.top; y < box.bottom; y++) {
    for (let x = box.left; x < box.right; x++) {
      sum += picture.data[y * picture.width + x] ?? 0;
      count++;
    }
  }
  return count === 0 ? 0 : sum / count;
}

function pixels(area: Area, width: number, height: number): { left: number; top: number; right: number; bottom: number } {
  const unit = width / GRID;
  return {
    left: Math.max(0, Math.round(area.x * unit)),
    top: Math.max(0, Math.round(area.y * unit)),
    right: Math.min(width, Math.round((area.x + area.width) * unit)),
    bottom: Math.min(height, Math.round((area.y + area.height) * unit)),
  };
}
