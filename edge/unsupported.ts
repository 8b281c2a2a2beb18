/** What a deployment without sockets and files of its own can't do. The one list of it, for serverless runtimes. */
import { TabreelError } from '../shared/errors.ts';

const reasons = {
  create:
    'the media of a recording would have nowhere to go: this deployment takes none itself. ' +
    'The operator has to set MEDIA_URL to the wss:// base of a deployment that does (node edge/node.ts)',
  media: 'this deployment takes no media: its runtime holds no WebSocket open and has no disk. Workers dial the mediaUrl of the recording',
  files: 'this deployment holds no recordings, and does not know who does: the operator has to set MEDIA_URL',
  commands: 'scripts run in the page of a recording by way of a Node edge only: its runtime hears the answers. node edge/node.ts with the same REDIS_URL and QUEUE_PREFIX does',
  dashboard: 'the dashboard runs on Node only: a node edge/node.ts with the same REDIS_URL and QUEUE_PREFIX shows these queues',
} as const;

export const unsupported = (what: keyof typeof reasons): TabreelError => new TabreelError('unsupported_here', reasons[what]);
