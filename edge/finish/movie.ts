/** The header (moov) of a finished file: ISO 14496-12, with one stsd entry for each codec setting that a track has. */
import { box, fullBox, latin1, u16, u32, u32s, u64s, viewOf, type Pieces } from './boxes.ts';
import { chapterList, textEntry, type Chapter } from './chapters.ts';
import type { AudioTable, VideoTable } from './layout.ts';

/** Samples that lie together, where they begin in the file. */
export type Placed = { track: 'video' | 'audio'; entry: number; count: number; at: number };

export type Movie = {
  video: VideoTable;
  audio: AudioTable | null;
  chunks: readonly Placed[];
  chapters: readonly Chapter[];
  /** The text samples lie together. */
  chapterText: { at: number; sizes: readonly number[] };
  /** 64-bit positions. */
  large: boolean;
  /** Seconds since the epoch; the same for the same recording, so that its file has the same bytes whenever it is made. */
  created: number;
};

/** Ticks a second of the movie as a whole, and of its chapters. */
const MOVIE_SCALE = 1000;
/** Seconds from 1904 to 1970. */
const EPOCH = 2_082_844_800;
const MATRIX = u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000);
const LANGUAGE_UNDETERMINED = 0x55c4;

const VIDEO_ID = 1;
const AUDIO_ID = 2;
const CHAPTERS_ID = 3;

/** The same length whatever positions its chunks have. */
export function movieHeader(movie: Movie): Pieces {
  const { video, audio, chapters } = movie;
  const inMovie = ({ duration, timescale }: { duration: number; timescale: number }) => Math.round((duration * MOVIE_SCALE) / timescale);
  const duration = Math.max(inMovie(video), audio ? inMovie(audio) : 0);
  const created = movie.created + EPOCH;
  const header = timed('mvhd', 0, created, u32(MOVIE_SCALE), duration, u32(0x10000), u16(0x100, 0), u32(0, 0), MATRIX, u32s([0, 0, 0, 0, 0, 0]), u32(CHAPTERS_ID + 1));
  const tracks = [videoTrack(movie, created, inMovie(video))];
  if (audio) tracks.push(audioTrack(movie, audio, created, inMovie(audio)));
  if (chapters.length > 0) tracks.push(chapterTrack(movie, created));
  return box('moov', header, tracks, chapters.length > 0 ? chapterList(chapters) : []);
}

/** A box with times of creation and change and a duration: of 64 bits where one needs them. */
function timed(type: string, flags: number, created: number, between: Uint8Array, duration: number, ...rest: Pieces[]): Pieces {
  const long = Math.max(created, duration) > 0xffffffff;
  const number = long ? (value: number) => u64s([value]) : (value: number) => u32(value);
  return fullBox(type, long ? 1 : 0, flags, number(created), number(created), between, number(duration), ...rest);
}

const trackHeader = (id: number, flags: number, created: number, duration: number, volume: number, width: number, height: number) =>
  timed('tkhd', flags, created, u32(id, 0), duration, u32(0, 0), u16(0, 0, volume, 0), MATRIX, u32(width * 65_536, height * 65_536));

const mediaHeader = (created: number, timescale: number, duration: number) =>
  timed('mdhd', 0, created, u32(timescale), duration, u16(LANGUAGE_UNDETERMINED, 0));

const handler = (type: string, name: string) => fullBox('hdlr', 0, 0, u32(0), latin1(type), u32(0, 0, 0), latin1(`${name}\0`));
const dataInformation = () => box('dinf', fullBox('dref', 0, 0, u32(1), fullBox('url ', 0, 1)));
const sampleDescriptions = (entries: readonly Pieces[]) => fullBox('stsd', 0, 0, u32(entries.length), ...entries);

function videoTrack(movie: Movie, created: number, duration: number): Pieces {
  const { video } = movie;
  const reference = movie.chapters.length > 0 ? [box('tref', box('chap', u32(CHAPTERS_ID)))] : [];
  const tables = box(
    'stbl',
    sampleDescriptions(video.entries),
    timeToSample(runsOf(video.times, video.duration)),
    // with no such table, each were one
    ...(video.keys.length === video.times.length ? [] : [fullBox('stss', 0, 0, u32(video.keys.length), u32s(video.keys))]),
    ...chunkTables(movie, 'video'),
    sampleSizes(video.sizes),
  );
  const information = box('minf', fullBox('vmhd', 0, 1, u16(0, 0, 0, 0)), dataInformation(), tables);
  return box(
    'trak',
    trackHeader(VIDEO_ID, 3, created, duration, 0, video.width, video.height),
    ...reference,
    box('mdia', mediaHeader(created, video.timescale, video.duration), handler('vide', 'Video'), information),
  );
}

