/** An object that is written piece by piece: a multipart upload, or one PUT where it comes to a single part. */
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  UploadPartCommand,
  type CompletedPart,
  type S3Client,
} from '@aws-sdk/client-s3';
import { asking, codeOf } from './s3-client.ts';
import type { Upload } from './storage.ts';

/** Bytes of a part. S3 wants 5 MiB at least, and some compatible servers want all but the last of one size. */
export const PART_BYTES = 16 * 1024 * 1024;
/** Parts that an upload may have. */
const MAX_PARTS = 10_000;
/** Parts on their way at once. */
const CONCURRENCY = 2;
/** Behind a hole at the beginning, an MP4's media box has its own size, written last. */
const REWRITTEN_BYTES = 4096;

export type UploadTarget = {
  client: S3Client;
  bucket: string;
  key: string;
  partBytes: number;
  /** Whether parts carry their CRC32. */
  checksums: boolean;
  /** Writes it in one. */
  put(bytes: Uint8Array): Promise<void>;
};

/** Parts of this size hold that many bytes, with room to spare. */
export const partBytesFor = (expected: number, partBytes: number): number =>
  Math.max(partBytes, Math.ceil((expected * 1.1) / MAX_PARTS / 2 ** 20) * 2 ** 20);

/**
 * Holds in memory: the first part, those that a hole at the beginning touches, the one that is being filled and CONCURRENCY
 * on their way.
 */
export function createS3Upload({ client, bucket, key, partBytes, checksums, put }: UploadTarget): Upload {
  const object = { Bucket: bucket, Key: key };
  /** Tells, where the answer to the last request was lost, whether the object that is there is this one. */
  const mark = crypto.randomUUID();
  /** Parts in memory, from 0. */
  const held = new Map<number, Uint8Array>();
  const done = new Map<number, CompletedPart>();
  const onTheirWay = new Set<Promise<void>>();
  let uploadId: Promise<string> | null = null;
  let end = 0;
  /** Parts from the beginning that are kept back until commit. */
  let keptBack = 1;
  let sent = 0;
  let failure: { error: unknown } | null = null;
  let over = false;

  const begin = () =>
    (uploadId ??= asking(async () => {
      const answer = await client.send(
        new CreateMultipartUploadCommand({ ...object, Metadata: { upload: mark }, ...(checksums ? { ChecksumAlgorithm: 'CRC32' } : {}) }),
      );
      if (answer.UploadId === undefined) throw new Error('the storage gave the upload no id');
      return answer.UploadId;
    }));

  async function sendPart(index: number, bytes: Uint8Array): Promise<void> {
    if (index >= MAX_PARTS) throw new RangeError(`the object is larger than ${MAX_PARTS} parts of ${partBytes} bytes`);
    const UploadId = await begin();
    const PartNumber = index + 1;
    const answer = await asking(() => client.send(new UploadPartCommand({ ...object, UploadId, PartNumber, Body: bytes })));
    const { ETag, ChecksumCRC32 } = answer;
    done.set(index, { PartNumber, ETag, ...(ChecksumCRC32 === undefined ? {} : { ChecksumCRC32 }) });
  }

  /** Resolves once it may go on: few enough are on their way. */
  async function dispatch(index: number): Promise<void> {
    const bytes = held.get(index) ?? new Uint8Array(partBytes);
    held.delete(index);
    const length = Math.min(partBytes, end - index * partBytes);
    const way = sendPart(index, bytes.subarray(0, length))
      .catch((error: unknown) => void (failure ??= { error }))
      .finally(() => onTheirWay.delete(way));
    onTheirWay.add(way);
    while (onTheirWay.size >= CONCURRENCY) await Promise.race(onTheirWay);
    if (failure !== null) throw failure.error;
  }

  /** Whether the object that is there came of this upload, though its last answer said otherwise, or was lost. */
  async function isThere(): Promise<boolean> {
    try {
      const found = await client.send(new HeadObjectCommand(object));
      return found.ContentLength === end && found.Metadata?.['upload'] === mark;
    } catch {
      return false;
    }
  }

  return {
    async write(position, bytes) {
      if (failure !== null) throw failure.error;
      if (position > end && sent === 0) keptBack = Math.max(keptBack, Math.ceil((position + REWRITTEN_BYTES) / partBytes));
      for (let offset = 0; offset < bytes.length; ) {
        const index = Math.floor((position + offset) / partBytes);
        if (index >= keptBack && index < sent) throw new RangeError(`the bytes at ${position + offset} are stored already`);
        const within = position + offset - index * partBytes;
        const piece = bytes.subarray(offset, offset + partBytes - within);
        const part = held.get(index) ?? new Uint8Array(partBytes);
        held.set(index, part);
        part.set(piece, within);
        offset += piece.length;
        end = Math.max(end, position + offset);
        // one that is full, behind those that are kept back
        for (let next = Math.max(sent, keptBack); (next + 1) * partBytes <= end; next += 1) {
          sent = next + 1;
          await dispatch(next);
        }
      }
    },

    async commit() {
      if (failure !== null) throw failure.error;
      if (uploadId === null && end <= partBytes) {
        await put((held.get(0) ?? new Uint8Array()).subarray(0, end));
        over = true;
        return;
      }
      const parts = Math.ceil(end / partBytes);
      for (let index = 0; index < parts; index += 1) if (index < keptBack || index >= sent) await dispatch(index);
      await Promise.all(onTheirWay);
      if (failure !== null) throw (failure as { error: unknown }).error;
      const Parts = [...done.values()].sort((a, b) => (a.PartNumber ?? 0) - (b.PartNumber ?? 0));
      const UploadId = await begin();
      try {
        await asking(() => client.send(new CompleteMultipartUploadCommand({ ...object, UploadId, MultipartUpload: { Parts } })));
      } catch (error) {
        if (!(await isThere())) throw error;
      }
      over = true;
    },

    async abort() {
      if (over) return;
      over = true;
      held.clear();
      // a part that comes after its upload's end may stay: S3 says so, and servers were seen to do it
      await Promise.allSettled(onTheirWay);
      const UploadId = await uploadId?.catch(() => undefined);
      if (UploadId === undefined) return;
      await asking(() => client.send(new AbortMultipartUploadCommand({ ...object, UploadId }))).catch((error: unknown) => {
        if (codeOf((error as Error).cause) !== 'NoSuchUpload') throw error;
      });
    },
  };
}
