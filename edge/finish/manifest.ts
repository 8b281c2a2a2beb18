/** manifest.json: what the recording's files are, and what they were made of. */
import { z } from 'zod';
import { recordingFile } from '../../shared/recording.ts';

export const manifest = z.object({
  version: z.literal(1),
  id: z.string(),
  url: z.string().describe('the recorded page, without its query'),
  createdAt: z.iso.datetime(),
  startedAt: z.iso.datetime().nullable(),
  duration: z.number().describe('seconds'),
  width: z.int(),
  height: z.int(),
  frames: z.int(),
  video: z.string().describe('codec (RFC 6381)'),
  audio: z.string().nullable(),
  segments: z.int(),
  attempts: z
    .array(z.object({ attempt: z.int(), start: z.number(), duration: z.number(), segments: z.int() }))
    .describe('runs that the file was joined from; where each begins in the file and how long it is, in seconds'),
  warnings: z.array(z.string()),
  files: z.array(recordingFile).describe('all but the manifest itself'),
});
export type Manifest = z.infer<typeof manifest>;
