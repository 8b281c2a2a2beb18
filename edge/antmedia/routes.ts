/** The routes below /{app}/rest/v1/media-push. */
import { Hono } from 'hono';
import { describeRoute } from 'hono-openapi';
import type { AppDeps, AppEnv } from '../app.ts';
import { sendCommandDescription, startDescription, stopDescription } from './descriptions.ts';
import { sendMediaPushCommand, startMediaPush, stopMediaPush } from './media-push.ts';

export const mediaPushRoutes = (deps: AppDeps): Hono<AppEnv> =>
  new Hono<AppEnv>()
    .post('/start', describeRoute(startDescription), startMediaPush(deps))
    .post('/stop/:streamId', describeRoute(stopDescription), stopMediaPush(deps))
    .post('/send-command', describeRoute(sendCommandDescription), sendMediaPushCommand(deps));
