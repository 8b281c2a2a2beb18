/** What a capture would give: H.264 with our barcode and flashes, Opus with their beeps, in their own time; made once by ffmpeg. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ALL_FORMATS, EncodedPacketSink, FilePathSource, Input } from 'mediabunny';
import { monotonicMicros } from '../../worker/media/clock.ts';
import { BEEP_HZ, BEEP_MS, drawPicture, FLASH_MS } from '../helpers/barcode.ts';

export const RATE = 30;
const SECONDS = 6;
/** Pictures from one key frame to the next. */
const KEY_EVERY = 15;
const [WIDTH, HEIGHT] = [640, 360];

type Video = { timestamp: number; key: boolean; data: Uint8Array; description: Uint8Array | null };
type Audio = { timestamp: number; data: Uint8Array };

/** Times in microseconds from the beginning. */
export type Source = { codec: string; bitrate: number; video: Video[]; audio: Audio[]; dispose(): void };

const run = promisify(execFile);
const ffmpeg = (...args: string[]) => run('ffmpeg', ['-v', 'error', ...args]);

export async function makeSource(bitrate = 1_500_000): Promise<Source> {
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-push-'));
  const [picture, sound, file, raw] = ['video.mp4', 'audio.mp4', 'both.mp4', 'pictures.gray'].map((name) => join(directory, name)) as [string, string, string, string];
  const pictures: Uint8Array[] = [];
  for (let counter = 0; counter < RATE * SECONDS; counter += 1) {
    const { data } = drawPicture(WIDTH, HEIGHT, { counter, flash: ((counter * 1000) / RATE) % 1000 < FLASH_MS });
    // something to encode
    for (let i = Math.floor(HEIGHT * 0.7) * WIDTH; i < data.length; i += 1) data[i] = 100 + ((Math.imul(i + counter * 7919, 2654435761) >>> 24) & 63);
    pictures.push(data);
  }
  await writeFile(raw, pictures);
  await ffmpeg(
    '-f', 'rawvideo', '-pix_fmt', 'gray', '-s', `${WIDTH}x${HEIGHT}`, '-r', String(RATE), '-i', raw,
    '-c:v', 'libx264', '-profile:v', 'baseline', '-preset', 'ultrafast', '-tune', 'zerolatency', '-pix_fmt', 'yuv420p',
    '-b:v', String(bitrate), '-maxrate', String(bitrate), '-bufsize', String(bitrate / 2), '-g', String(KEY_EVERY), '-bf', '0', picture,
  );
  const beeps = `if(lt(mod(t,1),${BEEP_MS / 1000}),0.5*sin(2*PI*${BEEP_HZ}*t),0)`;
  await ffmpeg('-f', 'lavfi', '-i', `aevalsrc='${beeps}|${beeps}':s=48000:d=${SECONDS}`, '-c:a', 'libopus', '-b:a', '96k', sound);
  await ffmpeg('-i', picture, '-i', sound, '-c', 'copy', file);

  using input = new Input({ formats: ALL_FORMATS, source: new FilePathSource(file) });
  const [videoTrack, audioTrack] = [await input.getPrimaryVideoTrack(), await input.getPrimaryAudioTrack()];
  if (videoTrack === null || audioTrack === null) throw new Error('ffmpeg made no such file');
  const config = await videoTrack.getDecoderConfig();
  const description = new Uint8Array(config?.description as ArrayBuffer);
  const source: Source = { codec: config?.codec ?? '', bitrate, video: [], audio: [], dispose: () => rmSync(directory, { recursive: true, force: true }) };
  for await (const { timestamp, type, data } of new EncodedPacketSink(videoTrack).packets()) {
    source.video.push({ timestamp: timestamp * 1e6, key: type === 'key', data, description: type === 'key' ? description : null });
  }
  for await (const { timestamp, data } of new EncodedPacketSink(audioTrack).packets()) source.audio.push({ timestamp: timestamp * 1e6, data });
  return source;
}

export type Play = {
  /** Key frames come at once instead of in their turn: what lies between is left out. */
  skipToKeyFrame(): void;
  /** Pictures that were given. */
  given(): number;
  stop(): void;
};

/** Gives it over and over again, as it would come from a page: each picture when it is made. */
export function play(source: Source, to: { video(packet: Video): void; audio(packet: Audio): void }): Play {
  const begin = monotonicMicros();
  const every = 1e6 / RATE;
  const length = SECONDS * 1e6;
  let made = 0;
  let at = 0;
  let sounds = 0;
  const tick = () => {
    const now = monotonicMicros() - begin;
    while (made * every <= now) {
      const picture = source.video[at % source.video.length] as Video;
      to.video({ ...picture, timestamp: begin + made * every });
      made += 1;
      at += 1;
    }
    for (;;) {
      const sound = source.audio[sounds % source.audio.length] as Audio;
      const due = sound.timestamp + Math.floor(sounds / source.audio.length) * length;
      if (due > now) break;
      to.audio({ data: sound.data, timestamp: begin + due });
      sounds += 1;
    }
  };
  const timer = setInterval(tick, 5);
  return {
    skipToKeyFrame() {
      while (source.video[at % source.video.length]?.key !== true) at += 1;
    },
    given: () => made,
    stop: () => clearInterval(timer),
  };
}
