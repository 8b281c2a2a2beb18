/** A recording's message in the queue. It carries all that a worker needs, so that a worker never asks the edge. */
import { z } from 'zod';
import { TabreelError } from './errors.ts';
import { recordingId, recordingSpec } from './recording.ts';

const JOB_VERSION = 1;

/** In the place of a credential that is sealed: processes of before, which know of none, go on reading records and jobs. */
export const IS_SEALED = 'sealed';

export const recordingJob = z.object({
  version: z.literal(JOB_VERSION),
  recordingId,
  /** Absolute `wss://` (or `ws://`) URL that the media goes to; no credential in it. */
  mediaUrl: z.url({ protocol: /^wss?$/ }).max(8192),
  /** Opaque to the worker: sent as a bearer token in the handshake of the media socket. IS_SEALED where it is among the sealed. */
  credential: z.string().min(1).max(4096),
  /** How the media URL's origin was found, for the worker's log. */
  origin: z.object({ source: z.string(), hops: z.int().min(0) }),
  spec: recordingSpec,
  /** `JobSecrets`, sealed under SECRETS_KEY for this recording; null where the edge has no such key. */
  sealed: z.string().max(1_000_000).nullable(),
});
export type RecordingJob = z.infer<typeof recordingJob>;

export const newJob = (job: Omit<RecordingJob, 'version'>): RecordingJob => ({ version: JOB_VERSION, ...job });

/** @throws {TabreelError} `internal`, naming the field, where the message is not a job of this version. */
export function parseJob(data: unknown): RecordingJob {
  const parsed = recordingJob.safeParse(data);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new TabreelError('internal', `the job is not valid at ${issue?.path.join('.') || 'its root'}: ${issue?.message ?? ''}`);
}

/**
 * The finaliser's message: join what is stored of a recording into its file (`finish`), remove the parts that the file has made
 * superfluous (`sweep`), or remove all that is stored, and keep the record (`discard`) or not (`remove`).
 */
export const finishJob = z.object({
  version: z.literal(JOB_VERSION),
  recordingId,
  action: z.enum(['finish', 'sweep', 'discard', 'remove']),
  /** What a first look at the parts found, where more of them might have come: see edge/finish/finish.ts. */
  seen: z.string().optional(),
});
export type FinishJob = z.infer<typeof finishJob>;

export const newFinishJob = (id: string, action: FinishJob['action']): FinishJob => ({ version: JOB_VERSION, recordingId: id, action });
