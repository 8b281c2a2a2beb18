/** The live HLS playlist (RFC 8216, version 7) of the parts that are stored. */
import { isEnd } from '../../shared/recording.ts';
import type { RecordingRecord } from '../../shared/recording-store.ts';
import type { StoredPart } from '../storage/part-names.ts';

/** Seconds; players wait three of them behind the live edge. It may only grow where a segment is longer. */
const MIN_TARGET_DURATION = 2;

/**
 * Seconds behind the newest segment at which players begin. By themselves they keep three target durations, which with the
 * segment that is being made is up to 8 s behind; two segments and a half are enough for what comes every two seconds.
 */
const LIVE_START_OFFSET = -5;

/**
 * Whether nothing will follow: the recording is over, or its newest attempt has said that it has ended and no other comes. An
 * older attempt's end, however late it is stored, ends nothing.
 */
export const isLiveOver = ({ state, attempt }: Pick<RecordingRecord, 'state' | 'attempt'>, parts: readonly StoredPart[]): boolean =>
  isEnd(state) || (state === 'finishing' && parts.some((part) => part.type === 'end' && part.attempt === attempt));

/**
 * Null before the first segment. What was said of earlier segments is never taken back.
 *
 * A section that has a header of its own (another attempt, what follows a pause) is a discontinuity: players then place it
 * where the one before ends, whatever times its media have (RFC 8216, 4.3.2.3; so does hls.js 1.7). So the time for which
 * nothing was recorded is passed over, and nobody waits for it. Dates (EXT-X-PROGRAM-DATE-TIME) are not told: a pause that
 * becomes known later would change them.
 *
 * @param options.over nothing will follow
 * @param options.query appended to each URI, with its question mark, or empty
 */
export function renderPlaylist(parts: readonly StoredPart[], options: { over: boolean; query: string }): string | null {
  const lines: string[] = [];
  let map: StoredPart | null = null;
  let printed: StoredPart | null = null;
  let target = MIN_TARGET_DURATION;
  for (const part of parts) {
    if (part.type === 'init') map = part;
    // what has no header of its own attempt can't be decoded
    if (part.type !== 'segment' || map === null || map.attempt !== part.attempt) continue;
    if (printed !== map) {
      if (printed !== null) lines.push('#EXT-X-DISCONTINUITY');
      lines.push(`#EXT-X-MAP:URI="${uri(map, options.query)}"`);
      printed = map;
    }
    const seconds = part.duration / 1e6;
    target = Math.max(target, Math.round(seconds));
    lines.push(`#EXTINF:${seconds.toFixed(6)},`, uri(part, options.query));
  }
  if (lines.length === 0) return null;
  return [
    '#EXTM3U',
    '#EXT-X-VERSION:7',
    `#EXT-X-TARGETDURATION:${target}`,
    '#EXT-X-MEDIA-SEQUENCE:0',
    '#EXT-X-PLAYLIST-TYPE:EVENT',
    '#EXT-X-INDEPENDENT-SEGMENTS',
    ...(options.over ? [] : [`#EXT-X-START:TIME-OFFSET=${LIVE_START_OFFSET}`]),
    ...lines,
    ...(options.over ? ['#EXT-X-ENDLIST'] : []),
    '',
  ].join('\n');
}

/** Relative to the playlist, so that it holds behind every prefix and proxy. */
const uri = (part: StoredPart, query: string): string => `live/${part.name}${query}`;
