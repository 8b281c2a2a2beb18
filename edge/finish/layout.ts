/**
 * Lays the samples of stored segments on one timeline and in one file. Pure: knows neither storage nor boxes.
 *
 * Samples stay as they are, all of them, in the order of their attempts. (Where attempts were encoded with
 * different settings, all key frames get their parameter sets before them too: each setting has a sample entry of its own,
 * as ISO 14496-12 has it, but Chromium 153 reads the first entry only and ffmpeg 5.1's parser likewise.) What is missing between two sections stays
 * missing: the last picture is held, and silence is laid where frames of it can be made. Where sections overlap, the later
 * one is shifted as a whole, by the least that lets its samples follow the earlier ones.
 *
 * Sound is one unbroken run of packets, so that players that count samples and players that read times agree. A section's
 * sound may stand off its time by half a packet (11 ms), or come late by a whole one (21 ms), as sections begin anywhere
 * and packets don't.
 */
import type { Init, InitTrack, Sample, SegmentSamples } from './segment.ts';
import { parameterSets } from './h264.ts';
import { FRAME_SAMPLES, silentFrame } from './silence.ts';

/** Samples that lie one behind the other in the file. */
export type Chunk = {
  track: 'video' | 'audio';
  /** Which of the track's sample entries they need, from 1. */
  entry: number;
  count: number;
  bytes: number;
  /** Silence that no segment has. */
  silent: boolean;
};

/**
 * What a stored segment adds to the file, in its order.
 *
 * @property sets parameter sets that are put before each of its key frames; null for none
 */
export type Laid = { name: string; init: Init; chunks: Chunk[]; sets: Uint8Array | null };

/** A track's samples, in ticks of its timescale. */
export type VideoTable = {
  timescale: number;
  entries: Uint8Array[];
  width: number;
  height: number;
  times: number[];
  sizes: number[];
  /** Numbers of the key frames, from 1. */
  keys: number[];
  duration: number;
};
export type AudioTable = {
  timescale: number;
  entries: Uint8Array[];
  sizes: number[];
  /** Runs of samples of one duration. */
  runs: { count: number; duration: number }[];
  /** Before the first sample; not 0 only where there is no silence to be laid. */
  lead: number;
  duration: number;
};

/** Microseconds. @property at where it stands in the file @property timeline where it stands on the recording's timeline */
export type LaidSection = { attempt: number; timeline: number; at: number; end: number; shift: number };

/** How long pictures and sound lie apart in the file, in microseconds. */
const CHUNK = 500_000;
/** The least that a picture is shown where the next section overlaps it, in microseconds. */
const HOLD = 1000;

export type Layout = ReturnType<typeof createLayout>;

