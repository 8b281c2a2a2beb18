/** What openapi.json says of the Media Push plugin's routes. */
import type { describeRoute } from 'hono-openapi';
import { resolver } from 'hono-openapi';
import { json, problems, secured } from '../docs/descriptions.ts';
import { endpoint, result } from './media-push.ts';

type Description = Parameters<typeof describeRoute>[0];

const tags = ['media push plugin'];
const app = { in: 'path' as const, name: 'app', required: true, description: "An application of the Ant Media Server at the caller's host", schema: { type: 'string' as const, example: 'LiveApp' } };
const streamId = (where: 'path' | 'query', required: boolean) => ({ in: where, name: 'streamId', required, description: "The stream's id", schema: { type: 'string' as const } });
const requestBody = { required: true, content: { 'application/json': { schema: resolver(endpoint, { io: 'input' }) } } };

export const startDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'Push a page to an Ant Media Server',
  description: 'Answers when the stream is live, or has failed, or after 30 s. What goes wrong is a 200 with `success: false`.',
  operationId: 'startMediaPush',
  parameters: [app, streamId('query', false)],
  requestBody,
  responses: { 200: json('How it went', result), ...problems(400, 401, 403, 413, 415, 501, 503) },
};

export const stopDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'End a push',
  description: 'Answers when the stream has ended.',
  operationId: 'stopMediaPush',
  parameters: [app, streamId('path', true)],
  responses: { 200: json('How it went', result), ...problems(401, 403, 503) },
};

export const sendCommandDescription: Description = {
  tags,
  ...secured('record'),
  summary: 'Run a function body in the pushed page',
  operationId: 'sendMediaPushCommand',
  parameters: [app, streamId('query', true)],
  requestBody,
  responses: { 200: json('What the command came to', result), ...problems(400, 401, 403, 413, 415, 501, 503) },
};
