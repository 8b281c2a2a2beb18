/** Where a benchmark ran, and with which versions. */
import { execFile } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';
import { promisify } from 'node:util';

const run = promisify(execFile);

const firstLine = async (command: string, args: readonly string[]): Promise<string> => {
  const { stdout, stderr } = await run(command, args).catch(() => ({ stdout: '', stderr: '' }));
  return (stdout || stderr).split('\n')[0]?.trim() ?? '';
};
const version = (line: string): string => /\d+\.\d+[\w.+-]*/.exec(line)?.[0] ?? 'unknown';

export async function describeMachine(chromium: string, shell: string): Promise<string> {
  const [ffmpeg, pulseaudio, xvfb, puppeteer] = await Promise.all([
    firstLine('ffmpeg', ['-version']),
    firstLine('pulseaudio', ['--version']),
    firstLine('dpkg-query', ['-W', '-f', '${Version}', 'xvfb']),
    import('puppeteer-core/package.json', { with: { type: 'json' } }).then(
      (module) => (module as { default: { version: string } }).default.version,
      () => 'unknown',
    ),
  ]);
  const processors = cpus();
  return [
    `${processors.length} x ${processors[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, no GPU, Linux ${release()}`,
    `Chromium ${chromium}`,
    `headless shell ${shell} (@sparticuz/chromium)`,
    `Node ${process.version}`,
    `puppeteer-core ${puppeteer}`,
    `ffmpeg ${version(ffmpeg)}`,
    `Xvfb ${version(xvfb)}`,
    `PulseAudio ${version(pulseaudio)}`,
  ].join('; ');
}
