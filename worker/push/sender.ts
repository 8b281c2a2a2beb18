/**
 * Encoded pictures and sound to RTP, as fast as the way bears: paced, sent again where they were lost, and where they can't leave
 * in time left out up to the next key frame. It never waits and holds no more than a second of media.
 */
import type { VideoPacket } from '../capture/capture.ts';
import { packetize, parameterSets, type ParameterSets } from './h264.ts';
import { createPacer } from './pacer.ts';
import type { MediaOut, Peer } from './peer.ts';
import { createRateControl, type PacketFate } from './rate.ts';

export type SenderOptions = {
  /** Bits per second of the picture: as the recording has it. */
  bitrate: number;
  onBitrate(bitsPerSecond: number): void;
  onKeyFrameWanted(): void;
};

export type SenderCounts = {
  /** Bits per second that left in the last second, all streams and retransmissions together; and what the way is thought to bear. */
  bitrate: number;
  targetBitrate: number;
  framesSent: number;
  /** Left out: not in time, or hanging on one that was; without those before a session's first key frame. */
  framesDropped: number;
  packetsSent: number;
  packetsResent: number;
  /** As the receiver reports it; what was sent again and came counts as lost no more. */
  packetsLost: number;
  /** Seconds; null before it is known. */
  roundTrip: number | null;
  /** That the receiver made. */
  keyFrameRequests: number;
};

export type Sender = {
  video(packet: Omit<VideoPacket, 'description'> & Partial<Pick<VideoPacket, 'description'>>): void;
  audio(packet: { data: Uint8Array; timestamp: number }): void;
  /** Sends over this peer from now on, beginning with a key frame. */
  attach(peer: Peer): void;
  detach(): void;
  missing(sequence: number): void;
  keyFrameRequested(): void;
  fates(fates: readonly PacketFate[]): void;
  loss(share: number): void;
  estimate(bitsPerSecond: number): void;
  roundTrip(seconds: number): void;
  /** As SDP has it, once a stream was seen. */
  profileLevelId(): string | null;
  counts(): SenderCounts;
  close(): void;
};

/** Bytes of a payload: with the headers of RTP, its extensions, SRTP and UDP below the 1280 of IPv6's smallest link. */
const PAYLOAD = 1150;
/** Times the target: a key frame is several times as large as other pictures. */
const PACE = 2.5;
const LEAST_PACE = 500_000;
/** Milliseconds that a picture may wait for its turn. */
const PATIENCE = 1000;
/** Milliseconds between two requests for a key frame. */
const KEY_FRAME_EVERY = 500;
const LEAST_BITRATE = 150_000;

