/** What an Ant Media Server's error definitions mean for a publisher (its WebSocketConstants). */
import { TabreelError, type ErrorCode } from '../../shared/errors.ts';

const known: Readonly<Record<string, readonly [code: ErrorCode, words: string]>> = {
  noStreamNameSpecified: ['push_stream_id_invalid', 'it was given no stream id'],
  invalidStreamName: ['push_stream_id_invalid', 'it does not take the stream id'],
  streamIdInUse: ['push_stream_in_use', 'somebody else publishes with this stream id'],
  already_publishing: ['push_stream_in_use', 'this stream is being published already'],
  unauthorized_access: ['push_unauthorized', 'it refuses the token or the subscriber code'],
  user_blocked: ['push_unauthorized', 'the subscriber is blocked'],
  not_allowed_unregistered_streams: ['push_stream_unknown', 'it takes streams only that are registered, and this one is not'],
  stream_not_active_or_expired: ['push_stream_unknown', 'the stream is not active, or has expired'],
  not_initialized_yet: ['push_unavailable', 'it is starting'],
  data_store_not_available: ['push_unavailable', 'its data store is out of reach'],
  highResourceUsage: ['push_unavailable', 'it has no room for another stream just now'],
  license_suspended_please_renew_license: ['push_license', 'its license is suspended'],
  no_codec_enabled_in_the_server: ['push_codec_disabled', 'it has neither H.264 nor another codec enabled'],
  encoderNotOpened: ['push_server_failed', 'its encoder did not open'],
  encoderBlocked: ['push_server_failed', 'its encoder is blocked'],
  publishTimeoutError: ['push_no_media', 'it did not get the stream in time'],
  noPacketReceivedForTimeoutDuration: ['push_no_media', 'it got no packet for too long'],
  notSetLocalDescription: ['push_server_failed', 'it could not set its own description of the session'],
  notSetRemoteDescription: ['push_server_failed', 'it could not take our description of the session'],
  server_error_check_logs: ['push_server_failed', 'something broke in it: its log tells what'],
};

/** @param host of the server, for the message. What an unknown definition says is shortened and quoted. */
export function definitionError(definition: string, host: string): TabreelError {
  const [code, words] = (Object.hasOwn(known, definition) ? known[definition] : undefined) ?? ['push_server_failed', 'it reports an error'];
  return new TabreelError(code, `${host}: ${words} (${definition.replaceAll(/[^\w .:-]/g, '?').slice(0, 100)})`);
}

/** All that are documented. */
export const definitions = Object.keys(known);
