/**
 * Requests that came some way: a caller, proxies with their habits, the edge. Each proxy is played as it behaves, and what
 * the caller really did is known, so that the answer is known without any rule for reading headers.
 */
import fc from 'fast-check';
import type { HeaderLine, RequestFacts } from '../../edge/origin/facts.ts';

export type Way = {
  facts: RequestFacts;
  /** What the outermost trusted proxy saw, or the edge itself: `https://host:port`. */
  truth: string;
  /** Whether the caller added forwarding headers of its own; then a refusal is an answer too. */
  forged: boolean;
};

type Hop = { address: string; trusted: boolean; tls: boolean };

const CALLER = '198.51.100.7';
const names = ['rec.example.com', 'rec.example.com:8443', 'Other.Example.', '[2001:db8::1]:9443'];
/** As the answer has them. */
const answered = (host: string) => host.toLowerCase().replace(/\.$/, '');

/** A request as it travels. */
type Message = { host: string; tls: boolean; from: string; lists: Map<string, string[]>; rest: HeaderLine[] };

/**
 * How all proxies of a way treat the lists: `add` to what comes; or the first `replace`s what the caller sent and the others
 * add; or the first replaces and the others only `pass` on, but for the addresses.
 */
type Habit = 'add' | 'replace' | 'pass';

type Plan = {
  hops: Hop[];
  socketTls: boolean;
  habit: Habit;
  family: 'x' | 'forwarded' | 'both';
  /** Whether proxies put the name of the next one into Host. */
  rewritesHost: boolean;
  /** Whether proxies put what they add to Forwarded in quotes; OpenShift's does not. */
  quotes: boolean;
  host: string;
  forged: Forgery;
  innerPort: boolean;
};

type Forgery = { for: string[]; proto: string[]; host: string[]; port: string[]; forwarded: string | null; rest: HeaderLine[] };

const forgery: fc.Arbitrary<Forgery> = fc.record({
  for: fc.array(fc.constantFrom('127.0.0.1', '10.9.9.9', '203.0.113.66', 'unknown', '::1'), { maxLength: 2 }),
  proto: fc.array(fc.constantFrom('http', 'https', 'gopher', 'HTTP'), { maxLength: 2 }),
  host: fc.array(fc.constantFrom('evil.example', 'evil.example:1', 'a@b', 'rec.example.com'), { maxLength: 2 }),
  port: fc.array(fc.constantFrom('1', '80', '443', '0', 'x'), { maxLength: 2 }),
  forwarded: fc.constantFrom(
    null,
    null,
    'for=10.9.9.9;proto=http;host=evil.example',
    'proto=https',
    'proto=http',
    'host=evil.example',
    'for="',
    'for=10.9.9.9;host="evil.example',
    'for=10.9.9.9',
    'host=evil.example;proto=http;x="',
    'host=evil.example;x="a\\',
    'host=rec.example.com;proto=https',
  ),
  rest: fc.array(
    fc.constantFrom<HeaderLine>(
      ['X-Forwarded-Ssl', 'off'],
      ['Front-End-Https', 'off'],
      ['X_Forwarded_Host', 'evil.example'],
      ['X_Forwarded_Proto', 'http'],
      ['X-Original-Host', 'evil.example'],
      ['X.Forwarded.Host', 'evil.example'],
    ),
    { maxLength: 2 },
  ),
});

const none: Forgery = { for: [], proto: [], host: [], port: [], forwarded: null, rest: [] };

const plan: fc.Arbitrary<Plan> = fc.record({
  hops: fc.array(
    fc.record({ kind: fc.constantFrom('private', 'private', 'private', 'public'), tls: fc.boolean() }),
    { maxLength: 4 },
  ).map((hops) =>
    hops.map(({ kind, tls }, index) => ({
      address: kind === 'private' ? ['10.0.0.1', 'fd00::9', '192.168.7.7', '127.0.0.1'][index] ?? '10.0.0.1' : `203.0.113.${index + 1}`,
      trusted: kind === 'private',
      tls,
    })),
  ),
  socketTls: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  habit: fc.constantFrom('add', 'replace', 'pass'),
  family: fc.constantFrom('x', 'x', 'forwarded', 'both'),
  rewritesHost: fc.boolean(),
  quotes: fc.boolean(),
  host: fc.constantFrom(...names),
  forged: fc.oneof(fc.constant(none), forgery),
  innerPort: fc.boolean(),
});

