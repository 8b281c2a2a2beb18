/** `POST /v1/recordings/:id/commands`: a script for the page of a recording, wherever that is. */
import type { Context } from 'hono';
import { commandRequest, type Command, type CommandReply } from '../../shared/commands.ts';
import { TabreelError } from '../../shared/errors.ts';
import type { RecordingRecord } from '../../shared/recording-store.ts';
import type { AppDeps, AppEnv } from '../app.ts';
import { unsupported } from '../unsupported.ts';
import { readBody } from './body.ts';
import { findRecord } from './control.ts';

/** Milliseconds for a worker to take a command. */
const TAKE_MS = 3000;
/** Milliseconds beyond its own time that the answer of a command may take. */
const ANSWER_MS = 5000;

export const runCommand = (deps: AppDeps) => async (c: Context<AppEnv>): Promise<Response> => {
  if (deps.media === null) throw unsupported('commands');
  const record = await findRecord(deps, c);
  const { script, timeout } = await readBody(c, commandRequest);
  const result = await sendCommand(deps, record, { script, isBody: false, timeout });
  return c.json({ result }, 200, { 'Cache-Control': 'no-store' });
};

/**
 * Has the script run in the recording's page, once at most.
 *
 * @returns what the script came to
 * @throws {TabreelError} what went wrong with it; `illegal_state` where the recording is not under way, `unsupported_here`
 */
export async function sendCommand({ media, commands }: AppDeps, record: RecordingRecord, command: Command): Promise<unknown> {
  if (media === null) throw unsupported('commands');
  assertLive(record);
  const commandId = crypto.randomUUID();
  let stands = false;
  let taken = false;
  let heard = 0;
  let wake: () => void = () => undefined;
  const unwatch = media.watch.channel(commands.replyChannel(commandId), (kind) => {
    if (kind === 'lost') stands = true;
    else taken = true;
    heard += 1;
    wake();
  });
  /** Resolves when more was heard than `before`, or at the deadline. */
  const more = async (before: number, deadline: number): Promise<void> => {
    const left = deadline - Date.now();
    if (heard !== before || left <= 0) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      wake = resolve;
      timer = setTimeout(resolve, left);
    });
    clearTimeout(timer);
  };
  const until = async (what: () => boolean): Promise<boolean> => {
    const deadline = Date.now() + TAKE_MS;
    while (!what() && Date.now() < deadline) await more(heard, deadline);
    return what();
  };
  const send = () =>
    commands.send(record.id, commandId, command).catch(async (error: unknown) => {
      // it may have been sent all the same
      if (await commands.withdraw(commandId).catch(() => false)) throw error;
      throw new TabreelError('command_lost', 'Redis went away: the script may have been run', { cause: error });
    });
  try {
    if (!(await until(() => stands))) throw new TabreelError('redis_unavailable', 'Redis does not answer; the script was not run');
    await send();
    // one that can't be taken back is taken in this very moment
    if (!(await until(() => taken)) && (await commands.withdraw(commandId))) {
      throw new TabreelError('command_not_taken', `no worker took the script within ${TAKE_MS / 1000} s: it was not run`);
    }
    const deadline = Date.now() + command.timeout * 1000 + ANSWER_MS;
    for (;;) {
      const before = heard;
      // with Redis away: what was said meanwhile is told when it is back
      const reply = await commands.read(commandId).catch(() => null);
      if (reply !== null) return resultOf(reply);
      if (Date.now() >= deadline) throw new TabreelError('command_lost', 'the worker took the script, and no answer came: it may have been run');
      await more(before, deadline);
    }
  } finally {
    unwatch();
  }
}

function resultOf(reply: CommandReply): unknown {
  if ('error' in reply) throw new TabreelError(reply.error.code, reply.error.message);
  return reply.result;
}

function assertLive({ state, desired, released }: RecordingRecord): void {
  const runs = state === 'starting' || state === 'recording' || state === 'paused';
  const goes = desired === 'recording' || desired === 'paused';
  if (goes && (state === 'queued' || (runs && released !== undefined))) {
    throw new TabreelError('page_not_open', state === 'queued' ? 'the recording is queued, and its page is not open' : 'the recording is between two attempts, and its page is not open');
  }
  if (runs && goes) return;
  const coming = runs ? `, to be ${desired}` : '';
  throw new TabreelError('illegal_state', `the recording is ${state}${coming}, and its page is closed`);
}
