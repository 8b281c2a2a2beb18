/**
 * What one recording takes of /dev/shm: the peak of what is used, looked at each 50 ms, for pages, sizes and engines. As root:
 * `npm run bench:shm` mounts a /dev/shm of its own, so that nobody else's shows.
 */
import { spawnSync } from 'node:child_process';
import { statfs } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startPages } from '../helpers/pages.ts';
import { startRecorder } from '../helpers/recorder.ts';

const SECONDS = 8;
const EVERY_MS = 50;

if (process.env['TABREEL_OWN_SHM'] === undefined) {
  const script = 'mount -t tmpfs -o size=8g tmpfs /dev/shm && exec "$0" "$@"';
  const { status } = spawnSync('unshare', ['--mount', 'sh', '-c', script, process.execPath, fileURLToPath(import.meta.url)], {
    stdio: 'inherit',
    env: { ...process.env, TABREEL_OWN_SHM: '1' },
  });
  process.exit(status ?? 1);
}

const used = async (): Promise<number> => {
  const { blocks, bfree, bsize } = await statfs('/dev/shm');
  return ((blocks - bfree) * bsize) / 2 ** 20;
};

await using pages = await startPages();
const cases = [
  { page: '/static.html', width: 1280, height: 720 },
  { page: '/animated.html', width: 1280, height: 720 },
  { page: '/slides.html', width: 1280, height: 720 },
  { page: '/videos.html', width: 1280, height: 720 },
  { page: '/animated.html', width: 1920, height: 1080 },
  { page: '/videos.html', width: 1920, height: 1080 },
  { page: '/videos.html', width: 3840, height: 2160 },
  { page: '/webrtc.html', width: 1280, height: 720 },
];
console.log('| page | size | engine | peak MiB | at the end MiB |\n|---|---|---|---|---|');
for (const engine of ['tab', 'self', 'screencast'] as const) {
  for (const { page, width, height } of cases) {
    const before = await used();
    let peak = 0;
    const timer = setInterval(() => void used().then((now) => (peak = Math.max(peak, now - before))), EVERY_MS);
    const run = await startRecorder({ engine, request: { url: pages.url(page), width, height, audio: engine !== 'screencast', maxDuration: SECONDS } });
    const { error } = await run.ended;
    clearInterval(timer);
    await sleep(500);
    const left = (await used()) - before;
    console.log(`| ${page} | ${width}x${height} | ${engine} | ${peak.toFixed(1)}${error === null ? '' : ` (${error.code})`} | ${left.toFixed(1)} |`);
  }
}
