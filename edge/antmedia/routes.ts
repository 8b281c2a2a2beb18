/** The routes below /{app}/rest/v1/media-push. */
import { Hono } from 'hono';
import { describeRoute } from 'hono-openapi';
import { needs } from '../access/caller.ts';
import type { AppDeps, AppEnv } from '../app.ts';
import { sendCommandDescription, startDescription, stopDescription } from './descriptions.ts';
import { sendMediaPushCommand, startMediaPush, stopMediaPush } from './media-push.ts';

export const mediaPushRoutes = (deps: AppDeps): Hono<AppEnv> =>
  new Hono<AppEnv>()
    .post('/start', describeRoute(startDescription), needs('record'), startMediaPush(deps))
    .post('/stop/:streamId', describeRoute(stopDescription), needs('record'), stopMediaPush(deps))
    .post('/send-command', describeRoute(sendCommandDescription), needs('record'), sendMediaPushCommand(deps));
