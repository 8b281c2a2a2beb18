/**
 * The Chromium that comes with the packages (@sparticuz/chromium, a headless shell), unpacked.
 *
 * The package's own `executablePath()` unpacks to fixed names in the shared temporary directory, where another user may
 * have planted a program first and where two processes write the same file. So its archives are unpacked here: below a
 * directory that only we may write to, aside, and put in place by one rename.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { access, chmod, lstat, mkdir, mkdtemp, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:os';
import { dirname, join, resolve, sep } from 'node:path';
import { getuid } from 'node:process';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { brotliDecompress, createBrotliDecompress } from 'node:zlib';

export type Unpacked = {
  executable: string;
  /** NSS, NSPR and expat, for machines that lack them. */
  libraryPath: string;
  /** A fonts.conf and Open Sans, for machines without fonts. */
  fontsPath: string;
};

/** What lies beside an unpacked browser; not whether it does. */
export const unpackedAt = (executable: string): Unpacked => ({
  executable,
  libraryPath: join(dirname(executable), 'lib'),
  fontsPath: join(dirname(executable), 'fonts'),
});

/**
 * Unpacks the browser, about 220 MB, unless that was done before. Several processes may do so at once.
 * @param place directory for it; made, or ours and closed to others
 * @throws where the place can't be used, or the package has no browser for this machine
 */
export async function unpackBundled(place: string): Promise<Unpacked> {
  const { archives, version } = await bundle();
  await makePrivate(place);
  const directory = join(place, `chromium-${version}`);
  const unpacked = unpackedAt(join(directory, 'chromium'));
  if (await isComplete(directory)) return unpacked;

  const aside = await mkdtemp(`${directory}.`);
  try {
    await pipeline(
      createReadStream(join(archives, 'chromium.br')),
      createBrotliDecompress({ chunkSize: 1024 * 1024 }),
      createWriteStream(join(aside, 'chromium'), { mode: 0o755 }),
    );
    await untar(join(archives, 'al2023.tar.br'), aside); // into lib/
    await untar(join(archives, 'swiftshader.tar.br'), aside); // beside the program, where it looks for them
    await untar(join(archives, 'fonts.tar.br'), aside); // fonts.conf, fonts/
    await writeFontsConf(join(aside, 'fonts'), unpacked.fontsPath);
    await writeFile(join(aside, COMPLETE), '');
    await chmod(aside, 0o755); // mkdtemp's 0700 would lock out a browser that drops to another user
    await putInPlace(aside, directory);
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
  return unpacked;
}

/** Written last; a cleaner of temporary directories takes the oldest files first, and so this one among them. */
const COMPLETE = 'complete';

const isComplete = async (directory: string): Promise<boolean> => {
  try {
    for (const name of [COMPLETE, 'chromium']) await access(join(directory, name));
    return true;
  } catch {
    return false;
  }
};

/** Another process may have been quicker: then its copy stands. */
async function putInPlace(aside: string, directory: string): Promise<void> {
  for (let i = 0; i < 3; i += 1) {
    try {
      return await rename(aside, directory);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
      if (await isComplete(directory)) return;
      // what is left of an older one; moved away first, so that nobody sees half of it
      const old = `${aside}.old`;
      await rename(directory, old).catch(() => undefined);
      await rm(old, { recursive: true, force: true });
    }
  }
  throw new Error(`${directory} can't be replaced`);
}

/**
 * Makes the directory, and makes sure that nobody else can put a program into it: neither it nor a directory above it
 * belongs to another user or can be written to by one, but for directories like /tmp whose sticky bit keeps names safe.
 * @throws where that isn't so
 */
async function makePrivate(place: string): Promise<void> {
  await mkdir(dirname(place), { recursive: true });
  await mkdir(place, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  const us = getuid?.();
  const found = await lstat(place);
  if (!found.isDirectory()) throw new Error('it is not a directory');
  if (us !== undefined && found.uid !== us) throw new Error(`it belongs to user ${found.uid}, not to us`);
  if ((found.mode & 0o022) !== 0) throw new Error('others may write to it');
  for (let above = dirname(await realpath(place)); ; above = dirname(above)) {
    const { uid, mode } = await lstat(above);
    if (us !== undefined && uid !== us && uid !== ROOT && uid !== UNMAPPED) throw new Error(`${above} belongs to user ${uid}`);
    if ((mode & 0o022) !== 0 && (mode & 0o1000) === 0) throw new Error(`others may write to ${above}`);
    if (above === dirname(above)) return;
  }
}

const ROOT = 0;
/** How root of the machine looks from within a user namespace that doesn't map it. */
const UNMAPPED = 65_534;

async function bundle(): Promise<{ archives: string; version: string }> {
  const root = join(dirname(createRequire(import.meta.url).resolve('@sparticuz/chromium')), '..');
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string };
  // the package on npm has no other
  if (arch() !== 'x64' || platform() !== 'linux') {
    throw new Error(`the packages' own browser is for Linux on x64, not for ${platform()} on ${arch()}`);
  }
  return { archives: join(root, 'bin'), version };
}

/** The package's fonts.conf names directories of AWS Lambda and a cache in /tmp. */
const writeFontsConf = (directory: string, fontsPath: string): Promise<void> =>
  writeFile(
    join(directory, 'fonts.conf'),
    `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>${fontsPath}</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
`,
  );

/** Files of a small tar (ustar), as a package's archives are: no links, no long names. */
async function untar(archive: string, into: string): Promise<void> {
  const tar: Buffer = await promisify(brotliDecompress)(await readFile(archive));
  const text = (from: number, length: number) => tar.toString('latin1', from, from + length).replace(/\0.*$/s, '');
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const size = Number.parseInt(text(at + 124, 12).trim() || '0', 8);
    const file = resolve(into, text(at, 100));
    if (!file.startsWith(resolve(into) + sep)) throw new Error(`${archive} has a path outside of itself`);
    const type = text(at + 156, 1);
    if (type === '0' || type === '') {
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, tar.subarray(at + 512, at + 512 + size), { mode: Number.parseInt(text(at + 100, 8).trim(), 8) & 0o755 });
    }
    at += 512 + Math.ceil(size / 512) * 512;
  }
}
