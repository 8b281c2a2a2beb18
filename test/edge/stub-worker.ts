/** A worker without a browser: takes each recording at once, says that it is pushed, and answers commands as it is told to. */
import { commandIn, type Command, type CommandReply } from '../../shared/commands.ts';
import { patientRedis } from '../../shared/queue.ts';
import type { PushStanding, RecordingRecord } from '../../shared/recording-store.ts';
import type { TestEdge } from './harness.ts';

export type StubWorker = AsyncDisposable & {
  /** What it ran, oldest first. */
  commands: Command[];
  /** Attempts of its recordings, by their ids. */
  attempts: Map<string, number>;
};

export type StubOptions = {
  /** How the first push of a recording stands from its beginning; null leaves it in the queue. */
  standing?: (record: RecordingRecord) => PushStanding | null;
  /** Null: no answer comes. */
  answer?: (command: Command) => CommandReply | null;
};

export async function stubWorker({ config, control }: TestEdge, { standing = () => ({ state: 'live' }), answer = () => ({ result: null }) }: StubOptions = {}): Promise<StubWorker> {
  const { store } = control;
  const prefix = config.queuePrefix;
  const ears = patientRedis(control.admin, () => undefined);
  const commands: Command[] = [];
  const attempts = new Map<string, number>();

  const begin = async (id: string) => {
    const record = await store.get(id);
    const how = record === null ? null : standing(record);
    if (record?.state !== 'queued' || how === null || attempts.has(id)) return;
    attempts.set(id, 0);
    const attempt = await control.run(id);
    attempts.set(id, attempt);
    if (record.job.spec.push.length > 0) await store.push(id, 0, how, { url: 'wss://media.example.com/x', streamId: 's' }, attempt);
    if (how.state === 'failed' && how.error !== undefined) await store.change(id, { from: ['recording'], to: 'finishing', error: how.error, attempt });
  };
  const obey = async (id: string) => {
    if ((await store.get(id))?.desired === 'stopped') await store.change(id, { from: ['starting', 'recording', 'paused'], to: 'finishing' });
  };
  const run = async (id: string, commandId: string) => {
    const command = await control.commands.take(id, attempts.get(id) ?? 0, commandId);
    if (command === null) return;
    commands.push(command);
    const reply = answer(command);
    if (reply !== null) await control.commands.reply(commandId, reply);
  };
  ears.on('pmessage', (_pattern, channel: string, message: string) => {
    const id = channel.slice(`${prefix}:c:`.length);
    const commandId = commandIn(message);
    const done = commandId !== null ? run(id, commandId) : message === 'desired' ? obey(id) : message === 'state' ? begin(id) : Promise.resolve();
    done.catch(() => undefined);
  });
  await ears.psubscribe(`${prefix}:c:*`);
  return {
    commands,
    attempts,
    async [Symbol.asyncDispose]() {
      ears.disconnect();
    },
  };
}
