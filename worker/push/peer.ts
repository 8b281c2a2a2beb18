/**
 * The WebRTC peer of one publication: werift does ICE, DTLS, SRTP and the session description; RTP is ours (rtp-stream.ts).
 * Its own sender keeps 128 packets for retransmission, a third of a second, and stamps its reports when packets leave,
 * which would put sound and picture out of step by what the pacer and the encoders take.
 */
import { isIP } from 'node:net';
import {
  GenericNack,
  ReceiverEstimatedMaxBitrate,
  RtcpPayloadSpecificFeedback,
  RtcpRrPacket,
  RtcpSrPacket,
  RtcpTransportLayerFeedback,
  RTCPeerConnection,
  RTCRtpCodecParameters,
  TransportWideCC,
  useAbsSendTime,
  useSdesMid,
  useTransportWideCC,
  type RtcpPacket,
  type RtcpReceiverInfo,
  type RTCRtpTransceiver,
  type RtpHeader,
} from 'werift';
import type { Log } from '../../shared/log.ts';
import { monotonicMicros } from '../media/clock.ts';
import type { Guard } from './guard.ts';
import type { IceSetup } from './ice-servers.ts';
import type { PacketFate } from './rate.ts';
import { createRtpStream, ntpZero, type RtpStream } from './rtp-stream.ts';
import { arrivals } from './transport-feedback.ts';

export type PeerEvents = {
  candidate(candidate: { candidate: string; label: number; id: string }): void;
  /** Media can be sent. */
  connected(): void;
  /** It can't any more. */
  lost(what: string): void;
  /** RFC 4585 and 5104: a picture is missing, and a key frame would mend it. */
  keyFrameWanted(): void;
  missing(sequence: number): void;
  fates(fates: readonly PacketFate[]): void;
  /** @param roundTrip seconds; null where the report answers none of ours */
  report(kind: 'video' | 'audio', report: RtcpReceiverInfo, roundTrip: number | null): void;
  estimate(bitsPerSecond: number): void;
};

export type PeerOptions = {
  ice: IceSetup;
  guard: Guard;
  /** Of the stream, as SDP has it. */
  profileLevelId: string;
  audio: boolean;
  log: Log;
  events: PeerEvents;
};

export type Peer = {
  /** The offer; candidates follow as events. */
  offer(): Promise<string>;
  answer(sdp: string): Promise<void>;
  /** A candidate of the other side; what may not be dialled is passed over. */
  candidate(candidate: string, label: number, id: string): Promise<void>;
  video: MediaOut | null;
  audio: MediaOut | null;
  /** Sender reports, due about once a second. */
  report(): void;
  close(): Promise<void>;
};

/** One of its streams, once it is connected. */
export type MediaOut = {
  stream: RtpStream;
  /** Hands a packet to the network. */
  write(payload: Buffer, header: RtpHeader): void;
};

/** Kept for retransmission: 2048 packets are two seconds at 10 Mb/s, twice what a round trip may be. */
const VIDEO_HISTORY = 2048;
const AUDIO_HISTORY = 256;
/** Packets whose sending is remembered until their feedback comes. */
const SENT_MOST = 8192;
const VIDEO_TYPE = 96;
const RTX_TYPE = 97;
const OPUS_TYPE = 111;

const feedback = (...kinds: string[]) => kinds.map((kind) => ({ type: kind.split(' ')[0] as string, ...(kind.includes(' ') ? { parameter: kind.split(' ')[1] as string } : {}) }));

