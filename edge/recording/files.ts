/** What was recorded: the live playlist and its segments, the file, its picture and its manifest. */
import type { Context } from 'hono';
import { TabreelError } from '../../shared/errors.ts';
import { isEnd } from '../../shared/recording.ts';
import type { RecordingRecord } from '../../shared/recording-store.ts';
import { verifyToken } from '../../shared/token.ts';
import { hasOnlyLink } from '../access/caller.ts';
import type { AppDeps, AppEnv, Media } from '../app.ts';
import { isLiveOver, renderPlaylist } from '../ingest/playlist.ts';
import { problemResponse } from '../problem.ts';
import { parsePartName, partKey } from '../storage/part-names.ts';
import type { Storage } from '../storage/storage.ts';
import { findRecord } from './control.ts';
import { parseRange } from './range.ts';

const types: Readonly<Record<string, string>> = {
  'recording.mp4': 'video/mp4',
  'thumbnail.jpg': 'image/jpeg',
  'manifest.json': 'application/json',
};
const PLAYLIST_TYPE = 'application/vnd.apple.mpegurl';

/** The recording, for one who may see it: by his key, or by the token of a link. A token that is there must be good. */
export async function visibleRecord(deps: AppDeps, c: Context<AppEnv>): Promise<RecordingRecord> {
  const id = c.req.param('id') ?? '';
  const token = c.req.query('token');
  if (token !== undefined) {
    if (!(await verifyToken(deps.config.tokenSecrets, token, id, 'view'))) {
      throw new TabreelError('unauthorized', 'the token in the link is not valid, or not any more');
    }
    // whoever has the link may play it in a page of his own; without one only pages of this origin may read
    c.header('Access-Control-Allow-Origin', '*');
  }
  if (token === undefined && hasOnlyLink(c.get('caller'))) throw new TabreelError('unauthorized', 'the link has no token');
  return findRecord(deps, c);
}

/** What is discarded is not shown any more, from the cancel on. @throws {TabreelError} live_over */
function keptRecord(record: RecordingRecord): RecordingRecord {
  if (record.desired === 'canceled') throw new TabreelError('live_over', 'the recording was canceled');
  return record;
}

/** A finished file; listed in the record only once it was verified. */
export const getFile = (name: keyof typeof types) => (deps: AppDeps, media: Media) => async (c: Context<AppEnv>): Promise<Response> => {
  const record = await visibleRecord(deps, c);
  const file = record.files?.find((candidate) => candidate.name === name);
  if (!file) {
    if (name === 'thumbnail.jpg' && record.desired !== 'canceled') return earlyThumbnail(media, c, record.id);
    const over = isEnd(record.state) ? `the recording is ${record.state} and has no ${name}` : `the recording is ${record.state}`;
    throw new TabreelError('file_not_ready', over);
  }
  return send(c, media.storage, `${record.id}/${name}`, file.type, {
    ETag: `"${file.sha256}"`,
    'Cache-Control': 'private, max-age=3600',
    ...(name === 'recording.mp4' ? { 'Content-Disposition': `inline; filename="${record.id}.mp4"` } : {}),
  });
};

/** While it records: the picture that the worker sent. */
async function earlyThumbnail({ storage, live }: Media, c: Context<AppEnv>, id: string): Promise<Response> {
  const part = (await live.parts(id)).findLast(({ type }) => type === 'thumbnail');
  if (!part) throw new TabreelError('file_not_ready', 'there is no picture yet');
  return send(c, storage, partKey(id, part.name), 'image/jpeg', { 'Cache-Control': 'no-store' });
}

export const getPlaylist = (deps: AppDeps, { live }: Media) => async (c: Context<AppEnv>): Promise<Response> => {
  const record = keptRecord(await visibleRecord(deps, c));
  const parts = await live.parts(record.id);
  const token = c.req.query('token');
  const query = token === undefined ? '' : `?token=${encodeURIComponent(token)}`;
  const text = renderPlaylist(parts, { over: isLiveOver(record, parts), query });
  if (text === null) {
    if (isEnd(record.state)) throw new TabreelError('live_over', `the recording is ${record.state}`);
    throw new TabreelError('file_not_ready', 'nothing is recorded yet');
  }
  return c.body(text, 200, { 'Content-Type': PLAYLIST_TYPE, 'Cache-Control': 'no-store' });
};

/** A part of the live stream. Its name is never used again for other bytes. */
export const getSegment = (deps: AppDeps, { storage }: Media) => async (c: Context<AppEnv>): Promise<Response> => {
  const record = keptRecord(await visibleRecord(deps, c));
  const part = parsePartName(c.req.param('name') ?? '');
  if (part?.type !== 'init' && part?.type !== 'segment') {
    throw new TabreelError('not_found', `there is no such segment of ${record.id}`);
  }
  return send(c, storage, partKey(record.id, part.name), part.type === 'init' ? 'video/mp4' : 'video/iso.segment', {
    'Cache-Control': 'private, max-age=86400, immutable',
  });
};

async function send(c: Context, storage: Storage, key: string, type: string, headers: Record<string, string>): Promise<Response> {
  const found = await storage.stat(key);
  if (!found) throw new TabreelError('not_found', 'the file is not in the storage any more');
  const etag = headers['ETag'];
  const all = { ...headers, 'Content-Type': type, 'Accept-Ranges': 'bytes', 'Last-Modified': found.modified.toUTCString() };
  if (etag !== undefined && c.req.header('if-none-match')?.split(',').some((item) => item.trim().replace(/^W\//, '') === etag)) {
    return c.body(null, 304, all);
  }
  const condition = c.req.header('if-range');
  const unchanged = condition === undefined || condition === etag || condition === all['Last-Modified'];
  // a HEAD answer describes the whole (RFC 9110, 14.2: Range is defined for GET)
  const range = unchanged && c.req.method === 'GET' ? parseRange(c.req.header('range'), found.bytes) : 'whole';
  if (range === 'unsatisfiable') {
    const error = new TabreelError('range_not_satisfiable', `the file has ${found.bytes} bytes`);
    return problemResponse(error, { 'Content-Range': `bytes */${found.bytes}` });
  }
  const { start, end } = range === 'whole' ? { start: 0, end: found.bytes } : range;
  const sized = { ...all, 'Content-Length': String(end - start) };
  if (c.req.method === 'HEAD') return c.body(null, 200, sized);
  const body = await storage.stream(key, { start, end });
  if (!body) throw new TabreelError('not_found', 'the file is not in the storage any more');
  if (range === 'whole') return c.body(body, 200, sized);
  return c.body(body, 206, { ...sized, 'Content-Range': `bytes ${start}-${end - 1}/${found.bytes}` });
}
