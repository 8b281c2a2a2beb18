/** Whether a player gets through a file, from end to end and from anywhere within. */
import { spawn } from 'node:child_process';
import { readBytes } from './ffmpeg.ts';

/** @returns what ffmpeg complains of; empty where it decodes all of the file, and shows a picture wherever it is sent */
export async function complaints(file: string, duration: number, seeks = 10): Promise<string[]> {
  const found = await decode(['-i', file, '-fps_mode', 'passthrough', '-enc_time_base', '-1', '-f', 'null', '-'], 'whole');
  for (let i = 0; i < seeks; i += 1) {
    // the last picture is held to the end of the file, and none begins behind it
    const at = ((duration - 0.1) * i) / seeks;
    found.push(...(await decode(['-noaccurate_seek', '-ss', at.toFixed(3), '-i', file, '-frames:v', '1', '-f', 'null', '-'], `at ${at.toFixed(1)} s`)));
  }
  return found;
}

async function decode(args: readonly string[], what: string): Promise<string[]> {
  const child = spawn('ffmpeg', ['-hide_banner', '-nostdin', '-v', 'error', '-xerror', ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const said = (await readBytes(child.stderr)).toString('utf8').trim();
  const code = await ended;
  return code === 0 && said === '' ? [] : [`${what}: ${said || `ffmpeg ended with ${code}`}`];
}
