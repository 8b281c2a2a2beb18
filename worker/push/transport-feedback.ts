/**
 * When the receiver got which packet, from transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01). werift parses it,
 * but its own list of results passes over status vectors and rounds each step of time to whole milliseconds.
 */
import { PacketStatus, RunLengthChunk, type TransportWideCC } from 'werift';

export type Arrival = {
  sequence: number;
  /** Milliseconds by the receiver's clock; null where it didn't come. */
  receivedAt: number | null;
};

/** One for each packet that the feedback is about, in their order. */
export function arrivals({ baseSequenceNumber, packetStatusCount, referenceTime, packetChunks, recvDeltas }: TransportWideCC): Arrival[] {
  const statuses: number[] = [];
  for (const chunk of packetChunks) {
    if (chunk instanceof RunLengthChunk) for (let i = 0; i < chunk.runLength && statuses.length < packetStatusCount; i += 1) statuses.push(chunk.packetStatus);
    else statuses.push(...chunk.symbolList);
  }
  let micros = referenceTime * 64_000;
  let next = 0;
  return statuses.slice(0, packetStatusCount).map((status, i) => {
    const sequence = (baseSequenceNumber + i) % 2 ** 16;
    if (status !== PacketStatus.TypeTCCPacketReceivedSmallDelta && status !== PacketStatus.TypeTCCPacketReceivedLargeDelta) return { sequence, receivedAt: null };
    micros += recvDeltas[next]?.delta ?? 0;
    next += 1;
    return { sequence, receivedAt: micros / 1000 };
  });
}
