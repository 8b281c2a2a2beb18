/** The routes below /v1/recordings. */
import { Hono } from 'hono';
import { describeRoute } from 'hono-openapi';
import { TabreelError } from '../../shared/errors.ts';
import { needs } from '../access/caller.ts';
import type { AppDeps, AppEnv } from '../app.ts';
import * as described from '../docs/descriptions.ts';
import { problemResponse } from '../problem.ts';
import { unsupported } from '../unsupported.ts';
import { runCommand } from './commands.ts';
import { cancelRecording, deleteRecording, getRecording, listRecordings, markRecording, pauseRecording, resumeRecording, stopRecording } from './control.ts';
import { createRecording } from './create.ts';
import { recordingEvents } from './events.ts';
import { getFile, getPlaylist, getSegment } from './files.ts';
import { whereMediaIs } from './media-elsewhere.ts';

export function recordingRoutes(deps: AppDeps): Hono<AppEnv> {
  const served = (handler: Parameters<typeof whereMediaIs>[1]) => whereMediaIs(deps, handler);
  const app = new Hono<AppEnv>()
    .post('/', describeRoute(described.createDescription), needs('record'), createRecording(deps))
    .get('/', describeRoute(described.listDescription), needs('read'), listRecordings(deps))
    .get('/:id', describeRoute(described.getDescription), needs('read'), getRecording(deps))
    .post('/:id/stop', describeRoute(described.stopDescription), needs('record'), stopRecording(deps))
    .post('/:id/pause', describeRoute(described.pauseDescription), needs('record'), pauseRecording(deps))
    .post('/:id/resume', describeRoute(described.resumeDescription), needs('record'), resumeRecording(deps))
    .post('/:id/cancel', describeRoute(described.cancelDescription), needs('record'), cancelRecording(deps))
    .post('/:id/markers', describeRoute(described.markersDescription), needs('record'), markRecording(deps))
    .post('/:id/commands', describeRoute(described.commandsDescription), needs('record'), runCommand(deps))
    .delete('/:id', describeRoute(described.deleteDescription), needs('record'), deleteRecording(deps))
    .get('/:id/events', describeRoute(described.eventsDescription), needs('read'), served(recordingEvents))
    .get('/:id/live.m3u8', describeRoute(described.playlistDescription), needs('read'), served(getPlaylist))
    .get('/:id/live/:name', describeRoute(described.segmentDescription), needs('read'), served(getSegment))
    .get('/:id/recording.mp4', describeRoute(described.fileDescription), needs('read'), served(getFile('recording.mp4')))
    .get('/:id/thumbnail.jpg', describeRoute(described.thumbnailDescription), needs('read'), served(getFile('thumbnail.jpg')))
    .get('/:id/manifest.json', describeRoute(described.manifestDescription), needs('read'), served(getFile('manifest.json')));
  app.get('/:id/media', () => {
    if (deps.media === null) throw unsupported('media');
    // an upgrade never gets here, unless a proxy made an ordinary request of it
    const detail = 'the request has no Upgrade: websocket with Connection: Upgrade; a proxy on the way may have dropped them';
    return problemResponse(new TabreelError('upgrade_required', detail), { upgrade: 'websocket', connection: 'upgrade' });
  });
  return app;
}
