/** Words of Ant Media Server's signalling, as its Community edition (WebSocketCommunityHandler, RTMPAdaptor) has them. */

/** What a publisher may be told with `{"command":"error"}`. */
export const errorDefinitions = [
  'noStreamNameSpecified',
  'invalidStreamName',
  'streamIdInUse',
  'already_publishing',
  'unauthorized_access',
  'user_blocked',
  'not_allowed_unregistered_streams',
  'stream_not_active_or_expired',
  'not_initialized_yet',
  'data_store_not_available',
  'highResourceUsage',
  'license_suspended_please_renew_license',
  'no_codec_enabled_in_the_server',
  'encoderNotOpened',
  'encoderBlocked',
  'publishTimeoutError',
  'noPacketReceivedForTimeoutDuration',
  'notSetLocalDescription',
  'notSetRemoteDescription',
  'server_error_check_logs',
] as const;
export type ErrorDefinition = (typeof errorDefinitions)[number];

export type Message = Record<string, unknown>;

export const isStreamId = (id: string): boolean => /^[a-z0-9\-_.]*$/i.test(id);

/**
 * Whether the server takes an offer at all (its WebRTCUtils.validateSdpMediaPayloads): one that it does not take is dropped
 * without an answer.
 */
export function isTakenSdp(sdp: string): boolean {
  const payloads = new Map<string, string[]>();
  const mapped = new Set<string>();
  for (const line of sdp.split(/\r?\n/).map((each) => each.trim())) {
    if (line.includes('opus') && !line.includes('opus/48000/2')) return false;
    const media = /^m=(\w+)\s+\d+\s+UDP\/TLS\/RTP\/SAVPF\s+(.+)$/.exec(line);
    if (media) payloads.set(media[1] as string, (media[2] as string).trim().split(/\s+/).filter((each) => /^\d+$/.test(each)));
    const map = /^a=rtpmap:(\d+)\s+.+$/.exec(line);
    if (map) mapped.add(map[1] as string);
  }
  return ['audio', 'video'].every((media) => (payloads.get(media) ?? []).every((payload) => mapped.has(payload)));
}

export const serverMessages = {
  pong: () => ({ command: 'pong' }),
  start: (streamId: string) => ({ command: 'start', streamId, subscriberId: '' }),
  answer: (streamId: string, sdp: string) => ({ command: 'takeConfiguration', streamId, type: 'answer', sdp, linkSession: '', subscriberId: '' }),
  candidate: (streamId: string, label: number, id: string, candidate: string) => ({
    command: 'takeCandidate', streamId, label, id, candidate, linkSession: '', subscriberId: '',
  }),
  publishStarted: (streamId: string) => ({ command: 'notification', definition: 'publish_started', streamId, subscriberId: '' }),
  publishFinished: (streamId: string) => ({ command: 'notification', definition: 'publish_finished', streamId, subscriberId: '' }),
  serverWillStop: () => ({ command: 'notification', definition: 'server_will_stop' }),
  error: (definition: string, streamId?: string) => ({ command: 'error', definition, ...(streamId === undefined ? {} : { streamId }) }),
} as const;
