/** Markers as chapters of an MP4: as Nero's list, which most players read, and as a text track, which Apple's do. */
import type { Marker } from '../../shared/recording.ts';
import { box, concat, fullBox, u16, u32, u64s, u8, viewOf, type Pieces } from './boxes.ts';

/** Whole milliseconds. */
export type Chapter = { title: string; start: number; end: number };

/** What stands before the first marker. */
const FIRST_TITLE = 'Start';
/** The list counts its chapters, and a title's bytes, in eight bits. */
const LIST_AT_MOST = 255;

/**
 * One chapter for each marker, by time, from the file's beginning to its end without a hole. Markers behind the end begin
 * at its last moment; of those that fall together each later one begins a millisecond later, where there is room.
 *
 * @param markers seconds in the file
 * @param duration milliseconds
 */
export function chaptersOf(markers: readonly Marker[], duration: number): Chapter[] {
  const end = Math.floor(duration);
  const sorted = markers.map(({ label, at }) => ({ title: label, start: Math.max(0, Math.round(at * 1000)) })).sort((a, b) => a.start - b.start);
  if (sorted.length === 0 || end < sorted.length + 1) return [];
  if (sorted[0]!.start > 0) sorted.unshift({ title: FIRST_TITLE, start: 0 });
  for (let i = 1; i < sorted.length; i += 1) sorted[i]!.start = Math.max(sorted[i]!.start, sorted[i - 1]!.start + 1);
  // and from behind, so that the last ones fit in before the end
  for (let i = sorted.length - 1, limit = end - 1; i > 0; i -= 1, limit -= 1) sorted[i]!.start = Math.min(sorted[i]!.start, limit);
  return sorted.map(({ title, start }, i) => ({ title, start, end: sorted[i + 1]?.start ?? end }));
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A title of so many bytes at most, cut between characters. */
function clipped(title: string, bytes: number): Uint8Array {
  const all = utf8(title);
  let end = Math.min(all.length, bytes);
  while (end < all.length && end > 0 && (all[end]! & 0xc0) === 0x80) end -= 1;
  return all.subarray(0, end);
}

/** `udta/chpl`: times in units of 100 ns. */
export function chapterList(chapters: readonly Chapter[]): Pieces {
  const listed = chapters.slice(0, LIST_AT_MOST).map(({ title, start }) => {
    const text = clipped(title, 255);
    return [u64s([start * 10_000]), u8(text.length), text];
  });
  return box('udta', fullBox('chpl', 1, 0, u32(0), u8(listed.length), ...listed));
}

/** The text track's samples: length, UTF-8, and a box that says that it is (QuickTime File Format, text sample data). */
export const chapterSamples = (chapters: readonly Chapter[]): Uint8Array[] =>
  chapters.map(({ title }) => {
    const text = clipped(title, 65_535);
    return concat([u16(text.length), text, box('encd', u32(0x100))]);
  });

/** Sample entry of QuickTime text, black on black, with one nameless font: it is never shown. */
export function textEntry(): Pieces {
  const body = new Uint8Array(8 + 43);
  viewOf(body).setUint16(6, 1); // data reference
  viewOf(body).setUint32(8, 1); // display flags
  return box('text', body);
}
