/** What a webhook is sent: the recording in the state that it came to, signed as Standard Webhooks has it. */
import { createHmac } from 'node:crypto';
import type { Recording } from '../../shared/recording.ts';
import type { RecordingRecord } from '../../shared/recording-store.ts';
import { detailsOf, viewOf } from '../recording/view.ts';
import type { WebhookEvent } from './queue.ts';

export type WebhookMessage = {
  type: 'recording.state';
  /** When the recording came to the state, ISO 8601. */
  timestamp: string;
  /** Without links where nothing is there to sign them with. */
  data: Omit<Recording, 'links'> & Partial<Pick<Recording, 'links'>>;
};

/**
 * The recording as it is known now, but in the event's state: it may have gone on since.
 *
 * @param tokenSecrets sign the links; null leaves them out
 * @param now milliseconds since the epoch
 */
export async function messageOf(event: WebhookEvent, record: RecordingRecord, tokenSecrets: readonly string[] | null, now: number): Promise<WebhookMessage> {
  const then: RecordingRecord = { ...record, state: event.state };
  delete then.error;
  if (event.error !== undefined) then.error = event.error;
  const origin = { ...record.origin, prefix: record.webhook?.prefix ?? '', hops: 0 };
  const data = tokenSecrets === null ? detailsOf(then) : await viewOf(then, origin, tokenSecrets, now);
  return { type: 'recording.state', timestamp: event.at, data };
}

/**
 * The headers that go with a body.
 *
 * @param secret `whsec_` and base64 of the key, or any text, whose UTF-8 is the key
 * @param now milliseconds since the epoch
 * @see https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
export function signedHeaders(secret: string, id: string, body: string, now: number): Record<string, string> {
  const key = secret.startsWith('whsec_') ? Buffer.from(secret.slice('whsec_'.length), 'base64') : Buffer.from(secret);
  const timestamp = String(Math.floor(now / 1000));
  return {
    'content-type': 'application/json',
    'user-agent': 'Tabreel-Webhooks/1',
    'webhook-id': id,
    'webhook-timestamp': timestamp,
    'webhook-signature': `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`,
  };
}
