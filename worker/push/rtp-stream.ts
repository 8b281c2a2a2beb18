/**
 * One outgoing RTP stream: its numbers and times, sender reports, and what is kept to be sent again (RFC 3550, 4585, 4588).
 * All streams of a push take their RTP timestamps and their reports from the same two clocks, so that sound and picture
 * stay in step at the far end however late each packet leaves.
 */
import { randomInt } from 'node:crypto';
import { RtcpReceiverInfo, RtcpSenderInfo, RtcpSourceDescriptionPacket, RtcpSrPacket, RtpHeader, SourceDescriptionChunk, SourceDescriptionItem } from 'werift';

export type RtpStreamOptions = {
  ssrc: number;
  payloadType: number;
  /** Ticks a second. */
  clockRate: number;
  /** For retransmissions in a stream of their own; null where lost packets are sent again as they were. */
  rtx: { ssrc: number; payloadType: number } | null;
  cname: string;
  /** Monotonic microseconds at midnight of 1 January 1900 by the wall clock, as it was when the push began. */
  ntpZero: number;
  /** Packets that are kept; a power of two. */
  history: number;
};

/** What leaves: header and payload. */
export type RtpWrite = (payload: Buffer, header: RtpHeader) => void;

export type StreamCounts = { packets: number; octets: number; resent: number; lost: number };

export type RtpStream = {
  ssrc: number;
  /** Gives the packet its number, and keeps it. @param micros monotonic microseconds of what it shows */
  send(payload: Buffer, micros: number, marker: boolean, write: RtpWrite): void;
  /** The packet with this number once more; false where it is kept no longer. */
  resend(sequence: number, write: RtpWrite): boolean;
  /** Bytes of a packet that is kept; 0 where there is none. */
  kept(sequence: number): number;
  /** A compound of sender report and name. @param now monotonic microseconds */
  report(now: number): [RtcpSrPacket, RtcpSourceDescriptionPacket];
  /** @returns the round trip in seconds; null where the report answers none of ours */
  reported(info: RtcpReceiverInfo, now: number): number | null;
  counts(): StreamCounts;
};

type Kept = { sequence: number; timestamp: number; marker: boolean; payload: Buffer };

/** Sender reports that an answer may come for. */
const REPORTS = 16;

export function createRtpStream({ ssrc, payloadType, clockRate, rtx, cname, ntpZero, history }: RtpStreamOptions): RtpStream {
  let sequence = randomInt(0x8000);
  let rtxSequence = randomInt(0x8000);
  const timestampBase = randomInt(2 ** 32 - 1);
  const ring: (Kept | undefined)[] = Array.from({ length: history });
  const reports = new Map<number, number>();
  const counts: StreamCounts = { packets: 0, octets: 0, resent: 0, lost: 0 };

  const timestampOf = (micros: number): number => (timestampBase + Math.round((micros * clockRate) / 1e6)) % 2 ** 32;
  const find = (number: number): Kept | null => {
    const found = ring[number % history];
    return found?.sequence === number ? found : null;
  };

  return {
    ssrc,
    send(payload, micros, marker, write) {
      const kept: Kept = { sequence, timestamp: timestampOf(micros), marker, payload };
      ring[sequence % history] = kept;
      sequence = (sequence + 1) % 2 ** 16;
      counts.packets += 1;
      counts.octets += payload.length;
      write(payload, new RtpHeader({ ssrc, payloadType, sequenceNumber: kept.sequence, timestamp: kept.timestamp, marker }));
    },
    resend(number, write) {
      const kept = find(number);
      if (kept === null) return false;
      counts.resent += 1;
      const { timestamp, marker, payload } = kept;
      if (rtx === null) {
        write(payload, new RtpHeader({ ssrc, payloadType, sequenceNumber: number, timestamp, marker }));
        return true;
      }
      const original = Buffer.concat([Uint8Array.of(number >> 8, number & 0xff), payload]);
      write(original, new RtpHeader({ ssrc: rtx.ssrc, payloadType: rtx.payloadType, sequenceNumber: rtxSequence, timestamp, marker }));
      rtxSequence = (rtxSequence + 1) % 2 ** 16;
      return true;
    },
    kept: (number) => find(number)?.payload.length ?? 0,
    report(now) {
      const ntpTimestamp = ntpOf(now - ntpZero);
      const compact = Number((ntpTimestamp >> 16n) & 0xffffffffn);
      reports.set(compact, now);
      if (reports.size > REPORTS) reports.delete(reports.keys().next().value as number);
      const { packets, octets } = counts;
      const senderInfo = new RtcpSenderInfo({ ntpTimestamp, rtpTimestamp: timestampOf(now), packetCount: packets % 2 ** 32, octetCount: octets % 2 ** 32 });
      return [
        new RtcpSrPacket({ ssrc, senderInfo }),
        new RtcpSourceDescriptionPacket({ chunks: [new SourceDescriptionChunk({ source: ssrc, items: [new SourceDescriptionItem({ type: 1, text: cname })] })] }),
      ];
    },
    reported(info, now) {
      counts.lost = Math.max(0, info.packetsLost);
      const sent = reports.get(info.lsr);
      return sent === undefined || info.lsr === 0 ? null : Math.max(0, (now - sent) / 1e6 - info.dlsr / 65_536);
    },
    counts: () => ({ ...counts }),
  };
}

/** NTP's format: seconds in the upper 32 bits, and their fraction below. @param micros since 1900 */
function ntpOf(micros: number): bigint {
  const seconds = Math.floor(micros / 1e6);
  const fraction = Math.floor(((micros - seconds * 1e6) / 1e6) * 2 ** 32);
  return (BigInt(seconds) << 32n) | BigInt(fraction);
}

/** @param now monotonic microseconds @param wall milliseconds since 1970 at the same moment */
export const ntpZero = (now: number, wall: number): number => now - (wall - Date.UTC(1900, 0, 1)) * 1000;
