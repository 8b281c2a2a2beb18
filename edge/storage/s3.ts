/**
 * Storage in a bucket: S3, or whatever speaks its API. Durable means: the answer to the completed PUT was good. A lost answer is
 * no loss, as the same bytes are then put again.
 */
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type ListMultipartUploadsCommandInput,
  type ListMultipartUploadsCommandOutput,
  type ListObjectsV2CommandOutput,
} from '@aws-sdk/client-s3';
import { TabreelError } from '../../shared/errors.ts';
import { asStorageError, asking, codeOf, createS3Client, isCut, isRefused, retryDelay, statusOf, usualPatience, type S3Patience } from './s3-client.ts';
import type { S3Settings } from './s3-settings.ts';
import { PART_BYTES, createS3Upload, partBytesFor } from './s3-upload.ts';
import { assertKey, assertPrefix, type Storage, type StoredObject } from './storage.ts';

/** An upload that began this long ago is nobody's: the longest recording is joined in hours. */
const ABANDONED_MS = 24 * 3_600_000;
/** A check that was good is not made again for so long: health checks come often, and each would be two paid requests. */
const CHECKED_MS = 5000;
/** A health check is not kept waiting longer. */
const CHECK_MS = 4000;

/** Objects that are removed at once, where the server removes one with a request only. */
const REMOVALS = 16;

export type S3Options = { patience?: Partial<S3Patience>; /** Bytes; 5 MiB at least. */ partBytes?: number };

type Body = { stream: Readable; etag: string | undefined };

