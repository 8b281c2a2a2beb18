/**
 * Jibri's way: a virtual display and a virtual sound card, Chromium in a window, and ffmpeg that grabs both. The options are
 * those of Jibri's reference.conf, for recording (ultrafast) and for streaming (veryfast, zerolatency), but that the bit rate
 * is given, as for every other way, instead of a constant quality. Jibri's own Java process and the Chromedriver are left out.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { browserFlags } from '../../../worker/browser/flags.ts';
import type { FoundBrowser } from '../../../worker/browser/find.ts';
import { startProgram } from '../processes.ts';
import { AUDIO_BITRATE, picture, VIDEO_BITRATE, type Way } from '../way.ts';

/** The worker's flags without what is headless, remote controlled or proxied. */
export const ownFlags = (profileDirectory: string): string[] =>
  browserFlags({
    ...picture,
    kind: 'chrome',
    sandbox: process.getuid?.() !== 0,
  devShm: true,
    proxyPort: 0,
    profileDirectory,
    captureTitle: '',
    paced: false,
    webrtc: 'direct',
  }).filter((flag) => !/^(--(headless|remote-debugging|proxy-|host-resolver|auto-select)|about:)/.test(flag));

const size = `${picture.width}x${picture.height}`;
const presets = {
  ultrafast: ['-preset', 'ultrafast', '-profile:v', 'main', '-level', '3.1'],
  veryfast: ['-preset', 'veryfast', '-tune', 'zerolatency'],
};

const ffmpegArgs = (preset: keyof typeof presets, display: string, file: string): string[] => [
  '-y', '-v', 'info', '-f', 'x11grab', '-draw_mouse', '0', '-framerate', String(picture.frameRate), '-video_size', size,
  '-thread_queue_size', '4096', '-i', display,
  '-f', 'pulse', '-thread_queue_size', '4096', '-i', 'bench.monitor',
  '-c:a', 'aac', '-ar', '48000', '-b:a', String(AUDIO_BITRATE), '-af', 'aresample=async=1',
  '-c:v', 'libx264', ...presets[preset], '-pix_fmt', 'yuv420p', '-r', String(picture.frameRate), '-g', '60',
  '-b:v', String(VIDEO_BITRATE), '-maxrate', String(VIDEO_BITRATE), '-bufsize', String(VIDEO_BITRATE * 2),
  '-f', 'mp4', file,
];

export const x11grab = (name: string, preset: keyof typeof presets, found: FoundBrowser): Way => ({
  name,
  what: `Xvfb + PulseAudio + Chromium ${found.version} in a window + \`ffmpeg ${ffmpegArgs(preset, ':N', 'out.mp4').slice(3).join(' ')}\``,
  draws: 'chrome',
  async start({ url, directory, group }) {
    const home = join(directory, 'home');
    await mkdir(home);
    const file = join(directory, 'recording.mp4');
    const socket = join(directory, 'pulse');
    const env: NodeJS.ProcessEnv = { PATH: process.env['PATH'], HOME: home, XDG_RUNTIME_DIR: home, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home };
    const xvfb = startProgram(
      group.wrap('/usr/bin/Xvfb'),
      ['-displayfd', '1', '-screen', '0', `${size}x24`, '-nolisten', 'tcp', '-noreset'],
      env,
    );
    const pulse = startProgram(
      group.wrap('/usr/bin/pulseaudio'),
      [
        '-n', '--daemonize=no', '--use-pid-file=no', '--exit-idle-time=-1', '--log-level=notice', '--log-target=stderr',
        '-L', 'module-null-sink sink_name=bench rate=48000', '-L', `module-native-protocol-unix auth-anonymous=1 socket=${socket}`,
      ],
      env,
    );
    const display = `:${await xvfb.line(/^\d+$/)}`;
    const session = { ...env, DISPLAY: display, PULSE_SERVER: `unix:${socket}` };
    const chromium = startProgram(
      group.wrap(found.executable),
      // the bar that warns of a missing sandbox would shift the page
      [...ownFlags(join(directory, 'profile')), '--ozone-platform=x11', '--kiosk', '--window-position=0,0', '--test-type', url],
      session,
    );
    // nobody tells when a page has loaded that nobody drives
    await new Promise((resolve) => setTimeout(resolve, 4000));
    const ffmpeg = startProgram(group.wrap('/usr/bin/ffmpeg'), ffmpegArgs(preset, display, file), session);
    await ffmpeg.line(/Press \[q\] to stop/);
    return {
      group,
      edge: null,
      async stop() {
        await ffmpeg.end('SIGINT');
        for (const program of [chromium, pulse, xvfb]) await program.end('SIGKILL');
        return file;
      },
    };
  },
});
