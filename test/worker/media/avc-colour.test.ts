import { expect, it } from 'vitest';
import { tagMatrix } from '../../../worker/media/avc-colour.ts';

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, 'hex'));
const hex = (data: Uint8Array) => Buffer.from(data).toString('hex');

/** As Chromium 156's encoder gave it: Constrained Baseline 3.1, 1280x720, BT.709 three times. */
const full = '0142c01fffe100126742c01f8c8d402802dd350101010784423501000468ce3c80';

it("colours are said to be made by BT.601's matrix, as they are", () => {
  // primaries 01, transfer 01, matrix 01 -> 06; nothing else moves
  expect(hex(tagMatrix(bytes(full)))).toBe(full.replace('350101010784', '350101060784'));
  // headless shell 153's: the field lies across two bytes; its second run changes nothing
  const shell = '0142c01fffe100126742c01f8c6805005ba6a02020c0f08846a001000468ce3c80';
  expect(hex(tagMatrix(bytes(shell)))).toBe(shell);
  expect(hex(tagMatrix(bytes(shell.replace('a02020c0f0', 'a0202020f0'))))).toBe(shell);
});

it('what says something else, or can not be read, is left as it is', () => {
  for (const other of ['', '01', '0142c01fffe0', full.slice(0, 30), full.replace('6742c01f', '6764001f'), full.replace('0101010784', '0909090784')]) {
    const description = bytes(other);
    expect(tagMatrix(description)).toBe(description);
  }
});
