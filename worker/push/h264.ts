/** H.264 access units as WebCodecs gives them (ISO 14496-15), and as RTP carries them (RFC 6184, packetization mode 1). Pure. */

const NAL = { sps: 7, delimiter: 9, stapA: 24, fuA: 28 } as const;

export type ParameterSets = {
  /** Sequence and picture parameter sets, as they stand in the stream. */
  units: Uint8Array[];
  /** As SDP has it: profile, constraints and level in hexadecimal. */
  profileLevelId: string;
};

/**
 * @param description AVCDecoderConfigurationRecord whose NAL units have lengths of four bytes, as all encoders of browsers make it.
 * @throws {RangeError} where it is something else.
 */
export function parameterSets(description: Uint8Array): ParameterSets {
  const view = new DataView(description.buffer, description.byteOffset, description.byteLength);
  if (view.getUint8(0) !== 1 || (view.getUint8(4) & 3) !== 3) throw new RangeError('not a decoder configuration with lengths of four bytes');
  const units: Uint8Array[] = [];
  let at = 5;
  for (const mask of [0x1f, 0xff]) {
    const count = view.getUint8(at) & mask;
    at += 1;
    for (let i = 0; i < count; i += 1) {
      const length = view.getUint16(at);
      if (at + 2 + length > description.length) throw new RangeError('the decoder configuration ends early');
      units.push(description.subarray(at + 2, at + 2 + length));
      at += 2 + length;
    }
  }
  return { units, profileLevelId: Buffer.from(description.subarray(1, 4)).toString('hex') };
}

/**
 * NAL units of an access unit, each behind its length in four bytes.
 * @throws {RangeError} where a length doesn't fit.
 */
export function nalUnits(accessUnit: Uint8Array): Uint8Array[] {
  const view = new DataView(accessUnit.buffer, accessUnit.byteOffset, accessUnit.byteLength);
  const units: Uint8Array[] = [];
  for (let at = 0; at < accessUnit.length; ) {
    const length = view.getUint32(at);
    at += 4;
    if (length === 0 || at + length > accessUnit.length) throw new RangeError('the access unit ends early');
    units.push(accessUnit.subarray(at, at + length));
    at += length;
  }
  return units;
}

/**
 * Payloads of the RTP packets of one access unit. Before a key frame come its parameter sets, in one packet with it where there
 * is room (STAP-A): a receiver that joins or lost something can begin with any key frame.
 *
 * @param sets of the stream, for a key frame; null for other pictures
 * @param most bytes of a payload
 */
export function packetize(accessUnit: Uint8Array, sets: ParameterSets | null, most: number): Buffer[] {
  const all = nalUnits(accessUnit).filter((unit) => typeOf(unit) !== NAL.delimiter);
  const carriesSets = all.some((unit) => typeOf(unit) === NAL.sps);
  const units = sets !== null && !carriesSets ? [...sets.units, ...all] : all;
  const payloads: Buffer[] = [];
  let together: Uint8Array[] = [];
  let size = 1;
  const flush = () => {
    if (together.length === 1) payloads.push(Buffer.from(together[0] as Uint8Array));
    else if (together.length > 1) payloads.push(aggregate(together));
    together = [];
    size = 1;
  };
  for (const unit of units) {
    if (size + 2 + unit.length <= most) {
      together.push(unit);
      size += 2 + unit.length;
      continue;
    }
    flush();
    if (unit.length <= most) {
      together.push(unit);
      size += 2 + unit.length;
    } else payloads.push(...fragment(unit, most));
  }
  flush();
  return payloads;
}

const typeOf = (unit: Uint8Array): number => (unit[0] ?? 0) & 0x1f;

/** STAP-A: each unit behind its length in two bytes. */
function aggregate(units: readonly Uint8Array[]): Buffer {
  const importance = Math.max(...units.map((unit) => (unit[0] ?? 0) & 0x60));
  const parts: Uint8Array[] = [Uint8Array.of(importance | NAL.stapA)];
  for (const unit of units) parts.push(Uint8Array.of(unit.length >> 8, unit.length & 0xff), unit);
  return Buffer.concat(parts);
}

/** FU-A, in pieces of about the same size. */
function fragment(unit: Uint8Array, most: number): Buffer[] {
  const header = unit[0] ?? 0;
  const rest = unit.length - 1;
  const count = Math.ceil(rest / (most - 2));
  return Array.from({ length: count }, (_, i) => {
    const from = 1 + Math.floor((rest * i) / count);
    const to = 1 + Math.floor((rest * (i + 1)) / count);
    const edges = (i === 0 ? 0x80 : 0) | (i === count - 1 ? 0x40 : 0);
    return Buffer.concat([Uint8Array.of((header & 0x60) | NAL.fuA, edges | (header & 0x1f)), unit.subarray(from, to)]);
  });
}
