/**
 * Looks at the content of recordings: which frames are in them, when, and how they go with the sound.
 * All of it decodes with ffmpeg and ffprobe from the PATH; skip where `hasFfmpeg()` says no.
 */
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { z } from 'zod';
import { BAND_HEIGHT, BEEP_HZ, GRID, type Reading, readPicture } from './barcode.ts';
import { decoding, readBytes, readTimes, start } from './ffmpeg.ts';
import { level, onsets, toneEnvelope } from './tone.ts';

// So that a test of a recording has one place to import from.
export { type Box, type MoovInfo, moovInfo } from './boxes.ts';
export { hasFfmpeg } from './ffmpeg.ts';
export { SILENCE } from './tone.ts';

/** What `probe` says of a video track. */
export interface VideoProbe {
  /** ffprobe's name: `h264`, `vp8`, ... */
  readonly codec: string;
  /** The codec's profile, such as `Constrained Baseline`, or null. */
  readonly profile: string | null;
  /** Width in pixels. */
  readonly width: number;
  /** Height in pixels. */
  readonly height: number;
  /** Frames in the track, counted by reading its packets. */
  readonly frames: number;
  /** First frame's presentation to the last one's end, in s, by packet timestamps. */
  readonly duration: number;
}

/** What `probe` says of an audio track. */
export interface AudioProbe {
  /** ffprobe's name: `aac`, `opus`, ... */
  readonly codec: string;
  /** Samples a second. */
  readonly sampleRate: number;
  /** Number of channels. */
  readonly channels: number;
  /** First packet's presentation to the last one's end, in s, by packet timestamps. */
  readonly duration: number;
}

/** What `probe` says of a file. */
export interface Probe {
  /** ffprobe's format name, such as `mov,mp4,m4a,3gp,3g2,mj2` or `matroska,webm`. */
  readonly container: string;
  /** The container's duration in s; NaN where it says none. */
  readonly duration: number;
  /** The first video track, or null. */
  readonly video: VideoProbe | null;
  /** The first audio track, or null. */
  readonly audio: AudioProbe | null;
}

/** A decoded frame of a test page. */
export interface Frame {
  /** Presentation time in s, on the file's own timeline (edit lists applied). */
  readonly time: number;
  /** The page's frame number, or null where the barcode is missing, torn or blended. */
  readonly counter: number | null;
  /** True while the flash is white. */
  readonly flash: boolean;
}

/** What `uniqueFrames` says. */
export interface UniqueFrames {
  /** Different counters seen. */
  readonly unique: number;
  /** Different counters a second, over the time from the first readable frame to the last. */
  readonly perSecond: number;
  /** Longest time in s between two successive new counters. */
  readonly longestGap: number;
  /** The first frame's counter; null where no frame was readable. */
  readonly first: number | null;
  /** The last frame's counter; null where no frame was readable. */
  readonly last: number | null;
  /**
   * Share (0 to 1) of the counters from the smallest to the largest one that are not in the recording. A page that
   * draws at 60 Hz, recorded at 30, has 0.5. Meaningless where the recording has two loads of a page in it.
   */
  readonly missing: number;
  /** Frames without a readable counter. */
  readonly unreadable: number;
  /** How often a counter was less than the one before: a frame out of order, or a page loaded anew. */
  readonly backwards: number;
}

/** What `loudness` says, in dBFS (RMS; a full scale square wave is 0, silence is `SILENCE`). */
export interface Loudness {
  /** The whole track. */
  readonly overall: number;
  /** Each second from the first sample, the last one perhaps shorter. */
  readonly perSecond: readonly number[];
}

/** The middle and the spread of some values, in the values' unit; NaN where there are none. */
export interface Summary {
  /** The 5th percentile. */
  readonly p5: number;
  /** The 50th percentile. */
  readonly median: number;
  /** The 95th percentile. */
  readonly p95: number;
}

// 4 pixels a unit: enough for the barcode, little enough to be free beside the decoding.
const PICTURE_WIDTH = GRID * 4;
const PICTURE_HEIGHT = BAND_HEIGHT * 4;
const RATE = 48_000;

/** Container, tracks and durations of any media file or playlist. Reads the whole file, but decodes nothing. */
export async function probe(file: string): Promise<Probe> {
  const run = start('ffprobe', ['-v', 'error', '-show_format', '-show_streams', '-of', 'json', file]);
  const [json] = await Promise.all([readBytes(run.stdout), run.done]);
  const { format, streams } = probeSchema.parse(JSON.parse(json.toString('utf8')));
  const video = streams.find((stream) => stream.codec_type === 'video');
  const audio = streams.find((stream) => stream.codec_type === 'audio');
  const packets = await readPackets(file);
  return {
    container: format.format_name,
    duration: Number(format.duration ?? NaN),
    video: video
      ? {
          codec: video.codec_name ?? 'unknown',
          profile: video.profile ?? null,
          width: video.width ?? 0,
          height: video.height ?? 0,
          frames: packets.get(video.index)?.count ?? 0,
          duration: packets.get(video.index)?.duration() ?? 0,
        }
      : null,
    audio: audio
      ? {
          codec: audio.codec_name ?? 'unknown',
          sampleRate: Number(audio.sample_rate ?? 0),
          channels: audio.channels ?? 0,
          duration: packets.get(audio.index)?.duration() ?? 0,
        }
      : null,
  };
}