export async function createPeer({ ice, guard, profileLevelId, audio, log, events }: PeerOptions): Promise<Peer> {
  // the same objects for both, so that both get the same ids: in a bundle they have to (RFC 8843, 9.2)
  const extensions = [useSdesMid(), useAbsSendTime(), useTransportWideCC()];
  const pc = new RTCPeerConnection({
    bundlePolicy: 'max-bundle',
    iceServers: ice.servers,
    iceAdditionalHostAddresses: ice.additionalHosts,
    iceTransportPolicy: 'all',
    iceUseTcp: false,
    ...(ice.tls === null ? {} : { turnTlsOptions: ice.tls }),
    // whoever sends us a check becomes a candidate too (RFC 8445, 7.3.1.3)
    iceFilterStunResponse: (_message, [address, port]) => guard.passes(address, port),
    iceFilterCandidatePair: (pair) => guard.passes(...pair.remoteAddr),
    headerExtensions: { video: extensions, audio: extensions },
    codecs: {
      video: [
        new RTCRtpCodecParameters({
          mimeType: 'video/H264',
          clockRate: 90_000,
          payloadType: VIDEO_TYPE,
          rtcpFeedback: feedback('nack', 'nack pli', 'ccm fir', 'transport-cc', 'goog-remb'),
          parameters: `level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=${profileLevelId}`,
        }),
        new RTCRtpCodecParameters({ mimeType: 'video/rtx', clockRate: 90_000, payloadType: RTX_TYPE, parameters: `apt=${VIDEO_TYPE}` }),
      ],
      audio: [
        new RTCRtpCodecParameters({
          mimeType: 'audio/opus',
          clockRate: 48_000,
          channels: 2,
          payloadType: OPUS_TYPE,
          rtcpFeedback: feedback('transport-cc'),
          parameters: 'minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1',
        }),
      ],
    },
  });
  const videoTransceiver = pc.addTransceiver('video', { direction: 'sendonly' });
  const audioTransceiver = audio ? pc.addTransceiver('audio', { direction: 'sendonly' }) : null;
  const cname = pc.cname;
  const zero = ntpZero(monotonicMicros(), Date.now());
  let closed = false;
  let connected = false;

  const sent = new Map<number, { sentAt: number; bytes: number }>();
  let wide = 0;

  /** Where nothing is said, werift asks a public STUN server; and what goes round the filters above ends here. */
  const askNobodyElse = () => {
    for (const { connection } of pc.iceTransports) {
      if (!ice.stun) Object.assign(connection, { stunServer: undefined });
    }
  };
  const guarded = new WeakSet<object>();
  const guardSockets = () => {
    for (const { connection } of pc.iceTransports) {
      for (const { transport } of (connection as unknown as { protocols: { type: string; transport?: UdpLike }[] }).protocols) {
        if (transport?.type !== 'udp' || guarded.has(transport)) continue;
        guarded.add(transport);
        const { send } = transport;
        transport.send = async (data, to) => {
          if (to === undefined || guard.passes(to[0], to[1])) await send(data, to);
        };
      }
    }
  };

  pc.onIceCandidate.subscribe((found) => {
    guardSockets();
    if (found?.candidate === undefined || found.candidate === '') return;
    const label = found.sdpMLineIndex ?? 0;
    const text = found.candidate.startsWith('candidate:') ? found.candidate : `candidate:${found.candidate}`;
    events.candidate({ candidate: text, label, id: found.sdpMid ?? String(label) });
  });

  const outOf = (transceiver: RTCRtpTransceiver, clockRate: number, history: number): MediaOut | null => {
    const name = transceiver.kind === 'video' ? 'h264' : 'opus';
    const codec = transceiver.codecs.find((each) => each.name.toLowerCase() === name);
    if (codec === undefined || transceiver.stopped) return null;
    const rtx = transceiver.codecs.find((each) => each.name.toLowerCase() === 'rtx' && each.parameters?.includes(`apt=${codec.payloadType}`));
    const stream = createRtpStream({
      ssrc: transceiver.sender.ssrc,
      payloadType: codec.payloadType,
      clockRate,
      rtx: rtx === undefined ? null : { ssrc: transceiver.sender.rtxSsrc, payloadType: rtx.payloadType },
      cname,
      ntpZero: zero,
      history,
    });
    const idOf = (uri: string) => transceiver.headerExtensions.find((extension) => extension.uri === uri)?.id ?? null;
    const ids = { mid: idOf(useSdesMid().uri), wide: idOf(useTransportWideCC().uri), time: idOf(useAbsSendTime().uri) };
    const mid = Buffer.from(transceiver.mid ?? '');
    const { dtlsTransport } = transceiver.sender;
    return {
      stream,
      write(payload, header) {
        if (closed) return;
        const now = performance.now();
        const extensions: { id: number; payload: Buffer }[] = [];
        if (ids.mid !== null) extensions.push({ id: ids.mid, payload: mid });
        if (ids.time !== null) extensions.push({ id: ids.time, payload: absSendTime(now) });
        if (ids.wide !== null) {
          wide = (wide + 1) % 2 ** 16;
          extensions.push({ id: ids.wide, payload: Buffer.from([wide >> 8, wide & 0xff]) });
          sent.set(wide, { sentAt: now, bytes: payload.length });
          if (sent.size > SENT_MOST) sent.delete(sent.keys().next().value as number);
        }
        header.extensions = extensions.sort((a, b) => a.id - b.id);
        header.extension = extensions.length > 0;
        void dtlsTransport.sendRtp(payload, header);
      },
    };
  };

  const peer: Peer = {
    async offer() {
      const offer = await pc.createOffer();
      askNobodyElse();
      // gathering takes as long as the slowest server; what it finds comes as events
      const described = pc.setLocalDescription(offer);
      described.catch((error: unknown) => events.lost(`gathering candidates failed: ${String(error)}`));
      return withoutCandidates(offer.sdp);
    },
    async answer(sdp) {
      const { rest, candidates } = splitCandidates(sdp);
      await pc.setRemoteDescription({ type: 'answer', sdp: rest });
      for (const { candidate, label, id } of candidates) await peer.candidate(candidate, label, id);
    },
    async candidate(candidate, label, id) {
      const [, , transport = '', , address = '', port = ''] = candidate.replace(/^a=/, '').split(' ');
      // names are not looked up: mDNS ones are of this network, and others would be judged before they are resolved
      if (isIP(address) === 0 || transport.toLowerCase() !== 'udp') return;
      const denial = await guard.judge(address, Number(port));
      if (denial !== null) {
        log.warn('push candidate refused', { address, port: Number(port), denial: denial.class });
        return;
      }
      await pc.addIceCandidate({ candidate: candidate.replace(/^a=/, ''), sdpMLineIndex: label, sdpMid: id });
    },
    video: null,
    audio: null,
    report() {
      const now = monotonicMicros();
      for (const out of [peer.video, peer.audio]) {
        const transport = pc.dtlsTransports[0];
        if (out !== null && transport !== undefined && !closed) void transport.sendRtcp(out.stream.report(now)).catch(() => undefined);
      }
    },
    async close() {
      if (closed) return;
      closed = true;
      await pc.close();
    },
  };

  const heard = (packet: RtcpPacket) => {
    if (packet instanceof RtcpRrPacket || packet instanceof RtcpSrPacket) {
      const now = monotonicMicros();
      for (const report of packet.reports) {
        if (report.ssrc === peer.video?.stream.ssrc) events.report('video', report, peer.video.stream.reported(report, now));
        else if (report.ssrc === peer.audio?.stream.ssrc) events.report('audio', report, peer.audio.stream.reported(report, now));
      }
    } else if (packet instanceof RtcpTransportLayerFeedback) {
      const said = packet.feedback as GenericNack | TransportWideCC | undefined;
      if (said instanceof GenericNack) {
        if (said.mediaSourceSsrc === peer.video?.stream.ssrc) for (const sequence of said.lost) events.missing(sequence);
      } else if (said instanceof TransportWideCC) {
        const fates: PacketFate[] = [];
        for (const { sequence, receivedAt } of arrivals(said)) {
          const packetSent = sent.get(sequence);
          if (packetSent === undefined) continue;
          sent.delete(sequence);
          fates.push({ ...packetSent, receivedAt });
        }
        if (fates.length > 0) events.fates(fates);
      }
    } else if (packet instanceof RtcpPayloadSpecificFeedback) {
      const said = packet.feedback as unknown;
      if (said instanceof ReceiverEstimatedMaxBitrate) events.estimate(Number(said.bitrate));
      // PLI or FIR
      else if (said !== undefined) events.keyFrameWanted();
    }
  };

  pc.connectionStateChange.subscribe((state) => {
    if (closed) return;
    if (state === 'connected' && !connected) {
      connected = true;
      peer.video = outOf(videoTransceiver, 90_000, VIDEO_HISTORY);
      peer.audio = audioTransceiver === null ? null : outOf(audioTransceiver, 48_000, AUDIO_HISTORY);
      videoTransceiver.sender.dtlsTransport.onRtcp.subscribe((packet) => {
        if (!closed) heard(packet);
      });
      events.connected();
    } else if (state === 'failed' || state === 'closed') events.lost(`the media connection ${state === 'failed' ? 'failed' : 'was closed'}`);
  });
  return peer;
}

