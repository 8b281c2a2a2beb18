/**
 * Packets to parts: cuts the stream at key frames, lays sound beside the picture, and hands over CMAF segments in order. What it
 * takes is stamped in microseconds of the monotonic clock; what it gives lies on the recording's timeline. One muxer makes one
 * section, which nothing interrupts and which begins with a header of its own (sections.ts).
 */
import { asTabreelError } from '../../shared/errors.ts';
import type { AudioChunk, VideoPacket } from '../capture/capture.ts';
import type { SinkPart } from '../sink/sink.ts';
import { createAacEncoder, LOOKAHEAD_SAMPLES, PACKET_SAMPLES, type AacEncoder, type AacPacket } from './aac-encoder.ts';
import { createAudioTrack, SAMPLE_RATE, type AudioTrack } from './audio-track.ts';
import { monotonicMicros } from './clock.ts';
import { muxSegment } from './segment.ts';

export type MuxerOptions = {
  width: number;
  height: number;
  codec: string;
  /** Bits per second; null for a recording without sound. */
  audioBitrate: number | null;
  /** Microseconds by which this engine's sound comes late. */
  soundDelay: number;
  /** Where the section's first picture lies on the recording's timeline, in microseconds; 0 where it isn't said. */
  base?(first: number): number;
  /** What is to be delivered before this section. */
  after?: Promise<void>;
  /** Parts in order. May throw: that ends the muxer. */
  deliver(part: SinkPart): void;
  failed(error: Error): void;
};

export type Muxer = {
  video(packet: VideoPacket): void;
  audio(chunk: AudioChunk): void;
  audioReset(): void;
  /** Monotonic microseconds of the first picture; null before it. */
  start(): number | null;
  /** Where the section begins on the recording's timeline, in microseconds; null before it does. */
  base(): number | null;
  /** The first moment from this one on at which a packet of sound ends: what is cut there has its sound to the sample. */
  cutAt(micros: number): number;
  /** Seconds of sound drift that were corrected. */
  drift(): number;
  /**
   * Drops pictures and sound from this monotonic time on. Call it before the capture is stopped: a last picture that is a key frame
   * would end the segment before it behind the recording's end.
   */
  endAt(end: number): void;
  /**
   * Ends the section at a monotonic time. Resolves when the last part was delivered.
   * @returns its duration in microseconds; 0 where there was no picture.
   */
  finish(end: number): Promise<number>;
};

/** The encoder needs this much sound beyond a segment's end to give up the last packet before it, in microseconds. */
const LOOKAHEAD = (LOOKAHEAD_SAMPLES * 1e6) / SAMPLE_RATE;
/** How long sound is waited for while it flows, and where none flowed lately, in microseconds. */
const SOUND_PATIENCE = 600_000;
const SILENT_PATIENCE = 150_000;
/** How long an encoder that has the sound may take for it: a segment without it would be heard as a gap. */
const ENCODER_PATIENCE = 15_000_000;

/** Chunks of sound that are kept until the first picture comes: its encoder takes longer than sound does. */
const EARLY_CHUNKS = 20;

/** The time of a sample nearest to one, in microseconds, so that sections join to the sample. */
const onSample = (micros: number): number => fromSamples(toSamples(micros));
const toSamples = (micros: number): number => Math.round((micros * SAMPLE_RATE) / 1e6);
const fromSamples = (samples: number): number => Math.round((samples * 1e6) / SAMPLE_RATE);

type Closed = { packets: VideoPacket[]; description: Uint8Array; end: number };