function audioTrack(movie: Movie, audio: AudioTable, created: number, duration: number): Pieces {
  const tables = box('stbl', sampleDescriptions(audio.entries), timeToSample(audio.runs), ...chunkTables(movie, 'audio'), sampleSizes(audio.sizes));
  const information = box('minf', fullBox('smhd', 0, 0, u16(0, 0)), dataInformation(), tables);
  const media = audio.duration - audio.lead;
  const edits = [
    // nothing, then the media
    [Math.round((audio.lead * MOVIE_SCALE) / audio.timescale), 0xffffffff],
    [Math.round((media * MOVIE_SCALE) / audio.timescale), 0],
  ];
  const list = audio.lead === 0 ? [] : [box('edts', fullBox('elst', 0, 0, u32(edits.length), ...edits.map((edit) => u32(...edit, 0x10000))))];
  return box(
    'trak',
    trackHeader(AUDIO_ID, 3, created, duration, 0x100, 0, 0),
    ...list,
    box('mdia', mediaHeader(created, audio.timescale, media), handler('soun', 'Audio'), information),
  );
}

/** As QuickTime lays chapters: a text track that is not enabled, which the picture refers to. */
function chapterTrack({ chapters, chapterText, large }: Movie, created: number): Pieces {
  const duration = chapters.at(-1)!.end;
  const durations = chapters.map(({ start, end }) => ({ count: 1, duration: end - start }));
  const media = box('gmhd', fullBox('gmin', 0, 0, u16(0x40, 0x8000, 0x8000, 0x8000, 0, 0)), box('text', MATRIX));
  const tables = box(
    'stbl',
    sampleDescriptions([textEntry()]),
    timeToSample(durations),
    fullBox('stsc', 0, 0, u32(1, 1, chapters.length, 1)),
    chunkOffsets([chapterText.at], large),
    sampleSizes(chapterText.sizes),
  );
  return box(
    'trak',
    trackHeader(CHAPTERS_ID, 0, created, duration, 0, 0, 0),
    box('mdia', mediaHeader(created, MOVIE_SCALE, duration), handler('text', 'Chapters'), box('minf', media, dataInformation(), tables)),
  );
}

/** Each sample lasts until the next one. */
function runsOf(times: readonly number[], end: number): { count: number; duration: number }[] {
  const runs: { count: number; duration: number }[] = [];
  for (let i = 0; i < times.length; i += 1) {
    const duration = (times[i + 1] ?? end) - times[i]!;
    const last = runs.at(-1);
    if (last?.duration === duration) last.count += 1;
    else runs.push({ count: 1, duration });
  }
  return runs;
}

function timeToSample(runs: readonly { count: number; duration: number }[]): Pieces {
  const table = new Uint8Array(runs.length * 8);
  const view = viewOf(table);
  for (const [i, { count, duration }] of runs.entries()) {
    view.setUint32(i * 8, count);
    view.setUint32(i * 8 + 4, duration);
  }
  return fullBox('stts', 0, 0, u32(runs.length), table);
}
const sampleSizes = (sizes: readonly number[]) => fullBox('stsz', 0, 0, u32(0, sizes.length), u32s(sizes));
const chunkOffsets = (offsets: readonly number[], large: boolean) =>
  large ? fullBox('co64', 0, 0, u32(offsets.length), u64s(offsets)) : fullBox('stco', 0, 0, u32(offsets.length), u32s(offsets));

/** Which samples lie together, by which sample entry they are read, and where. */
function chunkTables({ chunks, large }: Movie, track: 'video' | 'audio'): Pieces[] {
  const own = chunks.filter((chunk) => chunk.track === track);
  const runs: number[] = [];
  for (const [i, { count, entry }] of own.entries()) {
    if (own[i - 1]?.count !== count || own[i - 1]?.entry !== entry) runs.push(i + 1, count, entry);
  }
  return [fullBox('stsc', 0, 0, u32(runs.length / 3), u32s(runs)), chunkOffsets(own.map(({ at }) => at), large)];
}

/** What every reader of MP4 and H.264 knows. */
export const fileType = (): Pieces => box('ftyp', latin1('isom'), u32(0x200), latin1('isomiso2avc1mp41'));

/** The header of the media box, for so many bytes of media. */
export const mediaBoxHeader = (bytes: number, large: boolean): Pieces =>
  large ? [u32(1), latin1('mdat'), u64s([bytes + 16])] : [u32(bytes + 8), latin1('mdat')];