type UdpLike = { type: string; send: (data: Buffer, to?: readonly [string, number]) => Promise<void> };

/** 24 bits, 6 of them seconds (http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time). @param milliseconds of any clock */
function absSendTime(milliseconds: number): Buffer {
  const value = Math.floor(((milliseconds / 1000) % 64) * 2 ** 18);
  return Buffer.from([value >> 16, (value >> 8) & 0xff, value & 0xff]);
}

const withoutCandidates = (sdp: string): string => splitCandidates(sdp).rest;

/** Candidates that stand in a description, to be judged one by one as those that come after it. */
function splitCandidates(sdp: string): { rest: string; candidates: { candidate: string; label: number; id: string }[] } {
  let label = -1;
  let id = '0';
  const candidates: { candidate: string; label: number; id: string }[] = [];
  const lines = sdp.split(/\r?\n/);
  const mids = sdp.split(/^m=/m).slice(1).map((section) => /^a=mid:(\S+)/m.exec(section)?.[1]);
  const rest = lines.filter((line) => {
    if (line.startsWith('m=')) {
      label += 1;
      id = mids[label] ?? String(label);
    }
    if (line.startsWith('a=end-of-candidates')) return false;
    if (!line.startsWith('a=candidate:')) return true;
    candidates.push({ candidate: line.slice(2), label, id });
    return false;
  });
  return { rest: rest.join('\r\n'), candidates };
}