export const way: fc.Arbitrary<Way> = plan.map(walk);

function walk(given: Plan): Way {
  const { hops, socketTls, family, rewritesHost, quotes, host, innerPort } = given;
  // who passes on single values takes the word of the first: such a way is trusted as a whole or not at all
  const habit = given.habit === 'pass' && !hops.every(({ trusted }) => trusted) ? 'replace' : given.habit;
  const message: Message = {
    host,
    tls: hops[0]?.tls ?? socketTls,
    from: CALLER,
    lists: new Map(Object.entries({ for: [...given.forged.for], proto: [...given.forged.proto], host: [...given.forged.host], port: [...given.forged.port], forwarded: given.forged.forwarded === null ? [] : [given.forged.forwarded] })),
    rest: given.forged.rest,
  };
  const forged = JSON.stringify(given.forged) !== JSON.stringify(none);
  /** What each proxy saw, then the edge. */
  const views: { host: string; tls: boolean }[] = [];

  hops.forEach((hop, index) => {
    views.push({ host: message.host, tls: message.tls });
    const first = index === 0;
    const put = (name: string, value: string, how: Habit) => {
      const list = message.lists.get(name) ?? [];
      if (first && how !== 'add') message.lists.set(name, [value]);
      else if (how === 'add' || how === 'replace') list.push(value);
    };
    const scheme = message.tls ? 'https' : 'http';
    if (family !== 'forwarded') {
      put('for', message.from, habit === 'pass' && !first ? 'add' : habit);
      put('proto', scheme, habit);
      put('host', message.host, habit);
      put('port', message.host.match(/:(\d+)$/)?.[1] ?? (innerPort ? (message.tls ? '80' : '443') : message.tls ? '443' : '80'), habit);
    } else if (first && habit !== 'add') for (const name of ['for', 'proto', 'host', 'port']) message.lists.set(name, []);
    if (family !== 'x') {
      const node = message.from.includes(':') ? `"[${message.from}]"` : message.from;
      // one that passes on adds only the address, which would be an element of its own: it leaves Forwarded alone
      put('forwarded', `for=${node};proto=${scheme};host=${quotes ? `"${message.host}"` : message.host}`, habit);
    } else if (first && habit !== 'add') message.lists.set('forwarded', []);
    message.from = hop.address;
    message.tls = hops[index + 1]?.tls ?? socketTls;
    if (rewritesHost) message.host = `inner-${index}:8080`;
  });
  views.push({ host: message.host, tls: message.tls });

  let outermost = hops.length;
  // who only passes on Forwarded leaves the way's addresses out, and the first proxy's word is the only one
  while (outermost > 0 && hops[outermost - 1]?.trusted === true) outermost -= 1;
  const seen = views[outermost] as (typeof views)[number];
  const tls = views.slice(outermost).some((view) => view.tls) && (habit !== 'pass' || seen.tls || socketTls);

  const headers: HeaderLine[] = [['Host', message.host], ...message.rest];
  const header = (name: string, list: string) => {
    const values = message.lists.get(list) ?? [];
    if (values.length > 0) headers.push([name, values.join(', ')]);
  };
  header('X-Forwarded-For', 'for');
  header('X-Forwarded-Proto', 'proto');
  header('X-Forwarded-Host', 'host');
  header('X-Forwarded-Port', 'port');
  header('Forwarded', 'forwarded');
  return {
    facts: { peer: { address: message.from, encrypted: socketTls }, headers, target: '/v1/recordings', platform: null },
    truth: `${tls ? 'https' : 'http'}://${answered(seen.host)}`,
    forged: forged && hops.length > 0,
  };
}
