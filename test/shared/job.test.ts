import { describe, expect, test } from 'vitest';
import { finishJob, newFinishJob, newJob, parseJob, type RecordingJob } from '../../shared/job.ts';
import { newRecordingId } from '../../shared/recording.ts';
import { someJob } from './some-job.ts';

/** As it comes out of Redis: another process's JSON. */
const sent = (change: Record<string, unknown> = {}): unknown => JSON.parse(JSON.stringify({ ...someJob(), ...change }));

describe("a recording's job", () => {
  test('comes out of the queue as it went in', () => {
    const job = someJob();
    expect(parseJob(JSON.parse(JSON.stringify(job)))).toEqual(job);
    expect(parseJob(sent({ sealed: 'v1.abc.def' })).sealed).toBe('v1.abc.def');
  });

  test('of another version is not run', () => {
    for (const version of [0, 2, '1', undefined]) {
      expect(() => parseJob(sent({ version })), String(version)).toThrow(/^the job is not valid at version: /);
    }
  });

  test.each<[path: string, change: Record<string, unknown>]>([
    ['recordingId', { recordingId: '../../etc' }],
    ['mediaUrl', { mediaUrl: 'https://example.com/media' }],
    ['mediaUrl', { mediaUrl: '/v1/recordings/x/media' }],
    ['mediaUrl', { mediaUrl: `wss://example.com/${'a'.repeat(8192)}` }],
    ['credential', { credential: '' }],
    ['credential', { credential: 'x'.repeat(4097) }],
    ['origin.hops', { origin: { source: 'socket', hops: -1 } }],
    ['sealed', { sealed: undefined }],
    ['spec.url', { spec: { ...someJob().spec, url: 'file:///etc/passwd' } }],
    ['spec.width', { spec: { ...someJob().spec, width: 12.5 } }],
    ['spec.start.when', { spec: { ...someJob().spec, start: { when: 'later' } } }],
    ['spec.start.selector', { spec: { ...someJob().spec, start: { when: 'selector', timeout: 1 } } }],
  ])('names %s where it is wrong', (path, change) => {
    expect(() => parseJob(sent(change))).toThrow(expect.objectContaining({ code: 'internal', message: expect.stringContaining(`not valid at ${path}: `) }));
  });

  test.each([null, undefined, 'text', 7, []])('%j is none', (data) => {
    expect(() => parseJob(data)).toThrow(/the job is not valid at its root/);
  });

  test('carries no secret of the caller in the clear', () => {
    const job: RecordingJob = newJob({ ...someJob(), sealed: 'v1.a.b' });
    expect(Object.keys(parseJob(job)).sort()).toEqual(['credential', 'mediaUrl', 'origin', 'recordingId', 'sealed', 'spec', 'version']);
    // an older edge's headers would be dropped, not passed on
    expect(parseJob(sent({ headers: { authorization: 'x' } }))).not.toHaveProperty('headers');
  });
});

test("the finaliser's job survives the queue, and no other action does", () => {
  const id = newRecordingId();
  for (const action of ['finish', 'remove', 'sweep'] as const) expect(finishJob.parse(JSON.parse(JSON.stringify(newFinishJob(id, action))))).toEqual({ version: 1, recordingId: id, action });
  expect(finishJob.safeParse({ ...newFinishJob(id, 'finish'), action: 'purge' }).success).toBe(false);
  expect(finishJob.safeParse({ ...newFinishJob(id, 'finish'), recordingId: '..' }).success).toBe(false);
});