export async function createMuxer(options: MuxerOptions): Promise<Muxer> {
  let start: number | null = null;
  let base = 0;
  let description: Uint8Array | null = null;
  let open: VideoPacket[] = [];
  /** What the open pictures were encoded with: another encoder may have begun already. */
  let openDescription: Uint8Array | null = null;
  let early: AudioChunk[] = [];
  let limit = Infinity;
  /** Whether pictures hang on a key frame that was dropped. */
  let orphaned = false;
  const closed: Closed[] = [];
  let aacPackets: AacPacket[] = [];
  let lastChunk = -Infinity;
  let track: AudioTrack | null = null;
  let sentInit = '';
  /** Sample from which on sound is wanted: before the first one only priming lies. */
  let soundFrom = 0;
  let wake: () => void = () => undefined;
  let finishing = false;
  let encoderDone = false;

  const fail = (error: unknown) => options.failed(asTabreelError(error, 'encoder_failed'));
  const aac: AacEncoder | null =
    options.audioBitrate === null
      ? null
      : await createAacEncoder(
          options.audioBitrate,
          (packet) => {
            aacPackets.push(packet);
            wake();
          },
          fail,
        );

  /** What of a chunk lies before a monotonic time. */
  const before = (chunk: AudioChunk, micros: number): AudioChunk | null => {
    const frames = Math.min(chunk.frames, Math.round(((micros - chunk.timestamp) * chunk.rate) / 1e6));
    if (frames === chunk.frames) return chunk;
    return frames <= 0 ? null : { ...chunk, frames, samples: chunk.samples?.subarray(0, frames * 2) ?? null };
  };

  const timer = (micros: number) => new Promise<void>((resolve) => setTimeout(resolve, Math.max(1, micros / 1000)));
  const soundUntil = () => {
    const last = aacPackets.at(-1);
    return last === undefined || start === null ? -Infinity : start + ((last.position + PACKET_SAMPLES) * 1e6) / SAMPLE_RATE;
  };

  /** Waits until there is sound up to a segment's end, or makes it silence. */
  async function soundFor(end: number): Promise<void> {
    if (track === null) return;
    while (!finishing && track.until() < end + LOOKAHEAD) {
      const now = monotonicMicros();
      const flows = now - lastChunk < 1_000_000;
      const deadline = end + (flows ? SOUND_PATIENCE : SILENT_PATIENCE);
      if (now >= deadline) {
        track.padTo(end + LOOKAHEAD);
        break;
      }
      await Promise.race([timer(Math.min(deadline - now, 100_000)), woken()]);
    }
    // the encoder works beside us: its packets come a little later, its first one much later where the machine is busy
    const patience = monotonicMicros() + ENCODER_PATIENCE;
    while (soundUntil() < end && !encoderDone && monotonicMicros() < patience) await Promise.race([timer(50_000), woken()]);
  }
  const woken = () =>
    new Promise<void>((resolve) => {
      wake = resolve;
    });

  async function deliver({ packets, description, end }: Closed): Promise<void> {
    const [first] = packets;
    if (first === undefined || start === null) return;
    await soundFor(end);
    await options.after;
    const zero = start - base;
    const cut = aacPackets.findIndex(({ position }) => position >= toSamples(end - (start as number)));
    const sound = aacPackets.splice(0, cut === -1 ? aacPackets.length : cut).filter(({ position }) => position >= soundFrom);
    const aacDescription = aac?.description() ?? null;
    // a header without sound went out: whoever joins the segments fills with silence up to here
    if (aacDescription === null) soundFrom = toSamples(end - start);
    const { init, segment } = await muxSegment(
      {
        codec: options.codec,
        width: options.width,
        height: options.height,
        description,
        packets: packets.map((packet, i) => ({
          timestamp: packet.timestamp - zero,
          duration: (packets[i + 1]?.timestamp ?? end) - packet.timestamp,
          key: packet.key,
          data: packet.data,
        })),
      },
      aacDescription === null
        ? null
        : { description: aacDescription, packets: sound.map(({ position, data }) => ({ position: position + toSamples(base), data })) },
    );
    // the header's bytes carry the time of day, so what it describes is compared
    const described = Buffer.concat([description, aacDescription ?? new Uint8Array()]).toString('base64');
    if (sentInit !== described) {
      sentInit = described;
      options.deliver({ header: { type: 'init' }, payload: init });
    }
    options.deliver({
      header: { type: 'segment', start: first.timestamp - zero, duration: end - first.timestamp, frames: packets.length },
      payload: segment,
    });
  }

  let delivering: Promise<void> = Promise.resolve();
  const close = (end: number) => {
    const packets = open;
    open = [];
    if (packets.length === 0 || openDescription === null) return;
    closed.push({ packets, description: openDescription, end });
    delivering = delivering
      .then(async () => {
        const next = closed.shift();
        if (next !== undefined) await deliver(next);
      })
      .catch(fail);
  };

  return {
    video(packet) {
      if (finishing || packet.timestamp >= limit) return;
      if (packet.description !== null) description = packet.description;
      if (start === null) {
        if (!packet.key || description === null) return;
        start = packet.timestamp;
        base = onSample(options.base?.(start) ?? 0);
        if (aac !== null) track = createAudioTrack(start, options.soundDelay, (pcm) => aac.encode(pcm));
        for (const chunk of early.splice(0)) track?.add(chunk);
      }
      // two captures of one page may overlap for a moment around a navigation: the newer one goes on from its key frame
      if (packet.key) {
        orphaned = packet.timestamp <= (open[0]?.timestamp ?? -Infinity);
        if (orphaned) return;
        open = open.filter(({ timestamp }) => timestamp < packet.timestamp);
        close(packet.timestamp);
        openDescription = description;
      } else if (orphaned || open.length === 0 || packet.timestamp <= (open.at(-1) as VideoPacket).timestamp) return;
      open.push(packet);
    },
    audio(chunk) {
      lastChunk = monotonicMicros();
      if (finishing) return;
      if (track === null) early = [...early.slice(1 - EARLY_CHUNKS), chunk];
      else {
        const wanted = before(chunk, limit + options.soundDelay);
        if (wanted !== null) track.add(wanted);
      }
      wake();
    },
    audioReset() {
      early = [];
      track?.reset();
    },
    start: () => start,
    base: () => (start === null ? null : base),
    cutAt(micros) {
      if (start === null) return micros;
      const packets = Math.max(0, Math.ceil(((micros - start) * SAMPLE_RATE) / 1e6 / PACKET_SAMPLES));
      return start + fromSamples(toSamples(base) + packets * PACKET_SAMPLES) - base;
    },
    drift: () => track?.drift() ?? 0,
    endAt(end) {
      limit = end;
    },
    async finish(end) {
      open = open.filter(({ timestamp }) => timestamp < end);
      close(end);
      track?.padTo(end);
      finishing = true;
      wake();
      await aac?.finish();
      encoderDone = true;
      wake();
      await delivering;
      return start === null ? 0 : end - start;
    },
  };
}
