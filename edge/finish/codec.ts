/** The name of a sample entry's codec (RFC 6381). */
import { boxesIn } from './boxes.ts';
import { audioConfig } from './silence.ts';

export function codecOf(entry: Uint8Array): string {
  const type = String.fromCharCode(...entry.subarray(4, 8));
  const audio = audioConfig(entry);
  if (audio !== null) return `${type}.40.${audio.objectType}`;
  if (type !== 'avc1') return type;
  // behind the fields of VisualSampleEntry; profile, constraints and level follow the record's version
  const avcC = boxesIn(entry, 8 + 78).find((box) => box.type === 'avcC');
  return avcC === undefined ? type : `${type}.${Buffer.from(entry.subarray(avcC.body + 1, avcC.body + 4)).toString('hex')}`;
}
