/** How an object store is reached: STORAGE_URL, S3_ENDPOINT, and the variables that every AWS SDK reads. */
import { z } from 'zod';
import { ConfigError } from '../../shared/config.ts';
import { assertPrefix } from './storage.ts';

export type S3Settings = {
  bucket: string;
  /** Before every key: empty, or ending in a slash. */
  prefix: string;
  /** Null for AWS's own. */
  endpoint: string | null;
  region: string;
  /** Null for those of the machine's or the pod's role, or of a profile, as the SDK finds them. */
  credentials: { accessKeyId: string; secretAccessKey: string; sessionToken?: string } | null;
  /** Whether what is written carries a CRC32 always, or only where S3 itself demands it; some compatible servers refuse it. */
  checksums: 'when_supported' | 'when_required';
};

export const s3Variables = {
  S3_ENDPOINT: z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' }).optional(),
  AWS_REGION: z.string().regex(/^[A-Za-z0-9-]{1,64}$/, { error: 'must be the name of a region' }).default('us-east-1'),
  AWS_ACCESS_KEY_ID: z.string().optional(),
  AWS_SECRET_ACCESS_KEY: z.string().optional(),
  AWS_SESSION_TOKEN: z.string().optional(),
  AWS_REQUEST_CHECKSUM_CALCULATION: z
    .string()
    .toLowerCase()
    .pipe(z.enum(['when_supported', 'when_required'], { error: 'must be when_supported or when_required' }))
    .default('when_supported'),
};
export const secretS3Variables = ['AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'];

/** @throws {ConfigError} where the URL names no bucket, or half of the credentials is missing */
export function readS3Settings(url: string, variables: z.infer<z.ZodObject<typeof s3Variables>>): S3Settings {
  const { S3_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REQUEST_CHECKSUM_CALCULATION } = variables;
  const match = /^s3:\/\/([A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9])(?:\/(.*))?$/.exec(url);
  const prefix = (match?.[2] ?? '').replace(/\/*$/, '/').replace(/^\/$/, '');
  if (match?.[1] === undefined || !isPrefix(prefix)) {
    throw new ConfigError(`STORAGE_URL=${JSON.stringify(url)}: must be s3://bucket or s3://bucket/prefix, of letters, digits and . _ - only`);
  }
  const endpoint = S3_ENDPOINT === undefined ? null : new URL(S3_ENDPOINT);
  if (endpoint && (endpoint.username !== '' || endpoint.search !== '' || endpoint.hash !== '')) {
    throw new ConfigError('S3_ENDPOINT must be scheme, host, port and path only: credentials go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY');
  }
  if ((AWS_ACCESS_KEY_ID === undefined) !== (AWS_SECRET_ACCESS_KEY === undefined)) {
    throw new ConfigError('AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set both, or neither');
  }
  return {
    bucket: match[1],
    prefix,
    endpoint: endpoint?.href.replace(/\/+$/, '') ?? null,
    region: AWS_REGION,
    credentials:
      AWS_ACCESS_KEY_ID === undefined || AWS_SECRET_ACCESS_KEY === undefined
        ? null
        : {
            accessKeyId: AWS_ACCESS_KEY_ID,
            secretAccessKey: AWS_SECRET_ACCESS_KEY,
            ...(AWS_SESSION_TOKEN === undefined ? {} : { sessionToken: AWS_SESSION_TOKEN }),
          },
    checksums: AWS_REQUEST_CHECKSUM_CALCULATION,
  };
}

function isPrefix(prefix: string): boolean {
  if (prefix === '') return true;
  try {
    assertPrefix(prefix);
    return true;
  } catch {
    return false;
  }
}
