import { describe, expect, test } from 'vitest';
import { asTabreelError, errorKinds, TabreelError, type ErrorCode } from '../../shared/errors.ts';
import { recordingError } from '../../shared/recording.ts';

describe('an error', () => {
  test('says in a recording what happened, whose fault it is and whether trying again helps', () => {
    const error = new TabreelError('target_dns', 'shop.example does not resolve', { cause: new Error('ENOTFOUND') });
    const told = error.toRecordingError();
    expect(told).toEqual({ code: 'target_dns', message: 'shop.example does not resolve', blame: 'target', retryable: false });
    expect(recordingError.parse(JSON.parse(JSON.stringify(told)))).toEqual(told);
    // the cause is for the log
    expect(error.cause).toEqual(new Error('ENOTFOUND'));
    expect(error).toBeInstanceOf(Error);
    expect(String(error)).toBe('TabreelError: shop.example does not resolve');
    expect('cause' in new TabreelError('internal', 'x')).toBe(false);
  });

  test('keeps its code on the way up; anything else that was thrown gets one', () => {
    const known = new TabreelError('page_crashed', 'gone');
    expect(asTabreelError(known, 'internal')).toBe(known);
    const unknown = new RangeError('out of it');
    const wrapped = asTabreelError(unknown, 'encoder_failed');
    expect(wrapped).toMatchObject({ code: 'encoder_failed', message: 'out of it', cause: unknown, issues: [] });
    expect(asTabreelError('just text')).toMatchObject({ code: 'internal', message: 'just text' });
    expect(asTabreelError(undefined)).toMatchObject({ code: 'internal', message: 'undefined' });
  });
});

describe('the kinds of errors', () => {
  const kinds = Object.entries(errorKinds) as [ErrorCode, TabreelError['kind']][];

  test('an HTTP status blames who is to blame: 4xx the caller, 5xx us, 421 whoever runs the service, and a page that went elsewhere itself', () => {
    for (const [code, { blame, status, title }] of kinds) {
      expect(title, code).toMatch(/^[A-Z].*[^.]$/);
      if (status === undefined) continue;
      expect(status, code).toBeGreaterThanOrEqual(400);
      expect(blame, code).toBe(code === 'page_navigated' ? 'target' : status < 500 && status !== 421 ? 'caller' : 'service');
    }
  });

  test('what a page does wrong is not ours, and what breaks in here is not the page', () => {
    for (const [code, { blame, status }] of kinds) {
      // an answer to whoever would run a script is about his request
      if (/^(target|page)_/.test(code) && status === undefined) expect(blame, code).toBe('target');
      if (/^(browser|capture|encoder|media|worker|redis|storage)_/.test(code)) expect(blame, code).toBe('service');
    }
  });
});
