import { describe, expect, test } from 'vitest';
import { TabreelError } from '../../shared/errors.ts';
import { createLog, logLevels, withoutQuery, type LogLevel } from '../../shared/log.ts';

const logAt = (level: LogLevel) => {
  const lines: string[] = [];
  return { log: createLog(level, (line) => lines.push(line)), lines, entries: () => lines.map((line) => JSON.parse(line) as Record<string, any>) };
};

describe('the log', () => {
  test.each(logLevels)('at %s says that and what is graver', (level) => {
    const { log, entries } = logAt(level);
    for (const each of logLevels) log[each](`${each}_happened`);
    expect(entries().map((entry) => entry['level'])).toEqual(logLevels.slice(logLevels.indexOf(level)));
  });

  test('is one JSON line an event, whatever is in it', () => {
    const { log, lines, entries } = logAt('info');
    log.info('page_opened', { page: 'https://example.com/', note: 'two\nlines  "quoted"', size: [1, 2], nothing: null, missing: undefined });
    expect(lines).toHaveLength(1);
    expect(lines[0]).not.toContain('\n');
    const [entry] = entries();
    expect(entry).toEqual({ time: expect.any(String), level: 'info', event: 'page_opened', page: 'https://example.com/', note: 'two\nlines  "quoted"', size: [1, 2], nothing: null });
    expect(Math.abs(Date.parse(entry?.['time'] as string) - Date.now())).toBeLessThan(10_000);
  });

  test('carries what it was given on every line, and the lines of others stay as they were', () => {
    const { log, entries } = logAt('debug');
    const recording = log.with({ recording: 'rec_1' });
    const attempt = recording.with({ attempt: 2 });
    attempt.warn('a', { attempt: 3 });
    recording.debug('b');
    log.error('c');
    expect(entries().map(({ time: _time, level: _level, ...rest }) => rest)).toEqual([{ event: 'a', recording: 'rec_1', attempt: 3 }, { event: 'b', recording: 'rec_1' }, { event: 'c' }]);
  });

  test('an error is told with its code and the causes behind it, and nothing else of it', () => {
    const { log, entries } = logAt('info');
    const socket = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED', headers: { authorization: 'Bearer tops3cret' } });
    const error = new TabreelError('media_unreachable', 'the ingest does not answer', { cause: new Error('fetch failed', { cause: socket }) });
    log.error('recording_failed', { error, all: [new Error('one')] });
    expect(entries()[0]?.['error']).toEqual({
      message: 'the ingest does not answer',
      code: 'media_unreachable',
      cause: { message: 'fetch failed', cause: { message: 'connect ECONNREFUSED', code: 'ECONNREFUSED' } },
    });
    expect(entries()[0]?.['all']).toEqual([{ message: 'one' }]);
    expect(JSON.stringify(entries())).not.toContain('tops3cret');
  });

  test.each([
    ['net::ERR_CONNECTION_REFUSED at https://a.test/x?token=tops3cret', 'net::ERR_CONNECTION_REFUSED at https://a.test/x'],
    ['GET http://u:tops3cret@a.test:8080/x#k=tops3cret failed: "wss://a.test/?a=tops3cret&b=(tops3cret)", twice', 'GET http://a.test:8080/x failed: "wss://a.test/", twice'],
    ['is it at https://a.test/x@y, or not?', 'is it at https://a.test/x@y, or not?'],
  ])('%s is told without the query of a URL, and without a password', (text, told) => {
    const { log, entries } = logAt('info');
    log.info('a', { text, error: new Error(text, { cause: new Error(text) }), deep: [{ text }] });
    log.with({ text }).info('b');
    expect(entries()).toMatchObject([{ text: told, error: { message: told, cause: { message: told } }, deep: [{ text: told }] }, { text: told }]);
  });
});

test.each([
  ['https://user:word@shop.example:8443/cart/1?token=abc#top', 'https://shop.example:8443/cart/1'],
  ['http://shop.example', 'http://shop.example/'],
  ['https://shop.example/?', 'https://shop.example/'],
  ['wss://rec.example/v1/recordings/x/media?token=abc', 'wss://rec.example/v1/recordings/x/media'],
  ['shop.example/?token=abc', '(not a URL)'],
  ['', '(not a URL)'],
])('%s is shown without what may be secret', (url, shown) => {
  expect(withoutQuery(url)).toBe(shown);
});
