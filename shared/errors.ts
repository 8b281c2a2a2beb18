/** Every way a request or a recording can fail: a stable code, who is to blame, and whether trying again helps. */
import type { RecordingError } from './recording.ts';

export type Blame = 'caller' | 'target' | 'service';

type ErrorKind = { blame: Blame; retryable: boolean; title: string; status?: number };

/** `status` is the HTTP status where the code can be the answer to a request. */
export const errorKinds = {
  // requests
  invalid_request: { blame: 'caller', retryable: false, status: 400, title: 'The request is not valid' },
  invalid_json: { blame: 'caller', retryable: false, status: 400, title: 'The body is not JSON' },
  unsupported_media_type: { blame: 'caller', retryable: false, status: 415, title: 'The body must be application/json' },
  body_too_large: { blame: 'caller', retryable: false, status: 413, title: 'The body is too large' },
  unauthorized: { blame: 'caller', retryable: false, status: 401, title: 'A valid credential is needed' },
  forbidden: { blame: 'caller', retryable: false, status: 403, title: 'That is not allowed' },
  too_many_requests: { blame: 'caller', retryable: true, status: 429, title: 'Too many requests in a minute' },
  too_many_recordings: { blame: 'caller', retryable: true, status: 429, title: 'The API key has as many recordings under way as it may' },
  not_found: { blame: 'caller', retryable: false, status: 404, title: 'There is nothing here' },
  recording_not_found: { blame: 'caller', retryable: false, status: 404, title: 'There is no such recording' },
  file_not_ready: { blame: 'caller', retryable: true, status: 404, title: 'The file is not there yet' },
  live_over: { blame: 'caller', retryable: false, status: 410, title: 'The live stream is over: fetch the file' },
  upgrade_required: { blame: 'caller', retryable: false, status: 426, title: 'A WebSocket upgrade is needed' },
  range_not_satisfiable: { blame: 'caller', retryable: false, status: 416, title: 'The range lies outside the file' },
  too_many_markers: { blame: 'caller', retryable: false, status: 409, title: 'The recording has as many markers as it can have' },
  illegal_state: { blame: 'caller', retryable: false, status: 409, title: 'The recording is not in a state that allows this' },
  // scripts for a recording's page
  script_threw: { blame: 'caller', retryable: false, status: 422, title: 'The script threw' },
  script_timeout: { blame: 'caller', retryable: false, status: 422, title: 'The script did not come to its end in time' },
  result_not_json: { blame: 'caller', retryable: false, status: 422, title: "The script's result is not JSON" },
  result_too_large: { blame: 'caller', retryable: false, status: 422, title: "The script's result is too large" },
  page_not_open: { blame: 'caller', retryable: true, status: 409, title: 'The page is not open yet' },
  page_navigated: { blame: 'target', retryable: false, status: 409, title: 'The page went elsewhere while the script ran' },
  page_gone: { blame: 'caller', retryable: false, status: 409, title: 'The page was closed while the script ran' },
  too_many_commands: { blame: 'caller', retryable: true, status: 429, title: 'Too many scripts wait for this page' },
  command_not_taken: { blame: 'service', retryable: true, status: 503, title: 'No worker took the script: it was not run' },
  command_lost: { blame: 'service', retryable: false, status: 504, title: 'The worker did not answer: the script may have been run' },
  idempotency_conflict: { blame: 'caller', retryable: false, status: 409, title: 'The Idempotency-Key was used with another body' },
  // the external origin: 400 for what the client did, 421 for what the operator must mend
  origin_host_missing: { blame: 'caller', retryable: false, status: 400, title: 'The request names no host' },
  origin_host_duplicate: { blame: 'caller', retryable: false, status: 400, title: 'The request has more than one Host header' },
  origin_host_invalid: { blame: 'caller', retryable: false, status: 400, title: 'The host of the request is not valid' },
  origin_target_mismatch: { blame: 'caller', retryable: false, status: 400, title: 'The request line and the headers name different origins' },
  origin_port_invalid: { blame: 'caller', retryable: false, status: 400, title: 'The port of the request is not valid' },
  origin_proto_invalid: { blame: 'caller', retryable: false, status: 400, title: 'The forwarded scheme is not one' },
  origin_prefix_invalid: { blame: 'caller', retryable: false, status: 400, title: 'The forwarded path prefix is not valid' },
  origin_forwarded_invalid: { blame: 'caller', retryable: false, status: 400, title: 'The Forwarded header is not valid' },
  origin_conflict: { blame: 'caller', retryable: false, status: 400, title: 'Forwarded and X-Forwarded headers contradict each other' },
  origin_lists_unequal: { blame: 'service', retryable: false, status: 421, title: 'The forwarding headers do not tell which proxy said what' },
  origin_host_not_allowed: { blame: 'service', retryable: false, status: 421, title: 'This host is not served here' },
  origin_insecure: { blame: 'service', retryable: false, status: 421, title: 'Media would go over the network in the clear' },
  origin_loopback: { blame: 'service', retryable: true, status: 421, title: 'No worker can reach this address' },
  unsupported_here: { blame: 'service', retryable: false, status: 501, title: 'This deployment can not do that' },
  redis_unavailable: { blame: 'service', retryable: true, status: 503, title: 'The queue is out of reach' },
  storage_full: { blame: 'service', retryable: true, status: 507, title: 'The storage is full' },
  storage_unavailable: { blame: 'service', retryable: true, status: 503, title: 'The storage is out of reach' },
  internal: { blame: 'service', retryable: true, status: 500, title: 'Something broke in here' },
  // the target page
  target_dns: { blame: 'target', retryable: false, title: "The page's host name does not resolve" },
  target_dns_temporary: { blame: 'target', retryable: true, title: "The page's host name can not be looked up just now" },
  target_unreachable: { blame: 'target', retryable: true, title: "The page's server does not answer" },
  target_blocked: { blame: 'target', retryable: false, title: "The page's address is not open to recordings" },
  target_tls: { blame: 'target', retryable: false, title: "The page's certificate is not valid" },
  target_http_status: { blame: 'target', retryable: false, title: 'The page answered with an error status' },
  target_http_unavailable: { blame: 'target', retryable: true, title: 'The page is not to be had just now' },
  target_not_a_page: { blame: 'target', retryable: false, title: 'The address answered with a download, not a page' },
  target_timeout: { blame: 'target', retryable: true, title: 'The page did not load in time' },
  start_timeout: { blame: 'target', retryable: false, title: 'The start condition did not come in time' },
  start_selector_invalid: { blame: 'caller', retryable: false, title: 'The start selector is not valid' },
  page_hung: { blame: 'target', retryable: true, title: 'The page does not answer any more' },
  page_too_large: { blame: 'target', retryable: true, title: 'The page needed more memory than a recording may have' },
  page_crashed: { blame: 'target', retryable: true, title: "The page's process crashed" },
  // our own way
  self_test_failed: { blame: 'service', retryable: true, title: 'This machine does not record a page as it should' },
  browser_not_found: { blame: 'service', retryable: false, title: 'There is no browser to record with' },
  browser_launch_failed: { blame: 'service', retryable: true, title: 'The browser did not start' },
  browser_crashed: { blame: 'service', retryable: true, title: 'The browser ended by itself' },
  capture_unavailable: { blame: 'service', retryable: false, title: 'No capture engine works on this page' },
  capture_failed: { blame: 'service', retryable: true, title: 'The capture ended by itself' },
  no_frames: { blame: 'service', retryable: true, title: 'No picture came from the page' },
  capture_frozen: { blame: 'service', retryable: true, title: 'The page gave pictures and none was encoded' },
  encoder_failed: { blame: 'service', retryable: true, title: 'The encoder failed' },
  media_unreachable: { blame: 'service', retryable: true, title: 'The media URL can not be reached from the worker' },
  media_dns: { blame: 'service', retryable: true, title: "The media URL's host name does not resolve" },
  media_connection_refused: { blame: 'service', retryable: true, title: 'Nothing listens at the media URL' },
  media_timeout: { blame: 'service', retryable: true, title: 'The media URL does not answer in time' },
  media_tls_expired: { blame: 'service', retryable: false, title: "The media URL's certificate has expired" },
  media_tls_name: { blame: 'service', retryable: false, title: "The media URL's certificate is for another name" },
  media_tls_authority: { blame: 'service', retryable: false, title: "The authority of the media URL's certificate is not trusted" },
  media_tls: { blame: 'service', retryable: false, title: 'TLS with the media URL failed' },
  media_http_status: { blame: 'service', retryable: true, title: 'The media URL answered with an error status' },
  media_upgrade_cut: { blame: 'service', retryable: false, title: 'A proxy before the media URL does not pass WebSockets on' },
  media_subprotocol: { blame: 'service', retryable: false, title: 'The media URL does not speak the media subprotocol' },
  media_refused: { blame: 'service', retryable: false, title: 'The ingest refused the media' },
  media_backlog: { blame: 'service', retryable: true, title: 'The media could not be sent as fast as it came' },
  // a push to somebody else's server
  push_unreachable: { blame: 'target', retryable: true, title: 'The push target can not be reached' },
  push_tls: { blame: 'target', retryable: false, title: "The push target's certificate is not valid" },
  push_forbidden: { blame: 'caller', retryable: false, title: 'The push target has an address that may not be dialled' },
  push_ice_failed: { blame: 'target', retryable: true, title: 'No media connection with the push target came about' },
  push_ended: { blame: 'target', retryable: true, title: 'The push target ended the stream' },
  push_stream_id_invalid: { blame: 'caller', retryable: false, title: 'The push target does not take the stream id' },
  push_stream_in_use: { blame: 'caller', retryable: true, title: 'The stream id is in use at the push target' },
  push_stream_unknown: { blame: 'caller', retryable: false, title: 'The push target does not know the stream, or it has expired' },
  push_unauthorized: { blame: 'caller', retryable: false, title: 'The push target refuses the credential' },
  push_unavailable: { blame: 'target', retryable: true, title: 'The push target takes no stream just now' },
  push_license: { blame: 'target', retryable: false, title: "The push target's license is suspended" },
  push_codec_disabled: { blame: 'target', retryable: false, title: 'The push target takes no H.264' },
  push_no_media: { blame: 'target', retryable: true, title: 'No media arrives at the push target' },
  push_server_failed: { blame: 'target', retryable: true, title: 'Something broke in the push target' },
  worker_lost: { blame: 'service', retryable: true, title: 'The worker of the recording was lost' },
  finish_failed: { blame: 'service', retryable: true, title: 'The file could not be finished' },
  nothing_recorded: { blame: 'service', retryable: false, title: 'No media was stored' },
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof errorKinds;

export type FieldIssue = { path: string; message: string };

/** An error with a code. The message is for whoever is to blame; `cause` is for the log. */
export class TabreelError extends Error {
  readonly code: ErrorCode;
  readonly issues: readonly FieldIssue[];
  /** Seconds after which the same request may succeed; null where that isn't known. */
  readonly retryAfter: number | null;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; issues?: readonly FieldIssue[]; retryAfter?: number } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'TabreelError';
    this.code = code;
    this.issues = options.issues ?? [];
    this.retryAfter = options.retryAfter ?? null;
  }

  get kind(): ErrorKind {
    return errorKinds[this.code];
  }

  /** As it stands in a recording. */
  toRecordingError(): RecordingError {
    return { code: this.code, message: this.message, blame: this.kind.blame, retryable: this.kind.retryable };
  }
}

/** Whatever was thrown, as an error with a code. */
export const asTabreelError = (error: unknown, fallback: ErrorCode = 'internal'): TabreelError =>
  error instanceof TabreelError
    ? error
    : new TabreelError(fallback, error instanceof Error ? error.message : String(error), { cause: error });