export function s3Storage(settings: S3Settings, options: S3Options = {}): Storage {
  const patience = { ...usualPatience, ...options.patience };
  const client = createS3Client(settings, patience);
  const { bucket: Bucket, prefix: root } = settings;
  const nameOf = (key: string): string => {
    assertKey(key);
    return root + key;
  };
  const below = (prefix: string): string => {
    assertPrefix(prefix);
    return root + prefix;
  };

  const put = async (key: string, bytes: Uint8Array, abortSignal?: AbortSignal): Promise<void> => {
    const Key = nameOf(key);
    await asking(() => client.send(new PutObjectCommand({ Bucket, Key, Body: bytes }), abortSignal ? { abortSignal } : {}));
  };

  /** @returns null where there is no such object; 'behind' where the range begins at its end or behind it */
  async function open(key: string, start: number, end: number, etag?: string): Promise<Body | 'behind' | null> {
    const whole = start === 0 && end === Number.POSITIVE_INFINITY;
    try {
      const { Body, ETag } = await client.send(
        new GetObjectCommand({
          Bucket,
          Key: nameOf(key),
          ...(whole ? {} : { Range: `bytes=${start}-${end === Number.POSITIVE_INFINITY ? '' : end - 1}` }),
          ...(etag === undefined ? {} : { IfMatch: etag }),
        }),
      );
      return { stream: Body instanceof Readable ? Body : Readable.from([]), etag: ETag };
    } catch (error) {
      if (codeOf(error) === 'NoSuchKey') return null;
      if (statusOf(error) === 416) return 'behind';
      throw asStorageError(error);
    }
  }

  const stat: Storage['stat'] = async (key) => {
    try {
      const { ContentLength, LastModified } = await client.send(new HeadObjectCommand({ Bucket, Key: nameOf(key) }));
      return { bytes: ContentLength ?? 0, modified: LastModified ?? new Date(0) };
    } catch (error) {
      // an answer without a body has no code
      if (statusOf(error) === 404) return null;
      throw asStorageError(error);
    }
  };

  /** Goes on where it was cut off, for as long as any request is tried again. */
  const stream: Storage['stream'] = async (key, range) => {
    const end = range?.end ?? Number.POSITIVE_INFINITY;
    let position = range?.start ?? 0;
    if (end <= position) return (await stat(key)) === null ? null : new Response(new Uint8Array()).body;
    const first = await open(key, position, end);
    if (first === null) return null;
    if (first === 'behind') return new Response(new Uint8Array()).body;
    const { etag } = first;
    let body = first.stream;
    let chunks = body[Symbol.asyncIterator]();
    let tries = 0;
    let movedAt = performance.now();
    let cancelled = false;

    async function goOn(error: unknown): Promise<void> {
      body.destroy();
      if (!isCut(error) || performance.now() - movedAt > patience.retries) throw asStorageError(error);
      await sleep(retryDelay(tries));
      tries += 1;
      if (cancelled) return;
      const next = await open(key, position, end, etag);
      if (next === null || next === 'behind') throw new TabreelError('storage_unavailable', 'the object is not there any more');
      body = next.stream;
      chunks = body[Symbol.asyncIterator]();
      if (cancelled) body.destroy();
    }

    return new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          // the time that a slow reader takes is no trouble of the storage's
          movedAt = performance.now();
          while (!cancelled) {
            try {
              const { done, value } = (await chunks.next()) as IteratorResult<Uint8Array>;
              if (done) return controller.close();
              position += value.length;
              tries = 0;
              return controller.enqueue(value);
            } catch (error) {
              if (!cancelled) await goOn(error);
            }
          }
        },
        cancel() {
          cancelled = true;
          body.destroy();
        },
      },
      { highWaterMark: 1 },
    );
  };

  async function* pages(Prefix: string): AsyncGenerator<StoredObject[]> {
    let ContinuationToken: string | undefined;
    do {
      const answer = await asking(() => client.send(new ListObjectsV2Command({ Bucket, Prefix, ...(ContinuationToken === undefined ? {} : { ContinuationToken }) })));
      yield (answer.Contents ?? []).flatMap(({ Key, Size }) => (Key === undefined || Key.endsWith('/') ? [] : [{ key: Key.slice(root.length), bytes: Size ?? 0 }]));
      ContinuationToken = answer.IsTruncated === true ? answer.NextContinuationToken : undefined;
    } while (ContinuationToken !== undefined);
  }

  /** Ends uploads that were never completed, whose parts are stored and paid for. @returns how many */
  async function abortUploads(Prefix: string, which: (name: string, begun: Date) => boolean): Promise<number> {
    let aborted = 0;
    let from: Pick<ListMultipartUploadsCommandInput, 'KeyMarker' | 'UploadIdMarker'> | null = {};
    while (from !== null) {
      const page = new ListMultipartUploadsCommand({ Bucket, Prefix, ...from });
      const answer: ListMultipartUploadsCommandOutput = await asking(() => client.send(page));
      for (const { Key, UploadId, Initiated } of answer.Uploads ?? []) {
        if (Key === undefined || UploadId === undefined || !which(Key, Initiated ?? new Date())) continue;
        await asking(() => client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId }))).catch((error: unknown) => {
          if (codeOf((error as Error).cause) !== 'NoSuchUpload') throw error;
        });
        aborted += 1;
      }
      const { IsTruncated, NextKeyMarker: KeyMarker, NextUploadIdMarker: UploadIdMarker } = answer;
      from = IsTruncated === true && KeyMarker !== undefined ? { KeyMarker, UploadIdMarker } : null;
    }
    return aborted;
  }

  /** As above, before an object is begun or removed; where the server can't, sweeping or the bucket's own rules may. */
  const tidy = async (Prefix: string, which: (name: string) => boolean): Promise<void> => {
    await abortUploads(Prefix, which).catch((error: unknown) => {
      if (!isRefused(error)) throw error;
    });
  };

  const removeObject = async (key: string): Promise<void> => {
    await asking(() => client.send(new DeleteObjectCommand({ Bucket, Key: nameOf(key) })));
  };

  async function removeAll(objects: readonly StoredObject[]): Promise<void> {
    if (objects.length === 0) return;
    const Objects = objects.map(({ key }) => ({ Key: root + key }));
    let left: string[];
    try {
      const { Errors = [] } = await asking(() => client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects, Quiet: true } })));
      left = Errors.flatMap(({ Key, Code }) => (Key === undefined || Code === 'NoSuchKey' ? [] : [Key.slice(root.length)]));
    } catch (error) {
      // a server that has no such request, or wants an MD5 with it
      if (!isRefused(error)) throw error;
      left = objects.map(({ key }) => key);
    }
    for (let i = 0; i < left.length; i += REMOVALS) await Promise.all(left.slice(i, i + REMOVALS).map(removeObject));
  }

  let checkedAt = Number.NEGATIVE_INFINITY;
  let checking: Promise<void> | null = null;
  async function check(): Promise<void> {
    const key = 'check';
    const abortSignal = AbortSignal.timeout(CHECK_MS);
    await put(key, new TextEncoder().encode('.'), abortSignal);
    await asking(() => client.send(new DeleteObjectCommand({ Bucket, Key: nameOf(key) }), { abortSignal }));
    checkedAt = performance.now();
  }

  return {
    put: (key, bytes) => put(key, bytes),

    async get(key, range) {
      const found = await stream(key, range);
      return found && new Uint8Array(await new Response(found).arrayBuffer());
    },

    stream,
    stat,

    async list(prefix) {
      const found: StoredObject[] = [];
      for await (const page of pages(below(prefix))) found.push(...page);
      return found.sort((a, b) => (a.key < b.key ? -1 : 1));
    },

    async folders() {
      const found: string[] = [];
      let ContinuationToken: string | undefined;
      do {
        const page = new ListObjectsV2Command({ Bucket, Prefix: root, Delimiter: '/', ...(ContinuationToken === undefined ? {} : { ContinuationToken }) });
        const answer: ListObjectsV2CommandOutput = await asking(() => client.send(page));
        for (const { Prefix } of answer.CommonPrefixes ?? []) if (Prefix !== undefined) found.push(Prefix.slice(root.length, -1));
        ContinuationToken = answer.IsTruncated === true ? answer.NextContinuationToken : undefined;
      } while (ContinuationToken !== undefined);
      return found.sort();
    },

    async remove(prefix) {
      const name = below(prefix);
      await tidy(name, () => true);
      // a page is as long as what may be removed at once: 1000
      for await (const page of pages(name)) await removeAll(page);
    },

    removeObject,

    async create(key, expected = 0) {
      const name = nameOf(key);
      await tidy(name, (found) => found === name);
      return createS3Upload({
        client,
        bucket: Bucket,
        key: name,
        partBytes: partBytesFor(expected, options.partBytes ?? PART_BYTES),
        checksums: settings.checksums === 'when_supported',
        put: (bytes) => put(key, bytes),
      });
    },

    async check() {
      if (performance.now() - checkedAt > CHECKED_MS) {
        checking ??= check().finally(() => (checking = null));
        await checking;
      }
      return { freeBytes: null };
    },

    freeBytes: async () => null,
    minFreeBytes: async () => 0,

    sweep: () => abortUploads(root, (_name, begun) => begun.getTime() < Date.now() - ABANDONED_MS),
  };
}

