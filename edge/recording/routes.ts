/** The routes below /v1/recordings. */
import { Hono } from 'hono';
import { describeRoute } from 'hono-openapi';
import type { AppDeps, AppEnv } from '../app.ts';
import * as described from '../docs/descriptions.ts';
import { deleteRecording, getRecording, listRecordings, stopRecording } from './control.ts';
import { createRecording } from './create.ts';
import { recordingEvents } from './events.ts';
import { getFile, getPlaylist, getSegment } from './files.ts';

export function recordingRoutes(deps: AppDeps): Hono<AppEnv> {
  return new Hono<AppEnv>()
    .post('/', describeRoute(described.createDescription), createRecording(deps))
    .get('/', describeRoute(described.listDescription), listRecordings(deps))
    .get('/:id', describeRoute(described.getDescription), getRecording(deps))
    .post('/:id/stop', describeRoute(described.stopDescription), stopRecording(deps))
    .delete('/:id', describeRoute(described.deleteDescription), deleteRecording(deps))
    .get('/:id/events', describeRoute(described.eventsDescription), recordingEvents(deps))
    .get('/:id/live.m3u8', describeRoute(described.playlistDescription), getPlaylist(deps))
    .get('/:id/live/:name', describeRoute(described.segmentDescription), getSegment(deps))
    .get('/:id/recording.mp4', describeRoute(described.fileDescription), getFile(deps, 'recording.mp4'))
    .get('/:id/thumbnail.jpg', describeRoute(described.thumbnailDescription), getFile(deps, 'thumbnail.jpg'))
    .get('/:id/manifest.json', describeRoute(described.manifestDescription), getFile(deps, 'manifest.json'));
}
