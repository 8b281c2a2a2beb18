/**
 * `npm run bench:keys`: whether the time of a refusal tells anything. Medians of 10,000 calls each, taken in turns, so that what else the
 * machine does falls on all alike: looking a key up that stands first, last or nowhere; reading a recording that is another's
 * or none, and with wrong keys.
 */
import { Agent, request } from 'node:http';
import { keyRing, newApiKey } from '../../edge/access/keys.ts';
import { newRecordingId } from '../../shared/recording.ts';
import { testEdge } from '../edge/harness.ts';
import { keySetting, testKey, type TestKey } from '../helpers/keys.ts';
import { startRedis } from '../helpers/redis.ts';

const CALLS = 10_000;
const KEYS = 100;

const median = (values: Float64Array): number => values.toSorted()[Math.floor(values.length / 2)] ?? 0;

/** Microseconds, in an order that is drawn anew each round. */
async function compare(name: string, calls: Record<string, () => Promise<unknown>>): Promise<void> {
  const names = Object.keys(calls);
  const times = new Map(names.map((each) => [each, new Float64Array(CALLS)]));
  for (let i = -500; i < CALLS; i += 1) {
    for (const each of names.map((one) => [Math.random(), one] as const).sort(([a], [b]) => a - b)) {
      const begin = performance.now();
      await calls[each[1]]?.();
      const time = (performance.now() - begin) * 1000;
      if (i >= 0) (times.get(each[1]) as Float64Array)[i] = time;
    }
  }
  const medians = [...times].map(([each, values]) => [each, median(values)] as const);
  const [, first] = medians[0] as readonly [string, number];
  console.log(`\n${name} (median of ${CALLS} calls)`);
  for (const [each, time] of medians) console.log(`  ${each.padEnd(40)} ${time.toFixed(1).padStart(8)} us  ${((time / first - 1) * 100).toFixed(1).padStart(6)} %`);
  const all = medians.map(([, time]) => time);
  console.log(`  apart at most ${((Math.max(...all) / Math.min(...all) - 1) * 100).toFixed(1)} %`);
}

const many = await Promise.all(Array.from({ length: KEYS }, (_, i) => testKey(`k${i}`, ['record', 'read'])));
const [first, last] = [many[0] as TestKey, many.at(-1) as TestKey];
const ring = keyRing(many.map(({ entry }) => entry));
await compare(`a key among ${KEYS}`, {
  'the first': () => ring.find(first.key),
  'the last': () => ring.find(last.key),
  'none, as long': (() => {
    const key = newApiKey();
    return () => ring.find(key);
  })(),
  'none, but for its last letter': () => ring.find(`${first.key.slice(0, -1)}${first.key.endsWith('a') ? 'b' : 'a'}`),
});

await using redis = await startRedis();
await using edge = await testEdge(redis, { apiKeys: keySetting(...many) });
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const ask = (id: string, key: string, expected: number, path = '') =>
  new Promise<void>((resolve, reject) => {
    request(`${edge.url}/v1/recordings/${id}${path}`, { agent, headers: { authorization: `Bearer ${key}` } }, (answer) => {
      if (answer.statusCode !== expected) reject(new Error(`${answer.statusCode}, not ${expected}`));
      answer.resume().on('end', resolve);
    })
      .on('error', reject)
      .end();
  });
const made = (await edge.post({ url: 'https://example.com/', metadata: { note: 'x'.repeat(1000) } }, first.headers)).body.id as string;
const none = newRecordingId();
await compare('GET of a recording', {
  'that is none': () => ask(none, last.key, 404),
  "that is another's": () => ask(made, last.key, 404),
});
await compare('GET of a file', {
  'of no recording': () => ask(none, last.key, 404, '/recording.mp4'),
  "of another's": () => ask(made, last.key, 404, '/recording.mp4'),
});
const wrong = newApiKey();
await compare('GET with a wrong key', {
  'of no recording': () => ask(none, wrong, 401),
  'of one that is there': () => ask(made, wrong, 401),
  'that differs in its last letter': () => ask(made, `${first.key.slice(0, -1)}${first.key.endsWith('a') ? 'b' : 'a'}`, 401),
});
agent.destroy();