/** Every frame of a recording of a test page, at its own timestamp: none is doubled or dropped to fit a frame rate. */
export async function readFrames(file: string): Promise<Frame[]> {
  const run = start('ffmpeg', [
    ...decoding(file),
    '-map', '0:v:0', '-fps_mode', 'passthrough',
    // The crop's height is 13/40 of the width: the top band alone holds barcode and flash.
    '-vf', `crop=iw:iw*${BAND_HEIGHT}/${GRID}:0:0,scale=${PICTURE_WIDTH}:${PICTURE_HEIGHT}:flags=area,format=gray,showinfo=checksum=0`,
    '-f', 'rawvideo', '-pix_fmt', 'gray', 'pipe:1',
  ]);
  const [times, readings] = await Promise.all([readTimes(run.lines), readPictures(run.stdout), run.done]);
  if (times.length !== readings.length) {
    throw new Error(`ffmpeg wrote ${readings.length} frames but ${times.length} timestamps for ${file}.`);
  }
  return readings.map((reading, index) => ({ time: times[index]?.time ?? NaN, ...reading }));
}

/** How many different frames of the page a recording holds, and how evenly they come. */
export function uniqueFrames(frames: readonly Frame[]): UniqueFrames {
  const readable = frames.flatMap(({ time, counter }) => (counter === null ? [] : [{ time, counter }]));
  const seen = new Set<number>();
  let longestGap = 0;
  let backwards = 0;
  let newest: number | undefined;
  let previous = -1;
  for (const { time, counter } of readable) {
    if (!seen.has(counter)) {
      if (newest !== undefined) longestGap = Math.max(longestGap, time - newest);
      newest = time;
      seen.add(counter);
    }
    if (counter < previous) backwards++;
    previous = counter;
  }
  const first = readable[0];
  const last = readable.at(-1);
  let least = Infinity;
  let most = -Infinity;
  for (const counter of seen) {
    least = Math.min(least, counter);
    most = Math.max(most, counter);
  }
  const span = first && last ? last.time - first.time : 0;
  return {
    unique: seen.size,
    // The first frame begins the span, so it is not one of those that came during it.
    perSecond: span > 0 ? (seen.size - 1) / span : 0,
    longestGap,
    first: first?.counter ?? null,
    last: last?.counter ?? null,
    missing: seen.size > 0 ? 1 - seen.size / (most - least + 1) : 0,
    unreadable: frames.length - readable.length,
    backwards,
  };
}

/** Options of `readBeeps`. */
export interface BeepOptions {
  /** The beeps' frequency in Hz; others are ignored. Default 1000. */
  readonly frequency?: number;
  /** The least level that counts as a beep, in dBFS of the sine's peak. Default -30. */
  readonly threshold?: number;
}

/** When the beeps of a recording start, in s on the file's own timeline, to within about 1 ms. */
export async function readBeeps(file: string, options: BeepOptions = {}): Promise<number[]> {
  const sound = await readSound(file);
  const threshold = 10 ** ((options.threshold ?? -30) / 20);
  const envelope = toneEnvelope(sound.samples, RATE, options.frequency ?? BEEP_HZ);
  return onsets(envelope, RATE, threshold).map((index) => timeOf(sound, index));
}

/** The RMS level of a file's sound, its channels mixed into one: overall and for each second. */
export async function loudness(file: string): Promise<Loudness> {
  const { samples } = await readSound(file);
  const perSecond: number[] = [];
  for (let from = 0; from < samples.length; from += RATE) perSecond.push(level(samples.subarray(from, from + RATE)));
  return { overall: level(samples), perSecond };
}

/** Beep minus flash in ms for each flash that has a beep within half a second: positive is sound after picture. */
export function flashBeepOffsets(frames: readonly Frame[], beeps: readonly number[]): number[] {
  const flashes = frames.filter((frame, index) => frame.flash && index > 0 && !frames[index - 1]?.flash);
  return flashes.flatMap(({ time }) => {
    let offset = Infinity;
    for (const beep of beeps) if (Math.abs(beep - time) < Math.abs(offset)) offset = beep - time;
    return Math.abs(offset) <= 0.5 ? [offset * 1000] : [];
  });
}

