/** Scripts that callers run in a recording's page, in the recording's own process. */
import type { CDPSession, Page, Protocol } from 'puppeteer-core';
import { RESULT_CHARACTERS_AT_MOST, type Command, type CommandReply } from '../shared/commands.ts';
import type { ErrorCode } from '../shared/errors.ts';

/** Scripts of one recording that wait for the one that runs. */
const WAITING_AT_MOST = 16;
/** Milliseconds that a script may hold the page up at a stretch: after some more the page counts as hung. */
const HOLD_UP_MS = 5000;
/** Characters of what a script threw. */
const MESSAGE_AT_MOST = 2000;

export type PageCommands = {
  /** Answers always, in the order of the calls: one script runs at a time. */
  run(command: Command): Promise<CommandReply>;
  /** From now on the page can be had. */
  open(page: Page): Promise<void>;
  /** It can't any more: what runs or waits is answered so. */
  close(): void;
};

export function createPageCommands(): PageCommands {
  let page: { session: CDPSession; gone: PromiseWithResolvers<CommandReply> } | null = null;
  let wasOpen = false;
  let count = 0;
  let last: Promise<unknown> = Promise.resolve();

  return {
    async open(opened) {
      page = { session: await opened.createCDPSession(), gone: Promise.withResolvers() };
      wasOpen = true;
    },
    close() {
      page?.gone.resolve(pageGone());
      page = null;
    },
    async run(command) {
      if (page === null) return wasOpen ? pageGone() : failed('page_not_open', 'The page has not been loaded yet');
      if (count > WAITING_AT_MOST) return failed('too_many_commands', `${WAITING_AT_MOST} scripts wait already`);
      const { session, gone } = page;
      const until = performance.now() + command.timeout * 1000;
      const late = Promise.withResolvers<CommandReply>();
      const timer = setTimeout(() => late.resolve(failed('script_timeout', `The script did not come to its end within ${command.timeout} s`)), command.timeout * 1000);
      const ended = Promise.race([late.promise, gone.promise]);
      let answered = false;
      const turn = last.then(() => (answered ? ended : Promise.race([evaluate(session, command, until), ended])));
      last = turn;
      count += 1;
      try {
        return await Promise.race([turn, ended]);
      } finally {
        answered = true;
        count -= 1;
        clearTimeout(timer);
      }
    },
  };
}

const failed = (code: ErrorCode, message: string): CommandReply => ({ error: { code, message } });
const pageGone = () => failed('page_gone', 'The page was closed before the script came to its end');

/** Runs in the page: its own JSON, with a look at the size before anything is carried over. */
const toJson = `function (limit) {
  const text = JSON.stringify(this);
  return typeof text !== 'string' ? { problem: 'none' } : text.length > limit ? { problem: 'size' } : { text };
}`;

/** In the page's own world, where the page's own scripts run; a Content-Security-Policy does not concern it. */
async function evaluate(session: CDPSession, { script, isBody }: Command, until: number): Promise<CommandReply> {
  const timeout = Math.max(1, Math.min(HOLD_UP_MS, until - performance.now()));
  try {
    const { result, exceptionDetails } = await session.send('Runtime.evaluate', {
      // on the first line, so that lines are counted as the caller counts them
      expression: isBody ? `(function () {${script}\n})()` : script,
      awaitPromise: true,
      silent: true,
      userGesture: false,
      timeout,
    });
    if (exceptionDetails !== undefined) return failed('script_threw', messageOf(exceptionDetails));
    if (result.objectId === undefined) return ofPrimitive(result);
    const { objectId } = result;
    const json = await session.send('Runtime.callFunctionOn', {
      functionDeclaration: toJson,
      objectId,
      arguments: [{ value: RESULT_CHARACTERS_AT_MOST }],
      returnByValue: true,
      silent: true,
    });
    session.send('Runtime.releaseObject', { objectId }).catch(() => undefined);
    if (json.exceptionDetails !== undefined) return notJson(messageOf(json.exceptionDetails));
    const { text, problem } = json.result.value as { text?: string; problem?: 'none' | 'size' };
    if (problem === 'size') return tooLarge();
    if (text === undefined) return notJson(`it is a ${result.type}`);
    return { result: JSON.parse(text) as never };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (/terminated/i.test(message)) return failed('script_timeout', `The script held the page up for ${(timeout / 1000).toFixed(1)} s`);
    if (/navigated|context|collected|Cannot find|detached/i.test(message)) {
      return failed('page_navigated', 'The page went to another document before the script came to its end');
    }
    if (/closed/i.test(message)) return pageGone();
    return failed('command_lost', `The browser did not run the script to its end: ${message}`);
  }
}

const notJson = (why: string) => failed('result_not_json', `The script's result is not JSON: ${why}`);
const tooLarge = () => failed('result_too_large', `The script's result has more than ${RESULT_CHARACTERS_AT_MOST} characters of JSON`);

function ofPrimitive({ type, value, unserializableValue }: Protocol.Runtime.RemoteObject): CommandReply {
  if (type === 'undefined') return { result: null };
  if (unserializableValue === '-0') return { result: 0 };
  if (unserializableValue !== undefined) return notJson(`it is ${unserializableValue.slice(0, 100)}`);
  if (type === 'symbol' || type === 'function') return notJson(`it is a ${type}`);
  return JSON.stringify(value).length > RESULT_CHARACTERS_AT_MOST ? tooLarge() : { result: value as never };
}

/** What was thrown, and in which line of the script; without the stack, which tells of nothing that the caller wrote. */
function messageOf({ exception, lineNumber, url, text, stackTrace }: Protocol.Runtime.ExceptionDetails): string {
  const description = exception?.description ?? (exception?.value === undefined ? text : JSON.stringify(exception.value));
  const [message = ''] = description.split(/\n {4}at /);
  const frame = /\n {4}at (?:.*\()?<anonymous>:(\d+):\d+\)?/.exec(description)?.[1];
  const own = stackTrace?.callFrames.find((call) => call.url === '')?.lineNumber;
  const line = frame === undefined ? (own ?? (url === undefined || url === '' ? lineNumber : undefined)) : Number(frame) - 1;
  return `${message.slice(0, MESSAGE_AT_MOST)}${line === undefined ? '' : ` (line ${line + 1})`}`;
}
