import { describe, expect, test } from 'vitest';
import {
  defaultVideoBitrate,
  isEnd,
  newRecordingId,
  recordingId,
  recordingRequest,
  recordingStates,
  transitions,
  type RecordingState,
} from '../../shared/recording.ts';

const url = 'https://example.com/';
const parse = (fields: Record<string, unknown>) => recordingRequest.safeParse({ url, ...fields });
/** What a caller is told, one `path: message` an issue. */
const complaints = (fields: Record<string, unknown>): string[] => {
  const parsed = parse(fields);
  return parsed.success ? [] : parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
};

describe('a request for a recording', () => {
  test('needs a URL only; the rest has defaults', () => {
    expect(recordingRequest.parse({ url })).toEqual({
      url,
      width: 1280,
      height: 720,
      frameRate: 30,
      audio: true,
      audioBitrate: 128_000,
      start: { when: 'load', timeout: 30 },
      priority: 0,
      record: true,
    });
    expect(recordingRequest.safeParse({}).error?.issues[0]?.path).toEqual(['url']);
  });

  test.each<[field: string, fits: unknown[], doesNot: unknown[]]>([
    ['width', [16, 1280, 3840], [14, 3842, 0, -2, 1280.5, '1280', null, Number.NaN, Infinity]],
    ['height', [16, 720, 2160], [14, 2162, 720.5, '720', null]],
    ['frameRate', [1, 29.97, 60], [0, 0.9, 60.1, -30, '30', Infinity]],
    ['maxDuration', [1, 0.5 + 1, 1e6], [0, 0.99, -1, '60', Infinity]],
    ['audio', [true, false], ['true', 1, null]],
    ['videoBitrate', [50_000, 50_000_000], [49_999, 50_000_001, 100_000.5, '1000000']],
    ['audioBitrate', [16_000, 320_000], [15_999, 320_001, 64_000.5]],
    ['priority', [0, 1, 1000], [-1, 1001, 1.5]],
    ['webrtc', ['proxied', 'direct'], ['', 'udp', true]],
    ['startAt', ['2030-01-02T03:04:05Z', '2030-01-02T03:04:05.678+02:00'], ['2030-01-02', '2030-01-02T03:04:05', '2030-13-02T03:04:05Z', 'soon', 0]],
    ['metadata', [{}, { k: '' }, { ['k'.repeat(64)]: 'v'.repeat(1024) }], [{ '': 'v' }, { ['k'.repeat(65)]: 'v' }, { k: 'v'.repeat(1025) }, { k: 1 }, [], 'x']],
    ['start', [{ when: 'load' }, { when: 'signal', timeout: 1 }, { when: 'selector', selector: '#a', timeout: 600 }], [{}, { when: 'later' }, { when: 'selector' }, { when: 'selector', selector: '' }, { when: 'selector', selector: 'x'.repeat(1001) }, { when: 'load', timeout: 0.9 }, { when: 'load', timeout: 601 }, { when: 'load', selector: '#a' }, 'load']],
  ])('%s is taken within its bounds and refused outside them', (field, fits, doesNot) => {
    for (const value of fits) expect(complaints({ [field]: value }), JSON.stringify(value)).toEqual([]);
    for (const value of doesNot) {
      const found = complaints({ [field]: value });
      expect(found.length, JSON.stringify(value)).toBeGreaterThan(0);
      for (const complaint of found) expect(complaint).toMatch(new RegExp(`^${field}\\b`));
    }
  });

  test('an odd size is explained', () => {
    expect(complaints({ width: 1281, height: 719 })).toEqual([
      'width: must be even: H.264 stores colour for blocks of 2 x 2 pixels',
      'height: must be even: H.264 stores colour for blocks of 2 x 2 pixels',
    ]);
  });

  test('everything that is wrong is told at once', () => {
    expect(complaints({ width: 1, frameRate: 0, start: { when: 'selector' } }).map((line) => line.split(':')[0])).toEqual(['width', 'width', 'frameRate', 'start.selector']);
  });

  test('a misspelt field is no silent default', () => {
    for (const fields of [{ framerate: 60 }, { start: { when: 'load', delay: 1 } }, { cookies: [{ name: 'a', value: 'b', domain: 'c' }] }]) {
      const issue = parse(fields).error?.issues[0];
      expect(issue?.code).toBe('unrecognized_keys');
      expect(issue && 'keys' in issue ? issue.keys : []).toEqual([Object.keys('start' in fields ? fields.start : 'cookies' in fields ? (fields.cookies[0] ?? {}) : fields).at(-1)]);
    }
  });

  test.each([
    ['http://127.0.0.1:8000/page?a=b#c', null],
    ['HTTPS://Example.COM', null],
    [`https://example.com/${'a'.repeat(8172)}`, null],
    [`https://example.com/${'a'.repeat(8173)}`, /8192/],
    ['example.com', /absolute/],
    ['/page', /absolute/],
    ['', /absolute/],
    ['https://', /absolute/],
    ['ftp://example.com/', /http or https/],
    ['file:///etc/passwd', /http or https/],
    ['data:text/html,x', /http or https/],
    ['javascript:alert(1)', /http or https/],
    ['chrome://settings', /http or https/],
    ['https://user:word@example.com/', /use `headers`/],
    ['https://user@example.com/', /use `headers`/],
    ['https://:word@example.com/', /use `headers`/],
  ])('the page %#: %s', (page, refused) => {
    const found = complaints({ url: page });
    if (refused === null) expect(found).toEqual([]);
    else {
      expect(found).toHaveLength(1);
      expect(found[0]).toMatch(refused);
      // what the caller gave in a URL may be a password
      expect(found[0]).not.toContain('word@');
    }
  });

  test('headers: names and values that HTTP allows, and none that belong to the connection', () => {
    expect(complaints({ headers: { Authorization: 'Bearer abc', "x-!#$%&'*+.^_`|~9": 'a\tb é', 'x-empty': '' } })).toEqual([]);
    for (const name of ['', 'a b', 'a:b', 'a\nb', 'é', 'x'.repeat(257)]) {
      expect(complaints({ headers: { [name]: 'v' } }), JSON.stringify(name)).toHaveLength(1);
    }
    for (const value of ['a\r\nx-injected: 1', 'a\nb', '\u0000', '\u007f', '日本', 'v'.repeat(8193), 1]) {
      expect(complaints({ headers: { 'x-a': value } })[0], JSON.stringify(value)).toMatch(/^headers\.x-a: /);
    }
    for (const name of ['Host', 'content-length', 'Transfer-Encoding', 'CONNECTION', 'upgrade', 'te', 'Proxy-Authorization', 'expect']) {
      expect(complaints({ headers: { [name]: 'v' } })).toEqual([`headers.${name}: may not be set: it belongs to the connection`]);
    }
    expect(complaints({ headers: { Cookie: 'a=b' } })).toEqual(['headers.Cookie: may not be set: use `cookies`']);
    const many = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`x-${i}`, 'v']));
    expect(complaints({ headers: many(50) })).toEqual([]);
    expect(complaints({ headers: many(51) })).toEqual(['headers: at most 50 headers']);
  });

  test('cookies: what RFC 6265 allows', () => {
    const cookies = (cookie: Record<string, unknown>) => complaints({ cookies: [cookie] });
    expect(cookies({ name: 'session', value: 'aZ09!#$%&()*+-./:<=>?@[]^_`{|}~' })).toEqual([]);
    expect(cookies({ name: 'a', value: '', path: '/app' })).toEqual([]);
    for (const name of ['', 'a b', 'a=b', 'a;b', 'n'.repeat(257)]) expect(cookies({ name, value: 'v' })[0], name).toMatch(/^cookies\.0\.name/);
    for (const value of ['a b', 'a;b', 'a,b', '"a"', 'a\\b', 'é', 'a\r\n', 'v'.repeat(4097)]) expect(cookies({ name: 'n', value })[0], value).toMatch(/^cookies\.0\.value/);
    for (const path of ['', 'app', `/${'p'.repeat(1024)}`]) expect(cookies({ name: 'n', value: 'v', path })[0], path).toMatch(/^cookies\.0\.path/);
    const one = { name: 'n', value: 'v' };
    expect(complaints({ cookies: Array.from({ length: 100 }, () => one) })).toEqual([]);
    expect(complaints({ cookies: Array.from({ length: 101 }, () => one) })).toHaveLength(1);
  });

  test('metadata: twenty pairs', () => {
    const pairs = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, 'v']));
    expect(complaints({ metadata: pairs(20) })).toEqual([]);
    expect(complaints({ metadata: pairs(21) })).toEqual(['metadata: at most 20 pairs']);
  });

  test('the default bitrate follows the picture, within what can be asked for', () => {
    expect(defaultVideoBitrate({ width: 1280, height: 720, frameRate: 30 })).toBe(3_041_000);
    for (const [width, height, frameRate] of [[16, 16, 1], [1920, 1080, 60], [3840, 2160, 60]] as const) {
      expect(complaints({ videoBitrate: defaultVideoBitrate({ width, height, frameRate }) })).toEqual([]);
    }
  });
});

