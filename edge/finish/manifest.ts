/** manifest.json: what the recording's files are, and what they were made of. */
import { z } from 'zod';
import { marker, pause, recordingFile, verification } from '../../shared/recording.ts';

const seconds = (what: string) => z.number().describe(`seconds; ${what}`);

/** Times are seconds in recording.mp4, where nothing else is said. */
export const manifest = z.object({
  version: z.literal(1),
  id: z.string(),
  url: z.string().nullable().describe('the recorded page, without its query; null where only the media were left of the recording'),
  createdAt: z.iso.datetime(),
  startedAt: z.iso.datetime().nullable().describe("of the file's first picture"),
  duration: seconds('of the picture: the last one is held up to there'),
  width: z.int(),
  height: z.int(),
  frames: z.int(),
  video: z.string().describe('codecs (RFC 6381); several where attempts were encoded with other settings, each with a sample entry of its own'),
  audio: z.string().nullable(),
  segments: z.int(),
  attempts: z
    .array(z.object({ attempt: z.int(), start: z.number(), duration: z.number(), segments: z.int(), bytes: z.int().describe('of the segments') }))
    .describe('runs that the file was joined from, by time'),
  gaps: z
    .array(z.object({ start: z.number(), duration: z.number(), afterAttempt: z.int() }))
    .describe('nothing was recorded there: the last picture is held, and silence laid'),
  pauses: z.array(pause).describe('wall time that is not in the file'),
  markers: z.array(marker).describe('chapters of the file, where they are in it'),
  trimmed: seconds("what was missing before the first stored picture; the recording's timeline began so much before the file"),
  shifts: z
    .array(z.object({ attempt: z.int(), start: z.number(), by: z.number() }))
    .describe('an attempt that began before the end of what was stored of the one before stands later in the file, from `start` on, `by` so much'),
  silence: seconds('sound that was laid where none was stored'),
  parts: z.object({ count: z.int(), bytes: z.int() }).describe('all that was stored of the recording while it was made'),
  verification,
  warnings: z.array(z.string()),
  files: z.array(recordingFile).describe('all but the manifest itself'),
});
export type Manifest = z.infer<typeof manifest>;
