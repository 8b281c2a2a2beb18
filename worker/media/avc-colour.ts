/**
 * Says by which matrix a picture's colours were made. Chromium's software capture makes its pictures by BT.601's, and its
 * encoder's parameter set says BT.709 (measured on 153 and 156: #33aaff comes as Y 140, U 182, V 69): a player that believes
 * that shows other colours. Primaries and transfer are sRGB's, which BT.709's stand for.
 */

/** matrix_coefficients (H.264, table E-5). */
const BT709 = 1;
const BT601 = 6;

/**
 * @param description AVCDecoderConfigurationRecord (ISO 14496-15) of a Baseline or Main stream.
 * @returns a copy whose first sequence parameter set says BT.601 where it said BT.709; the very same bytes in all other cases.
 */
export function tagMatrix(description: Uint8Array): Uint8Array {
  const sets = (description[5] ?? 0) & 0x1f;
  if (sets === 0) return description;
  const length = ((description[6] ?? 0) << 8) | (description[7] ?? 0);
  const begin = 8;
  const bit = matrixPosition(description.subarray(begin, begin + length));
  if (bit === null) return description;
  const tagged = description.slice();
  for (let i = 0; i < 8; i += 1) {
    const at = begin + Math.floor(bit[i]! / 8);
    const mask = 0x80 >> (bit[i]! % 8);
    if ((BT601 >> (7 - i)) & 1) tagged[at]! |= mask;
    else tagged[at]! &= ~mask;
  }
  // a byte that would need an escape of its own is not worth it
  for (let i = begin; i + 2 < begin + length; i += 1) {
    if (tagged[i] === 0 && tagged[i + 1] === 0 && tagged[i + 2]! < 3) return description;
  }
  return tagged;
}

/** Positions of the field's eight bits in the parameter set, where it is there and says BT.709; else null. */
function matrixPosition(sps: Uint8Array): number[] | null {
  // where each byte of the payload stands, without the escapes (H.264, 7.4.1.1)
  const places: number[] = [];
  for (let i = 0; i < sps.length; i += 1) {
    const escape = i >= 2 && sps[i] === 3 && sps[i - 1] === 0 && sps[i - 2] === 0;
    if (!escape) places.push(i);
  }
  let position = 8; // behind the NAL unit's header
  const place = (at: number): number | null => {
    const byte = places[Math.floor(at / 8)];
    return byte === undefined ? null : byte * 8 + (at % 8);
  };
  const u = (bits: number): number => {
    let value = 0;
    for (let i = 0; i < bits; i += 1, position += 1) {
      const at = place(position);
      if (at === null) throw new RangeError('the parameter set ends early');
      value = value * 2 + ((sps[Math.floor(at / 8)]! >> (7 - (at % 8))) & 1);
    }
    return value;
  };
  const ue = (): number => {
    let zeros = 0;
    while (u(1) === 0) zeros += 1;
    return 2 ** zeros - 1 + (zeros === 0 ? 0 : u(zeros));
  };
  try {
    const profile = u(8);
    if (profile !== 66 && profile !== 77) return null; // others carry more fields here
    u(16);
    ue(); // id
    ue(); // log2_max_frame_num_minus4
    const order = ue();
    if (order === 0) ue();
    else if (order === 1) return null; // no encoder of a browser's uses it
    ue(); // max_num_ref_frames
    u(1);
    ue(); // width
    ue(); // height
    if (u(1) === 0) u(1);
    u(1);
    if (u(1) === 1) for (let i = 0; i < 4; i += 1) ue(); // cropping
    if (u(1) === 0) return null; // no VUI
    if (u(1) === 1 && u(8) === 255) u(32); // aspect ratio
    if (u(1) === 1) u(1); // overscan
    if (u(1) === 0) return null; // no video signal type
    u(4);
    if (u(1) === 0) return null; // no colour description
    u(16); // primaries, transfer
    const bits = Array.from({ length: 8 }, (_, i) => place(position + i));
    return u(8) === BT709 && !bits.includes(null) ? (bits as number[]) : null;
  } catch {
    return null;
  }
}