export function createSender({ bitrate, onBitrate, onKeyFrameWanted }: SenderOptions): Sender {
  const rate = createRateControl({ most: bitrate, least: Math.min(LEAST_BITRATE, bitrate), changed: onBitrate });
  const pacer = createPacer(() => Math.max(LEAST_PACE, rate.target() * PACE));
  let sets: ParameterSets | null = null;
  let video: MediaOut | null = null;
  let audio: MediaOut | null = null;
  /** Nothing but a key frame can be shown by the receiver. */
  let broken = true;
  /** This peer has been given a picture. */
  let begun = false;
  /** A key frame was asked for, and none came since. */
  let wanted = false;
  let askedAt = -Infinity;
  let trip: number | null = null;
  /** When a packet was last sent again. */
  const resentAt = new Map<number, number>();
  const total = { framesSent: 0, framesDropped: 0, keyFrameRequests: 0, packetsSent: 0, packetsResent: 0, packetsLost: 0 };
  const sentLately: { at: number; bytes: number }[] = [];

  const sentNow = (bytes: number) => {
    const now = performance.now();
    sentLately.push({ at: now, bytes });
    while (now - (sentLately[0]?.at ?? now) > 1000) sentLately.shift();
  };
  const sending = () => {
    const now = performance.now();
    while (sentLately[0] !== undefined && now - sentLately[0].at > 1000) sentLately.shift();
    return sentLately.reduce((sum, { bytes }) => sum + bytes * 8, 0);
  };
  const askForKeyFrame = () => {
    const now = performance.now();
    wanted = true;
    if (now - askedAt < KEY_FRAME_EVERY) return;
    askedAt = now;
    onKeyFrameWanted();
  };
  const leaveOut = () => {
    if (begun) total.framesDropped += 1;
    broken = true;
    askForKeyFrame();
  };
  const addUp = (out: MediaOut | null) => {
    const counts = out?.stream.counts();
    if (counts === undefined) return { packetsSent: 0, packetsResent: 0, packetsLost: 0 };
    return { packetsSent: counts.packets, packetsResent: counts.resent, packetsLost: counts.lost };
  };
  const detach = () => {
    for (const out of [video, audio]) {
      const { packetsSent, packetsResent, packetsLost } = addUp(out);
      total.packetsSent += packetsSent;
      total.packetsResent += packetsResent;
      total.packetsLost += packetsLost;
    }
    video = audio = null;
    broken = true;
    begun = false;
    total.framesDropped += pacer.dropPictures();
    resentAt.clear();
  };

  return {
    video({ data, key, timestamp, description = null }) {
      if (description !== null) sets = parameterSets(description);
      const out = video;
      if (out === null) return;
      if (pacer.waited() > PATIENCE) {
        total.framesDropped += pacer.dropPictures();
        broken = true;
        rate.behind(performance.now());
      }
      if (broken && (!key || sets === null)) return leaveOut();
      broken = false;
      begun = true;
      if (key) wanted = false;
      else if (wanted) askForKeyFrame();
      const payloads = packetize(data, key ? sets : null, PAYLOAD);
      pacer.picture(
        payloads.map((payload, i) => ({
          bytes: payload.length,
          send() {
            if (out !== video) return false;
            const last = i === payloads.length - 1;
            out.stream.send(payload, timestamp, last, out.write);
            sentNow(payload.length);
            if (last) total.framesSent += 1;
            return true;
          },
        })),
      );
    },
    audio({ data, timestamp }) {
      const out = audio;
      if (out === null) return;
      pacer.sound({
        bytes: data.length,
        send() {
          out.stream.send(Buffer.from(data), timestamp, false, out.write);
          sentNow(data.length);
        },
      });
    },
    attach(peer) {
      detach();
      video = peer.video;
      audio = peer.audio;
      askForKeyFrame();
    },
    detach,
    missing(sequence) {
      const out = video;
      const now = performance.now();
      const bytes = out?.stream.kept(sequence) ?? 0;
      if (out === null || bytes === 0) return;
      // the same request comes again until the packet has had time to arrive
      if (now - (resentAt.get(sequence) ?? -Infinity) < Math.max(20, (trip ?? 0.1) * 1000)) return;
      resentAt.delete(sequence);
      resentAt.set(sequence, now);
      if (resentAt.size > 1024) resentAt.delete(resentAt.keys().next().value as number);
      pacer.again({
        bytes,
        send() {
          if (out !== video) return false;
          sentNow(bytes);
          return out.stream.resend(sequence, out.write);
        },
      });
    },
    keyFrameRequested() {
      total.keyFrameRequests += 1;
      askForKeyFrame();
    },
    fates: (fates) => rate.fates(fates, performance.now()),
    loss: (share) => rate.loss(share, performance.now()),
    estimate: (bitsPerSecond) => rate.estimate(bitsPerSecond, sending(), performance.now()),
    roundTrip(seconds) {
      trip = trip === null ? seconds : trip * 0.8 + seconds * 0.2;
      rate.roundTrip(trip);
    },
    profileLevelId: () => sets?.profileLevelId ?? null,
    counts() {
      const [pictures, sound] = [addUp(video), addUp(audio)];
      return {
        bitrate: sending(),
        targetBitrate: Math.round(rate.target()),
        framesSent: total.framesSent,
        framesDropped: total.framesDropped,
        packetsSent: total.packetsSent + pictures.packetsSent + sound.packetsSent,
        packetsResent: total.packetsResent + pictures.packetsResent,
        packetsLost: total.packetsLost + pictures.packetsLost + sound.packetsLost,
        roundTrip: trip,
        keyFrameRequests: total.keyFrameRequests,
      };
    },
    close() {
      detach();
      pacer.close();
    },
  };
}
