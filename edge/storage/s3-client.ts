/** The client of an object store: how long it tries, and what its errors mean. */
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3';
import { TabreelError } from '../../shared/errors.ts';
import type { S3Settings } from './s3-settings.ts';
import { storageFull } from './storage.ts';

/** How long an answer is waited for, and how long a failed request is tried again. Milliseconds. */
export type S3Patience = {
  /** Until the connection stands. */
  connect: number;
  /** Nothing moves on the connection. */
  idle: number;
  /** One try, from its beginning to the head of the answer. */
  request: number;
  /** No further try is begun after this. */
  retries: number;
};

/** A part of 16 MiB takes two minutes at 1 Mb/s; workers keep their media while an edge tries. */
export const usualPatience: S3Patience = { connect: 3000, idle: 10_000, request: 120_000, retries: 20_000 };

const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 3000;

/** Exponential with full jitter, so that many who were cut off together don't come back together. */
export const retryDelay = (tries: number): number => Math.random() * Math.min(FIRST_DELAY_MS * 2 ** tries, MAX_DELAY_MS);

/** The S3 API's codes, and those of compatible servers, for a storage that takes no more. */
const fullCodes = new Set(['QuotaExceeded', 'XMinioStorageFull', 'XMinioAdminBucketQuotaExceeded', 'InsufficientStorage', 'StorageFull', 'NoSpaceLeft']);
const credentialCodes = new Set([
  'InvalidAccessKeyId', 'SignatureDoesNotMatch', 'AuthorizationHeaderMalformed', 'ExpiredToken', 'InvalidToken', 'RequestTimeTooSkewed',
  'CredentialsProviderError', 'InvalidClientTokenId', 'UnrecognizedClientException', 'XAdminUserNotFound',
]); // prettier-ignore
/** A connection that ended in the midst of an answer; the SDK knows those before it. */
const cutCodes = new Set(['ERR_STREAM_PREMATURE_CLOSE', 'ABORT_ERR', 'ECONNABORTED', 'HPE_INVALID_EOF_STATE']);

type ServiceError = Error & { code?: string; Code?: string; $metadata?: { httpStatusCode?: number } };

export const statusOf = (error: unknown): number => (error as ServiceError).$metadata?.httpStatusCode ?? 0;
/** The service's own code (`NoSuchKey`), or Node's (`ECONNREFUSED`). */
export const codeOf = (error: unknown): string => {
  const { Code, code, name } = error as ServiceError;
  return Code ?? code ?? name;
};

export const isFull = (error: unknown): boolean => statusOf(error) === 507 || fullCodes.has(codeOf(error));
/** Whether an answer was cut off, or never came. */
export const isCut = (error: unknown): boolean => cutCodes.has(codeOf(error)) || statusOf(error) === 0;

/** What was thrown, as the rest of the edge knows it. Names neither bucket nor endpoint: callers are told of it too. */
export function asStorageError(error: unknown): unknown {
  if (error instanceof TabreelError || error instanceof TypeError) return error;
  if (isFull(error)) return storageFull(error);
  const known = codeOf(error);
  // an answer without a body has no code
  const code = known.startsWith('Unknown') ? `HTTP ${statusOf(error)}` : known;
  return new TabreelError('storage_unavailable', `${meaningOf(error, code)} (${code})`, { cause: error });
}

function meaningOf(error: unknown, code: string): string {
  if (code === 'NoSuchBucket') return 'the bucket of STORAGE_URL does not exist';
  if (code === 'CredentialsProviderError') return 'there are no credentials for the storage: AWS_ACCESS_KEY_ID is not set, and no role gives any';
  if (credentialCodes.has(code)) return 'the storage refuses the credentials';
  if (statusOf(error) === 403) return 'the storage does not permit this';
  if (statusOf(error) === 301 || code === 'PermanentRedirect') return 'the bucket of STORAGE_URL is in another region than AWS_REGION';
  return statusOf(error) === 0 ? 'the storage does not answer' : 'the storage failed';
}

/** Whether the server does not do this at all, or not for us: some lack what S3 has beside the plain requests. */
export const isRefused = (error: unknown): boolean =>
  error instanceof TabreelError && error.code === 'storage_unavailable' && [400, 403, 405, 411, 501].includes(statusOf(error.cause ?? {}));

/** Runs a request, and says in our own words what came of it. */
export async function asking<T>(request: () => Promise<T>): Promise<T> {
  try {
    return await request();
  } catch (error) {
    throw asStorageError(error);
  }
}

export function createS3Client({ endpoint, region, credentials, checksums }: S3Settings, patience: S3Patience): S3Client {
  return new S3Client({
    region,
    ...(endpoint === null ? {} : { endpoint, forcePathStyle: true }),
    ...(credentials === null ? {} : { credentials: { ...credentials } }),
    requestChecksumCalculation: checksums === 'when_supported' ? 'WHEN_SUPPORTED' : 'WHEN_REQUIRED',
    // whole files are hashed when they are finished; what comes in ranges has no checksum to compare
    responseChecksumValidation: 'WHEN_REQUIRED',
    // would open a connection of its own for each body
    expectContinueHeader: false,
    retryStrategy: retriesOf(patience),
    requestHandler: {
      connectionTimeout: patience.connect,
      socketTimeout: patience.idle,
      requestTimeout: patience.request,
      throwOnRequestTimeout: true,
      // many slow viewers must not keep a part waiting for a connection
      httpAgent: { keepAlive: true, maxSockets: Number.POSITIVE_INFINITY },
      httpsAgent: { keepAlive: true, maxSockets: Number.POSITIVE_INFINITY },
    },
  });
}

/** The SDK's own strategies count tries; here the time counts, since what is waited for is a server that comes back. */
function retriesOf({ retries }: S3Patience): NonNullable<S3ClientConfig['retryStrategy']> {
  const tokenOf = (began: number, tries: number) => ({ began, getRetryCount: () => tries, getRetryDelay: () => (tries === 0 ? 0 : retryDelay(tries)) });
  return {
    acquireInitialRetryToken: async () => tokenOf(performance.now(), 0),
    async refreshRetryTokenForRetry(token, { errorType, error }) {
      const { began } = token as ReturnType<typeof tokenOf>;
      const lasting = errorType === 'CLIENT_ERROR' && !(cutCodes.has(codeOf(error)) && statusOf(error) === 0);
      if (lasting || statusOf(error) === 501 || isFull(error) || performance.now() - began > retries) throw new Error('not tried again');
      return tokenOf(began, token.getRetryCount() + 1);
    },
    recordSuccess: () => undefined,
  };
}