/** @param inits headers of all sections, in their order */
export function createLayout(inits: readonly Init[]) {
  const first = { video: inits[0]!.video, audio: inits.find(({ audio }) => audio !== null)?.audio ?? null };
  const several = inits.some(({ video }) => Buffer.compare(video.entry, first.video.entry) !== 0);
  const video: VideoTable = {
    timescale: first.video.timescale,
    entries: [],
    width: first.video.width,
    height: first.video.height,
    times: [],
    sizes: [],
    keys: [],
    duration: 0,
  };
  const audio: AudioTable | null = first.audio && { timescale: first.audio.timescale, entries: [], sizes: [], runs: [], lead: 0, duration: 0 };
  if (audio && first.audio) audio.entries.push(first.audio.entry);
  const laid: Laid[] = [];
  const sections: LaidSection[] = [];
  let trim: number | null = null;
  /** Ticks that the last picture was to be shown for. */
  let held = 0;
  /** Ticks up to which there is sound. */
  let heard = 0;
  let soundEntry = 1;
  /** Ticks of sound that no segment has. */
  let silent = 0;
  /** Whether the section's sound has yet to begin. */
  let joint = true;

  const videoMicros = (ticks: number) => (ticks * 1e6) / video.timescale;
  const audioMicros = (ticks: number) => (ticks * 1e6) / (audio?.timescale ?? 1);
  const frameTicks = (track: InitTrack) => Math.round((FRAME_SAMPLES * (audio?.timescale ?? 0)) / track.timescale);
  let frame = first.audio ? frameTicks(first.audio) : 0;

  const entryOf = (entries: Uint8Array[], entry: Uint8Array): number => {
    const known = entries.findIndex((other) => Buffer.compare(other, entry) === 0);
    return known === -1 ? entries.push(entry) : known + 1;
  };
  const micros = (sample: Sample, track: InitTrack) => (sample.time * 1e6) / track.timescale;

  function begin(attempt: number, init: Init, { video: pictures, audio: sound }: SegmentSamples): LaidSection {
    const timeline = micros(pictures[0]!, init.video);
    trim ??= timeline;
    const before = sections.at(-1);
    const lastPicture = video.times.at(-1);
    const needs = [
      0,
      // what an attempt was shifted by stays, so that its own times stay true
      before?.attempt === attempt ? before.shift : 0,
      lastPicture === undefined ? 0 : videoMicros(lastPicture) + Math.min(videoMicros(held), HOLD) - (timeline - trim),
    ];
    const sounds = sound[0] && init.audio ? micros(sound[0], init.audio) : timeline;
    if (heard > 0) needs.push(audioMicros(heard - frame) - (sounds - trim));
    const shift = Math.max(...needs);
    joint = true;
    const section = { attempt, timeline, at: timeline - trim + shift, end: 0, shift };
    sections.push(section);
    return section;
  }

  /** @returns a chunk of so many frames, null where there is none to make them of */
  function silence(count: number): Chunk | null {
    if (audio === null || count <= 0) return null;
    const bytes = silentFrame(audio.entries[soundEntry - 1]!);
    if (bytes === null) return null;
    for (let i = 0; i < count; i += 1) audio.sizes.push(bytes.length);
    run(count, frame);
    silent += count * frame;
    return { track: 'audio', entry: soundEntry, count, bytes: count * bytes.length, silent: true };
  }
  function run(count: number, duration: number): void {
    const last = audio?.runs.at(-1);
    if (last?.duration === duration) last.count += count;
    else audio?.runs.push({ count, duration });
    heard += count * duration;
  }
  /** What was last heard lasts longer, or shorter where ticks are below 0; before it, sound begins so much later. */
  function stretch(ticks: number): void {
    const last = audio?.runs.at(-1);
    if (audio === null) return;
    if (last === undefined) {
      audio.lead += ticks;
      heard += ticks;
      return;
    }
    const duration = Math.max(1, last.duration + ticks);
    last.count -= 1;
    heard -= last.duration;
    if (last.count === 0) audio.runs.pop();
    run(1, duration);
  }

  return {
    /**
     * @param section where it begins another section: the attempt it is of
     * @param samples on the recording's timeline
     */
    add(name: string, init: Init, samples: SegmentSamples, section: { attempt: number } | null): void {
      const current = section === null ? sections.at(-1)! : begin(section.attempt, init, samples);
      const offset = current.shift - (trim ?? 0);
      const videoEntry = entryOf(video.entries, init.video.entry);
      const sets = several ? parameterSets(init.video.entry) : null;
      const sizes = samples.video.map(({ size, key }) => size + (key && sets ? sets.length : 0));
      const chunks: Chunk[] = [];

      const pictureTimes: number[] = [];
      for (const [i, sample] of samples.video.entries()) {
        const wanted = Math.round(((micros(sample, init.video) + offset) * video.timescale) / 1e6);
        const time = Math.max(wanted, (video.times.at(-1) ?? -1) + 1);
        video.times.push(time);
        video.sizes.push(sizes[i]!);
        if (sample.key) video.keys.push(video.times.length);
        held = Math.round((sample.duration * video.timescale) / init.video.timescale);
        pictureTimes.push(videoMicros(time));
      }
      current.end = videoMicros(video.times.at(-1)! + held);

      const soundTimes: number[] = [];
      if (audio && init.audio && samples.audio.length > 0) {
        const wanted = ((micros(samples.audio[0]!, init.audio) + offset) * audio.timescale) / 1e6;
        const gap = wanted - heard;
        // within a section only what is surely missing: elsewhere the joint decides
        if (gap >= (joint ? 0.5 : 1.5) * frame) {
          const filled = silence(Math.round(gap / frame));
          if (filled) chunks.push(filled);
          // nothing to fill with: players take it for a gap
          else stretch(Math.round(gap));
        }
        joint = false;
        soundEntry = entryOf(audio.entries, init.audio.entry);
        frame = frameTicks(init.audio);
        // frames of AAC have one length, whatever times say of them
        const fixed = silentFrame(init.audio.entry) !== null;
        let before = 0;
        for (const { duration, size } of samples.audio) {
          soundTimes.push(audioMicros(heard));
          const ticks = (at: number) => Math.round((at * audio.timescale) / init.audio!.timescale);
          run(1, fixed ? frame : ticks(before + duration) - ticks(before));
          audio.sizes.push(size);
          before += duration;
        }
      } else if (audio && init.audio === null) {
        const filled = silence(Math.floor(((current.end * audio.timescale) / 1e6 - heard) / frame));
        if (filled) chunks.push(filled);
      }
      const pictures = { sizes, times: pictureTimes, entry: videoEntry };
      const sound = { sizes: samples.audio.map(({ size }) => size), times: soundTimes, entry: soundEntry };
      laid.push({ name, init, chunks: [...chunks, ...interleave(pictures, sound)], sets });
    },

    /**
     * @param end of the recording's timeline
     * @returns times in microseconds
     */
    finish(end: number) {
      const last = sections.at(-1)!;
      const until = Math.max(Math.round(((end - (trim ?? 0) + last.shift) * video.timescale) / 1e6), video.times.at(-1)! + 1);
      video.duration = until;
      if (audio) {
        const left = Math.round((videoMicros(until) * audio.timescale) / 1e6) - heard;
        const filled = silence(Math.floor(left / frame));
        if (filled) laid.at(-1)?.chunks.push(filled);
        // the last packet goes on for some milliseconds: the file does not
        if (left < 0) stretch(left);
        audio.duration = heard;
      }
      const heardAtAll = audio !== null && audio.sizes.length > 0;
      return {
        laid,
        sections,
        video,
        audio: heardAtAll ? audio : null,
        /** What was missing at the beginning. */
        trimmed: trim ?? 0,
        duration: videoMicros(until),
        silence: audioMicros(silent),
      };
    },
  };
}

type Run = { sizes: readonly number[]; times: readonly number[]; entry: number };

function interleave(video: Run, audio: Run): Chunk[] {
  const chunks: Chunk[] = [];
  const next = { video: 0, audio: 0 };
  const take = (track: 'video' | 'audio', { sizes, times, entry }: Run, until: number) => {
    const chunk: Chunk = { track, entry, count: 0, bytes: 0, silent: false };
    for (; next[track] < times.length && times[next[track]]! < until; next[track] += 1) {
      chunk.count += 1;
      chunk.bytes += sizes[next[track]]!;
    }
    if (chunk.count > 0) chunks.push(chunk);
  };
  while (next.video < video.times.length || next.audio < audio.times.length) {
    const until = Math.min(video.times[next.video] ?? Infinity, audio.times[next.audio] ?? Infinity) + CHUNK;
    take('video', video, until);
    take('audio', audio, until);
  }
  return chunks;
}
