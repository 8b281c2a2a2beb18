import { describe, expect, test } from 'vitest';
import { closeCodes, decodePart, encodePart, ingestMessage, type PartHeader } from '../../shared/media-protocol.ts';

const message = (header: unknown, payload: Uint8Array = new Uint8Array()): Buffer => {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(json.length);
  return Buffer.concat([length, json, payload]);
};
const segment: PartHeader = { type: 'segment', seq: 2, start: 0, duration: 2_000_000, frames: 60 };

describe('a part on the wire', () => {
  test.each<PartHeader>([
    { type: 'init', seq: 1 },
    segment,
    { type: 'segment', seq: 2 ** 40, start: 604_800_000_000, duration: 1, frames: 1 },
    { type: 'thumbnail', seq: 3 },
    { type: 'end', seq: 4, duration: 0 },
  ])('$type comes out as it went in', (header) => {
    const payload = crypto.getRandomValues(new Uint8Array(1000));
    expect(decodePart(Buffer.concat(encodePart({ header, payload })))).toEqual({ header, payload: Buffer.from(payload) });
  });

  test('is not copied on the way, and may lie anywhere in a pooled buffer', () => {
    const payload = new Uint8Array([1, 2, 3]);
    expect(encodePart({ header: segment, payload }).at(-1)).toBe(payload);
    const pool = Buffer.concat([Buffer.from('of another message'), message(segment, payload), Buffer.from('and the next')]);
    const view = pool.subarray(18, pool.length - 12);
    const decoded = decodePart(view);
    expect([...decoded.payload]).toEqual([1, 2, 3]);
    expect(decoded.payload.buffer).toBe(pool.buffer);
  });

  test.each<[what: string, message: Uint8Array, told: RegExp]>([
    ['nothing', Buffer.alloc(0), /at least 4 bytes/],
    ['half a length', Buffer.from([0, 0, 0]), /at least 4 bytes/],
    ['a length beyond the message', Buffer.from([0, 0, 0, 9, 123]), /length of 9 does not fit/],
    ['a length that is absurd', Buffer.concat([Buffer.from([0xff, 0xff, 0xff, 0xff]), Buffer.alloc(100)]), /length of 4294967295 does not fit/],
    ['a header that is long on purpose', message(`{"type":"init","seq":1,"x":"${'x'.repeat(5000)}"}`), /does not fit/],
    ['an empty header', message(''), /not JSON/],
    ['half a header', message('{"type":"init"'), /not JSON/],
    ['no UTF-8', Buffer.from([0, 0, 0, 2, 0xc3, 0x28]), /not JSON/],
    ['a list', message([]), /not valid at its root|not valid at type/],
    ['an unknown type', message({ type: 'subtitle', seq: 1 }), /not valid at type/],
    ['no number', message({ type: 'init' }), /not valid at seq/],
    ['the number 0', message({ type: 'init', seq: 0 }), /not valid at seq/],
    ['half a number', message({ ...segment, seq: 1.5 }), /not valid at seq/],
    ['a segment before the beginning', message({ ...segment, start: -1 }), /not valid at start/],
    ['a segment of no duration', message({ ...segment, duration: 0 }), /not valid at duration/],
    ['a segment without pictures', message({ ...segment, frames: 0 }), /not valid at frames/],
    ['an end that does not say when', message({ type: 'end', seq: 3 }), /not valid at duration/],
    ['a field of nobody', message({ type: 'thumbnail', seq: 3, path: '../x' }), /not valid at its root/],
  ])('with %s is refused, and the sender told why', (_what, bytes, told) => {
    expect(() => decodePart(bytes)).toThrow(TypeError);
    expect(() => decodePart(bytes)).toThrow(told);
  });
});

test("the ingest's messages are read by what they are", () => {
  expect(ingestMessage.parse(JSON.parse('{"type":"welcome","acked":0}'))).toEqual({ type: 'welcome', acked: 0 });
  // a later ingest may say more: a worker goes on
  expect(ingestMessage.parse({ type: 'ack', seq: 7, at: 1 })).toEqual({ type: 'ack', seq: 7 });
  expect(ingestMessage.parse({ type: 'welcome', acked: 3, token: 't' })).toEqual({ type: 'welcome', acked: 3, token: 't' });
  expect(ingestMessage.parse({ type: 'token', token: 't' })).toEqual({ type: 'token', token: 't' });
  for (const wrong of [{ type: 'token' }, { type: 'ack', seq: 0 }, { type: 'ack' }, { type: 'welcome', acked: -1 }, { type: 'hello' }, null]) {
    expect(ingestMessage.safeParse(wrong).success, JSON.stringify(wrong)).toBe(false);
  }
});

test('every close code is its own, and one that an endpoint may send', () => {
  const codes = Object.values(closeCodes).map(({ code }) => code);
  expect(new Set(codes).size).toBe(codes.length);
  // RFC 6455, 7.4: others are reserved, and ws throws on them
  for (const code of codes) expect([1000, 1001, 1011].includes(code) || (code >= 4000 && code < 5000), String(code)).toBe(true);
});
