/** Commands for a recording's page, seen from the worker: taken for the attempt, handed to its process, and answered for certain. */
import type { CommandReply, CommandStore } from '../shared/commands.ts';
import type { Log } from '../shared/log.ts';
import type { ToRecorder } from './process-protocol.ts';

export type CommandRelay = {
  /** @param send to the recording's process. @returns false where there is none */
  take(commandId: string, send: (message: ToRecorder) => boolean): void;
  /** The process has answered. */
  answered(commandId: string, reply: CommandReply): void;
  /** The process is gone: what it has not answered is answered for it. */
  over(): void;
};

/** @param recording its id; @param attempt takes commands as long as it is the newest */
export function createCommandRelay(recording: string, attempt: number, store: CommandStore, log: Log): CommandRelay {
  const begun = new Map<string, number>();

  const reply = (commandId: string, answer: CommandReply) => {
    const since = begun.get(commandId);
    if (since === undefined) return;
    begun.delete(commandId);
    log.info('command', { command: commandId, outcome: 'error' in answer ? answer.error.code : 'result', took: Date.now() - since });
    store.reply(commandId, answer).catch((error: unknown) => log.warn('the answer of a command is lost', { command: commandId, error }));
  };
  const take: CommandRelay['take'] = (commandId, send) => {
    const taking = async () => {
      const command = await store.take(recording, attempt, commandId);
      if (command === null) return;
      begun.set(commandId, Date.now());
      if (!send({ type: 'command', id: commandId, command })) reply(commandId, { error: { code: 'page_not_open', message: 'The page is not open' } });
    };
    taking().catch((error: unknown) => log.warn('a command can not be taken', { command: commandId, error }));
  };
  return {
    take,
    answered: reply,
    over() {
      for (const commandId of begun.keys()) {
        reply(commandId, { error: { code: 'page_gone', message: 'The page was closed before the script came to its end' } });
      }
    },
  };
}
