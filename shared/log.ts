/** Structured logs: one JSON line an event. Whoever logs must not pass secrets; of URLs no line has the query or a password. */

export const logLevels = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

/** `info` where nothing is set or it is no level: who reads the other settings says so. */
export const levelOf = (text: string | undefined): LogLevel => logLevels.find((level) => level === text) ?? 'info';

export type LogFields = Readonly<Record<string, unknown>>;

export type Log = {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
  /** A log that adds these fields to every line, for example the recording's id. */
  with(fields: LogFields): Log;
};

/** Up to what can't be in a URL, so that no part of a query is taken for what follows it. */
const urlInText = /\b((?:https?|wss?):\/\/)(?:[^\s"'<>\\/?#]*@)?([^\s"'<>\\?#]*)(?:[?#][^\s"'<>\\]*)?/gi;

/** Errors keep their code, message and chain of causes; nothing else of them is printed. Browsers and clients quote URLs in theirs. */
function printable(_key: string, value: unknown): unknown {
  if (typeof value === 'string') return value.includes('://') ? value.replace(urlInText, '$1$2') : value;
  if (!(value instanceof Error)) return value;
  const code = (value as { code?: unknown }).code;
  return {
    message: value.message,
    ...(code === undefined ? {} : { code }),
    ...(value.cause === undefined ? {} : { cause: value.cause }),
  };
}

/** @param write takes one line without its newline. */
export function createLog(level: LogLevel, write: (line: string) => void, fields: LogFields = {}): Log {
  const line = (at: LogLevel) => (event: string, more: LogFields = {}) => {
    if (logLevels.indexOf(at) < logLevels.indexOf(level)) return;
    write(JSON.stringify({ time: new Date().toISOString(), level: at, event, ...fields, ...more }, printable));
  };
  return {
    debug: line('debug'),
    info: line('info'),
    warn: line('warn'),
    error: line('error'),
    with: (more) => createLog(level, write, { ...fields, ...more }),
  };
}

/** A URL as logs and Redis may show it: no query, no fragment, no user. */
export function withoutQuery(url: string): string {
  if (!URL.canParse(url)) return '(not a URL)';
  const { origin, pathname } = new URL(url);
  return origin + pathname;
}