describe('the states of a recording', () => {
  const reachable = (from: RecordingState): Set<RecordingState> => {
    const seen = new Set<RecordingState>([from]);
    for (const state of seen) for (const next of transitions[state]) seen.add(next);
    return seen;
  };

  test('all lead from queued to an end, and out of an end leads nothing', () => {
    expect(Object.keys(transitions).sort()).toEqual([...recordingStates].sort());
    expect([...reachable('queued')].sort()).toEqual([...recordingStates].sort());
    expect(recordingStates.filter(isEnd)).toEqual(['completed', 'failed', 'canceled']);
    for (const state of recordingStates) {
      if (isEnd(state)) expect(transitions[state]).toEqual([]);
      // whatever happens, it can be said to have failed, and be taken back
      else expect(transitions[state]).toEqual(expect.arrayContaining(['failed', 'canceled']));
    }
  });

  test('nothing completes without having been recorded and finished', () => {
    expect(recordingStates.filter((state) => transitions[state].includes('completed'))).toEqual(['finishing']);
    expect(recordingStates.filter((state) => transitions[state].includes('recording'))).toEqual(['starting', 'paused']);
    expect([...reachable('finishing')].sort()).toEqual(['canceled', 'completed', 'failed', 'finishing']);
    expect(recordingStates.filter((state) => transitions[state].includes('queued'))).toEqual([]);
  });
});

describe('ids', () => {
  test('sort as they were created, over years', () => {
    const times = [0, 1, 31, 32, 1023, 1e12, 1_753_900_000_000, 1_753_900_000_001, 4e12, 2 ** 48 - 1];
    const ids = times.map((time) => newRecordingId(time));
    expect(ids.toSorted()).toEqual(ids);
    for (const id of ids) expect(recordingId.safeParse(id).success, id).toBe(true);
  });

  test('differ within one millisecond', () => {
    expect(new Set(Array.from({ length: 10_000 }, () => newRecordingId(1_753_900_000_000))).size).toBe(10_000);
  });

  test.each(['', 'rec_', 'rec_0123456789', `rec_${'i'.repeat(26)}`, `rec_${'A'.repeat(26)}`, `rec_${'0'.repeat(27)}`, `rec_${'0'.repeat(26)}\n`, `x rec_${'0'.repeat(26)}`, `rec_${'0'.repeat(24)}/.`])(
    '%j is none',
    (text) => {
      expect(recordingId.safeParse(text).success).toBe(false);
    },
  );
});
