/** Silent AAC-LC, to be laid where sound is missing. */
import { boxesIn } from './boxes.ts';

/** Samples in an AAC-LC frame. */
export const FRAME_SAMPLES = 1024;

/**
 * One silent frame for a sample entry: no spectral data at all (ISO 14496-3, 4.4.2: max_sfb is 0).
 *
 * @param entry mp4a, of one or two channels
 * @returns null for other codecs and channels
 */
export function silentFrame(entry: Uint8Array): Uint8Array | null {
  const config = audioConfig(entry);
  // object type 2 is AAC-LC
  if (config === null || config.objectType !== 2 || config.frameSamples !== FRAME_SAMPLES) return null;
  // ics_info: reserved, only long windows, sine, max_sfb, no prediction. Then gain; no pulse, no TNS, no gain control
  const info = '0' + '00' + '0' + '000000' + '0';
  const channel = (own: string) => `00000000${own}000`;
  const elements: Record<number, string> = {
    1: `000${'0000'}${channel(info)}111`,
    2: `001${'0000'}1${info}00${channel('')}${channel('')}111`,
  };
  const bits = elements[config.channels];
  if (bits === undefined) return null;
  return Uint8Array.from({ length: Math.ceil(bits.length / 8) }, (_, i) => Number.parseInt(bits.slice(i * 8, i * 8 + 8).padEnd(8, '0'), 2));
}

export type AudioConfig = { objectType: number; channels: number; frameSamples: number };

/** From the AudioSpecificConfig of an mp4a sample entry; null where there is none that is understood. */
export function audioConfig(entry: Uint8Array): AudioConfig | null {
  if (String.fromCharCode(...entry.subarray(4, 8)) !== 'mp4a') return null;
  try {
    // behind the box's header and the fields of AudioSampleEntry
    const esds = boxesIn(entry, 8 + 28).find(({ type }) => type === 'esds');
    if (esds === undefined) return null;
    const specific = descriptor(entry.subarray(esds.body + 4, esds.end), 5);
    if (specific === null || specific.length < 2) return null;
    const bits = (specific[0]! << 8) | specific[1]!;
    // a rate that is spelled out moves the rest
    if (((bits >> 7) & 15) === 15) return null;
    return { objectType: bits >> 11, channels: (bits >> 3) & 15, frameSamples: bits & 4 ? 960 : FRAME_SAMPLES };
  } catch {
    return null;
  }
}

/** The content of the first descriptor with a tag (ISO 14496-1, 7.2.6), looked for in those that hold others. */
function descriptor(bytes: Uint8Array, wanted: number): Uint8Array | null {
  for (let at = 0; at + 1 < bytes.length; ) {
    const tag = bytes[at]!;
    let length = 0;
    let more = true;
    for (at += 1; more; at += 1) {
      length = length * 128 + (bytes[at]! & 0x7f);
      more = (bytes[at]! & 0x80) !== 0;
    }
    const content = bytes.subarray(at, at + length);
    if (tag === wanted) return content;
    // ES_Descriptor and DecoderConfigDescriptor have fields of their own before what they hold
    const inner = tag === 3 ? descriptor(content.subarray(3), wanted) : tag === 4 ? descriptor(content.subarray(13), wanted) : null;
    if (inner !== null) return inner;
    at += length;
  }
  return null;
}