/** Median, 5th and 95th percentile, interpolated between the two nearest values. */
export function summary(values: readonly number[]): Summary {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number): number => {
    const place = share * (sorted.length - 1);
    const low = sorted[Math.floor(place)] ?? NaN;
    const high = sorted[Math.ceil(place)] ?? NaN;
    return low + (high - low) * (place - Math.floor(place));
  };
  return { p5: at(0.05), median: at(0.5), p95: at(0.95) };
}

const probeSchema = z.object({
  format: z.object({ format_name: z.string(), duration: z.string().optional() }),
  streams: z.array(
    z.object({
      index: z.number(),
      codec_type: z.string().optional(),
      codec_name: z.string().optional(),
      profile: z.string().optional(),
      width: z.number().optional(),
      height: z.number().optional(),
      sample_rate: z.string().optional(),
      channels: z.number().optional(),
    }),
  ),
});

interface Track {
  count: number;
  duration(): number;
}

// Packet timestamps, since a container's own durations are what a recorder wrote, not what it recorded.
async function readPackets(file: string): Promise<Map<number, Track>> {
  const entries = 'packet=stream_index,pts_time,duration_time,flags';
  const run = start('ffprobe', ['-v', 'error', '-show_entries', entries, '-of', 'compact=p=0', file]);
  const tracks = new Map<number, Track & { add(time: number, duration: number, hidden: boolean): void }>();
  const read = async (): Promise<void> => {
    for await (const line of createInterface({ input: run.stdout })) {
      const field = (name: string): string | undefined => new RegExp(`(?:^|\\|)${name}=([^|]*)`).exec(line)?.[1];
      const index = Number(field('stream_index') ?? NaN);
      if (Number.isNaN(index)) continue;
      let track = tracks.get(index);
      if (!track) tracks.set(index, (track = createTrack()));
      // D: outside the edit list, decoded but never shown.
      track.add(Number(field('pts_time')), Number(field('duration_time')), field('flags')?.includes('D') ?? false);
    }
  };
  await Promise.all([read(), run.done]);
  return tracks;
}

function createTrack(): Track & { add(time: number, duration: number, hidden: boolean): void } {
  let first = Infinity;
  let end = -Infinity;
  return {
    count: 0,
    duration: () => Math.max(0, end - first),
    add(time, duration, hidden) {
      if (hidden) return;
      this.count++;
      if (Number.isNaN(time)) return;
      first = Math.min(first, time);
      end = Math.max(end, time + (Number.isNaN(duration) ? 0 : duration));
    },
  };
}

async function readPictures(stdout: Readable): Promise<Reading[]> {
  const readings: Reading[] = [];
  const picture = { data: new Uint8Array(PICTURE_WIDTH * PICTURE_HEIGHT), width: PICTURE_WIDTH, height: PICTURE_HEIGHT };
  let filled = 0;
  for await (const chunk of stdout as AsyncIterable<Buffer>) {
    for (let from = 0; from < chunk.length; ) {
      const part = chunk.subarray(from, from + picture.data.length - filled);
      picture.data.set(part, filled);
      filled += part.length;
      from += part.length;
      if (filled < picture.data.length) continue;
      readings.push(readPicture(picture));
      filled = 0;
    }
  }
  return readings;
}

interface Sound {
  /** Mono, 48 kHz, 1 is full scale. */
  readonly samples: Float32Array;
  /** The decoder's frames: which sample each starts at, and its presentation time in s. */
  readonly marks: readonly { index: number; time: number }[];
}

async function readSound(file: string): Promise<Sound> {
  const run = start('ffmpeg', [
    ...decoding(file),
    '-map', '0:a:0', '-af', `aresample=${RATE},aformat=channel_layouts=mono,asettb=1/${RATE},ashowinfo`,
    '-f', 'f32le', '-c:a', 'pcm_f32le', 'pipe:1',
  ]);
  const [times, bytes] = await Promise.all([readTimes(run.lines, 1 / RATE), readBytes(run.stdout), run.done]);
  const marks: { index: number; time: number }[] = [];
  let index = 0;
  for (const { time, samples } of times) {
    marks.push({ index, time });
    index += samples;
  }
  if (index !== bytes.length / 4) throw new Error(`ffmpeg wrote ${bytes.length / 4} samples but announced ${index} for ${file}.`);
  return { samples: new Float32Array(bytes.buffer, bytes.byteOffset, index), marks };
}

// By the mark before it, so that a hole in the track moves what comes after.
function timeOf({ marks }: Sound, index: number): number {
  const before = marks.findLast((mark) => mark.index <= index) ?? marks[0];
  return before ? before.time + (index - before.index) / RATE : NaN;
}

