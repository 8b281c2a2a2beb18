/** `npm run bench:origin`: what finding the origin costs a request, against two ways that read less of it. */
import type { HeaderLine, RequestFacts } from '../../edge/origin/facts.ts';
import { originPolicy } from '../../edge/origin/policy.ts';
import { OriginError } from '../../edge/origin/refusal.ts';
import { resolveOrigin } from '../../edge/origin/resolve.ts';
import { parseTrust } from '../../edge/origin/trust.ts';

/** What clients send with any request. */
const usual: HeaderLine[] = [
  ['Host', 'rec.example.com'],
  ['User-Agent', 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36'],
  ['Accept', 'application/json, text/plain, */*'],
  ['Accept-Encoding', 'gzip, deflate, br, zstd'],
  ['Accept-Language', 'en-GB,en;q=0.9'],
  ['Authorization', 'Bearer 0123456789abcdef0123456789abcdef'],
  ['Content-Type', 'application/json'],
  ['Content-Length', '128'],
  ['Origin', 'https://rec.example.com'],
  ['Cookie', 'session=0123456789abcdef'],
];

const cases: Record<string, { headers: HeaderLine[]; address?: string }> = {
  'no proxy': { headers: usual, address: '203.0.113.9' },
  'ingress-nginx': {
    headers: [
      ...usual,
      ['X-Request-ID', '0123456789abcdef0123456789abcdef'],
      ['X-Real-IP', '198.51.100.7'],
      ['X-Forwarded-For', '198.51.100.7'],
      ['X-Forwarded-Host', 'rec.example.com'],
      ['X-Forwarded-Port', '443'],
      ['X-Forwarded-Proto', 'https'],
      ['X-Forwarded-Scheme', 'https'],
      ['X-Scheme', 'https'],
    ],
  },
  'a CDN, a balancer and an ingress': {
    headers: [
      ...usual,
      ['X-Forwarded-For', '198.51.100.7, 10.0.0.9, 10.0.7.7'],
      ['X-Forwarded-Host', 'rec.example.com, rec.example.com, rec.example.com'],
      ['X-Forwarded-Proto', 'https, https, http'],
      ['X-Forwarded-Port', '443'],
    ],
  },
  'OpenShift’s router, both families': {
    headers: [
      ...usual,
      ['X-Forwarded-For', '198.51.100.7'],
      ['X-Forwarded-Host', 'rec.example.com'],
      ['X-Forwarded-Port', '443'],
      ['X-Forwarded-Proto', 'https'],
      ['Forwarded', 'for=198.51.100.7;host=rec.example.com;proto=https'],
    ],
  },
  'Forwarded over IPv6': { headers: [...usual, ['Forwarded', 'for="[2001:db8::7]:4711";host="rec.example.com:8443";proto=https, for="[fd00::9]";host=inner;proto=http']], address: 'fd00::1' },
  'a forged Host, refused': { headers: [...usual.slice(1), ['Host', 'a@b'], ['X-Forwarded-Proto', 'https']] },
};

const policy = originPolicy({
  publicUrl: null,
  mediaUrl: null,
  trust: parseTrust(['loopback', 'private']),
  allowedHosts: ['rec.example.com', '*.example.com'],
  wsScheme: 'auto',
  allowInsecureWs: false,
});

let sink = 0;
const ours = (facts: RequestFacts) => {
  try {
    sink += resolveOrigin(facts, policy).host.length;
  } catch (error) {
    if (!(error instanceof OriginError)) throw error;
    sink += 1;
  }
};
/** What a framework's request.url is made of: the socket's scheme and Host, of the first line that has that name. */
const framework = ({ headers, target, peer }: RequestFacts) => {
  const host = headers.find(([name]) => name.toLowerCase() === 'host')?.[1];
  try {
    sink += new URL(`${peer.encrypted ? 'https' : 'http'}://${host}${target}`).hostname.length;
  } catch {
    sink += 1;
  }
};
/** As Express has it with trust proxy: the first of X-Forwarded-Proto and of X-Forwarded-Host, unchecked. */
const express = (facts: RequestFacts) => {
  const first = (wanted: string) => facts.headers.find(([name]) => name.toLowerCase() === wanted)?.[1].split(',')[0]?.trim();
  const proto = first('x-forwarded-proto') ?? (facts.peer.encrypted ? 'https' : 'http');
  try {
    sink += new URL(`${proto}://${first('x-forwarded-host') ?? first('host')}${facts.target}`).hostname.length;
  } catch {
    sink += 1;
  }
};

const ROUND_MS = 150;
const ROUNDS = 9;

/** Nanoseconds of one call. */
function round(way: (facts: RequestFacts) => void, facts: RequestFacts): number {
  let calls = 0;
  const begin = process.hrtime.bigint();
  const until = begin + BigInt(ROUND_MS * 1e6);
  let now = begin;
  while (now < until) {
    for (let i = 0; i < 200; i++) way(facts);
    calls += 200;
    now = process.hrtime.bigint();
  }
  return Number(now - begin) / calls;
}

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

console.log('| request | ours, ns | against the framework’s URL | against Express’s first value |');
console.log('| --- | --- | --- | --- |');
for (const [name, { headers, address = '10.1.2.3' }] of Object.entries(cases)) {
  const facts: RequestFacts = { peer: { address, encrypted: false }, headers, target: '/v1/recordings', platform: null };
  const times = { ours: [] as number[], framework: [] as number[], express: [] as number[] };
  // the first of each is for the compiler
  for (let i = 0; i <= ROUNDS; i++) {
    for (const [key, way] of [['ours', ours], ['framework', framework], ['express', express]] as const) {
      const time = round(way, facts);
      if (i > 0) times[key].push(time);
    }
  }
  const own = median(times.ours);
  console.log(`| ${name} | ${own.toFixed(0)} | ${(own / median(times.framework)).toFixed(1)} | ${(own / median(times.express)).toFixed(1)} |`);
}
if (sink === 0) throw new Error('nothing was measured');
