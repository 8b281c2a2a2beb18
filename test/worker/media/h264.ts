/** Pictures as a capture gives them: H.264 of the test page's barcode, encoded by ffmpeg. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ALL_FORMATS, BufferSource, EncodedPacketSink, Input } from 'mediabunny';
import { drawPicture } from '../../helpers/barcode.ts';

export const WIDTH = 320;
export const HEIGHT = 240;

/** @param onEnd takes what removes it. */
export function temporaryDirectory(onEnd: (remove: () => void) => void): string {
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-media-'));
  onEnd(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export type Pictures = {
  codec: string;
  /** AVCDecoderConfigurationRecord. */
  description: Uint8Array;
  /** One for each counter from 0 on. */
  packets: { key: boolean; data: Uint8Array }[];
};

/**
 * @param frames how many; the picture of number n carries the counter n.
 * @param gop pictures from one key frame to the next.
 * @param preset of x264; another one makes another description.
 */
export async function makePictures({ frames = 120, gop = 30, preset = 'ultrafast' } = {}): Promise<Pictures> {
  const directory = mkdtempSync(join(tmpdir(), 'tabreel-media-'));
  try {
    const file = join(directory, 'pictures.mp4');
    const child = spawn('ffmpeg', [
      '-v', 'error', '-f', 'rawvideo', '-pix_fmt', 'gray', '-s', `${WIDTH}x${HEIGHT}`, '-r', '30', '-i', 'pipe:0',
      '-c:v', 'libx264', '-preset', preset, '-pix_fmt', 'yuv420p', '-threads', '1',
      '-bf', '0', '-g', String(gop), '-keyint_min', String(gop), '-sc_threshold', '0', file,
    ], { stdio: ['pipe', 'ignore', 'inherit'] }); // prettier-ignore
    const closed = once(child, 'close');
    for (let counter = 0; counter < frames; counter += 1) {
      const { data } = drawPicture(WIDTH, HEIGHT, { counter, flash: false });
      if (!child.stdin.write(data)) await once(child.stdin, 'drain');
    }
    child.stdin.end();
    const [code] = (await closed) as [number];
    if (code !== 0) throw new Error(`ffmpeg ended with ${code}`);

    using input = new Input({ formats: ALL_FORMATS, source: new BufferSource(await readFile(file)) });
    const track = await input.getPrimaryVideoTrack();
    const config = await track?.getDecoderConfig();
    if (!track || !config?.description) throw new Error('ffmpeg wrote no picture');
    const packets: Pictures['packets'] = [];
    for await (const { type, data } of new EncodedPacketSink(track).packets()) packets.push({ key: type === 'key', data });
    const { description } = config;
    return { codec: config.codec, description: ArrayBuffer.isView(description) ? new Uint8Array(description.buffer, description.byteOffset, description.byteLength) : new Uint8Array(description), packets };
  } finally {
    rmSync(directory, { recursive: true });
  }
}
