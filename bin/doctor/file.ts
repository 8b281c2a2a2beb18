/** Reads a fetched recording, as a player would. */
import { createHash } from 'node:crypto';
import { BufferSource, EncodedPacketSink, Input, MP4 } from 'mediabunny';
import type { Recording } from '../../shared/recording.ts';
import { fail, ok, warn, type Finding } from './link.ts';

/** Seconds by which the file and the recording's record may differ. */
const TOLERANCE = 0.5;
/** The page draws 25 new pictures a second at the least; a slow worker gets some of them. */
const MIN_PICTURES_PER_SECOND = 5;

/**
 * @param recording what the file should be
 * @param moves whether it is of a page that is known to move and to beep
 */
export async function examineFile(bytes: Buffer, recording: Pick<Recording, 'duration' | 'width' | 'height' | 'files' | 'engine'>, moves: boolean): Promise<Finding> {
  const file = recording.files.find(({ name }) => name === 'recording.mp4');
  if (file && (file.bytes !== bytes.length || file.sha256 !== createHash('sha256').update(bytes).digest('hex'))) {
    return fail(`${bytes.length} bytes came, which are not the ${file.bytes} that were stored`, ['Something on the way changes or cuts answers: look at what caches or compresses before the edge.']);
  }
  using input = new Input({ formats: [MP4], source: new BufferSource(bytes) });
  const video = await input.getPrimaryVideoTrack();
  if (video === null) return fail('the file has no picture');
  const audio = await input.getPrimaryAudioTrack();
  const duration = await input.computeDuration();
  const [width, height, { packetCount }] = [await video.getCodedWidth(), await video.getCodedHeight(), await video.computePacketStats()];
  const last = await new EncodedPacketSink(video).getPacket(Infinity);
  const facts = [
    `${(bytes.length / 1e6).toFixed(2)} MB`,
    `${duration.toFixed(1)} s`,
    `${width}x${height}`,
    `${packetCount} pictures`,
    audio === null ? 'no sound' : 'sound',
  ].join(', ');
  if (last === null || Math.abs(duration - recording.duration) > TOLERANCE) return fail(`${facts}: the recording has ${recording.duration.toFixed(1)} s`);
  if (width !== recording.width || height !== recording.height) return fail(`${facts}: asked was ${recording.width}x${recording.height}`);
  if (!moves) return ok(facts);
  if (packetCount < duration * MIN_PICTURES_PER_SECOND) return warn(facts, ['Few pictures of a page that moves all the time: the worker is short of CPU.']);
  if (audio === null) {
    const why = recording.engine === 'screencast' ? 'The screencast engine records no sound' : 'The page beeps each second, and the recording has no sound';
    return warn(facts, [`${why}: see docs/capture.md on engines and browsers.`]);
  }
  return ok(facts);
}
