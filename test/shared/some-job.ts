/** A job like the edge's own, for whoever needs just any. */
import { newJob, type RecordingJob } from '../../shared/job.ts';
import { newRecordingId } from '../../shared/recording.ts';

export const someJob = (id: string = newRecordingId()): RecordingJob =>
  newJob({
    recordingId: id,
    mediaUrl: `wss://rec.example.com/v1/recordings/${id}/media`,
    credential: 'opaque',
    origin: { source: 'socket', hops: 0 },
    spec: {
      url: 'https://example.com/page',
      width: 1280,
      height: 720,
      frameRate: 30,
      maxDuration: 60,
      audio: true,
      videoBitrate: 3_000_000,
      audioBitrate: 128_000,
      start: { when: 'load', timeout: 30 },
      webrtc: 'proxied',
      record: true,
      push: [],
    },
    sealed: null,
  });
