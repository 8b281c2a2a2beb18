/** `tabreel doctor` against real edges, and real proxies that are set up wrong in all the usual ways. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { examine, type DoctorReport } from '../../bin/doctor.ts';
import { follow } from '../../bin/doctor/follow.ts';
import { plain } from '../../bin/doctor/link.ts';
import { testEdge, type TestEdge } from '../edge/harness.ts';
import { createAuthority, type Authority } from '../helpers/certificates.ts';
import { operator } from '../helpers/keys.ts';
import { hasRedisServer, realRedis, startRedis, type TestRedis } from '../helpers/redis.ts';
import { lacks } from '../helpers/service.ts';
import { freePorts, listens, runProcess, type RunningProcess } from '../proxies/proxy.ts';

const program = fileURLToPath(new URL('../../bin/tabreel.ts', import.meta.url));

let redis: TestRedis;
let edge: TestEdge;
beforeAll(async () => {
  redis = await startRedis();
  edge = await testEdge(redis, {}, { keyed: true });
});
afterAll(async () => {
  await edge?.[Symbol.asyncDispose]();
  await redis?.[Symbol.asyncDispose]();
});

const look = (url: string, ca: string | null = null, timeout = 5000): Promise<DoctorReport> =>
  examine({ url, ca, record: false, page: null, keep: false, key: null }, { signal: new AbortController().signal, tell: () => undefined, say: () => undefined, timeout });
/** `tls: fail` and so on. */
const marksOf = ({ links }: DoctorReport) => Object.fromEntries(links.map(({ name, mark }) => [name, mark]));
const linkOf = ({ links }: DoctorReport, name: string) => {
  const found = links.find((link) => link.name === name);
  if (found === undefined) throw new Error(`there is no link ${name}`);
  return { ...found, text: [found.detail, ...found.notes, ...found.advice].join('\n') };
};

type Run = { code: number | null; out: string; err: string };

/** As it is typed. */
async function doctor(args: readonly string[], interruptAt?: RegExp): Promise<Run> {
  const child = spawn(process.execPath, [program, 'doctor', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { out: '', err: '' };
  child.stderr.on('data', (chunk: Buffer) => (said.err += chunk.toString()));
  child.stdout.on('data', (chunk: Buffer) => {
    said.out += chunk.toString();
    if (interruptAt?.test(said.out)) child.kill('SIGINT');
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, ...said };
}

describe('a deployment that is well', () => {
  test('every link holds, and the exit code is 0', async () => {
    const { code, out, err } = await doctor([edge.url]);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toMatch(/^ok {4}dns /);
    for (const name of ['tcp', 'health', 'ready', 'origin', 'upgrade']) expect(out).toMatch(new RegExp(`^ok    ${name} `, 'm'));
    expect(out).toContain(`the edge sees ${edge.url}, media goes to ${edge.url.replace('http', 'ws')}`);
    expect(out).toMatch(/upgrade +.*\(401 unauthorized/);
    expect(out.trim().split('\n').at(-1)).toBe('All links hold');
  });

  test('--json prints one document that says the same', async () => {
    const { code, out, err } = await doctor([edge.url, '--json']);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const report = JSON.parse(out) as DoctorReport;
    expect(report).toMatchObject({ url: edge.url, ok: true, origin: { scheme: 'http', host: '127.0.0.1', trusted: true }, recording: null });
    expect(marksOf(report)).toEqual({ dns: 'ok', tcp: 'ok', health: 'ok', ready: 'ok', origin: 'ok', upgrade: 'ok' });
  });
});

test('the page that a trial records loads nothing from elsewhere, and is the same for everybody', async () => {
  const page = await edge.api('/doctor/page?x=%3Cscript%3Ealert(1)%3C/script%3E');
  expect(page.status).toBe(200);
  expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8');
  expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self';/);
  expect(page.body).toBe((await edge.api('/doctor/page', { headers: { 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https' } })).body);
  const sources = [...String(page.body).matchAll(/(?:src|href)="([^"]*)"/g)].map(([, source]) => source ?? '');
  expect(sources).toEqual(['page.css', 'page.js']);
  for (const source of sources) expect((await edge.api(`/doctor/${source}`)).status).toBe(200);
  expect((await edge.api('/doctor/page', { method: 'POST' })).status).toBe(405);
});

describe('a deployment that is not well', () => {
  test('nothing listens there', async () => {
    const [port = 0] = await freePorts(1);
    const report = await look(`https://127.0.0.1:${port}`);
    expect(report.ok).toBe(false);
    expect(marksOf(report)).toEqual({ dns: 'ok', tcp: 'fail', tls: 'skipped', health: 'skipped', ready: 'skipped', origin: 'skipped', upgrade: 'skipped' });
    expect(linkOf(report, 'tcp').text).toMatch(/ECONNREFUSED[\s\S]*listening on port/);
  });

  test('a name that does not resolve', async () => {
    const report = await look('http://no-such-host.invalid');
    expect(marksOf(report)).toMatchObject({ dns: 'fail', tcp: 'skipped', upgrade: 'skipped' });
    expect(linkOf(report, 'dns').detail).toMatch(/^no-such-host\.invalid: .*(ENOTFOUND|EAI_AGAIN)/);
  });

  test('what takes connections and never answers costs the time limit, not more', async () => {
    const server = createServer(() => undefined).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const began = Date.now();
    const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const reports = await Promise.all([look(`http://${address}`, null, 500), look(`https://${address}`, null, 500)]);
    expect(Date.now() - began).toBeLessThan(15_000);
    expect(marksOf(reports[0])).toMatchObject({ tcp: 'ok', health: 'fail', ready: 'skipped' });
    expect(marksOf(reports[1])).toMatchObject({ tcp: 'ok', tls: 'fail', health: 'fail' });
    expect(linkOf(reports[1], 'tls').detail).toContain('ETIMEDOUT');
  });

  test('https asked of a port for plain http', async () => {
    const report = await look(edge.url.replace('http', 'https'));
    expect(marksOf(report)).toMatchObject({ tcp: 'ok', tls: 'fail', health: 'fail' });
    expect(linkOf(report, 'tls').text).toMatch(/does not speak TLS[\s\S]*plain http/);
  });

  test.skipIf(!hasRedisServer)('Redis is down', async () => {
    await using own = await realRedis();
    await own.start();
    await using broken = await testEdge(own, {}, {});
    await own.kill();
    const report = await look(broken.url);
    expect(marksOf(report)).toMatchObject({ health: 'ok', ready: 'fail' });
    expect(linkOf(report, 'ready').text).toMatch(/redis FAILS[\s\S]*REDIS_URL/);
  });

  test('no worker shares a machine that was asked by its loopback', async () => {
    await using alone = await testEdge(redis, {}, { workerPresent: false });
    const report = await look(alone.url);
    expect(marksOf(report)).toMatchObject({ ready: 'ok', origin: 'fail', upgrade: 'ok' });
    expect(linkOf(report, 'origin').text).toMatch(/421 origin_loopback[\s\S]*PUBLIC_URL[\s\S]*MEDIA_URL/);
  });

  test('MEDIA_URL leads nowhere', async () => {
    const [port = 0] = await freePorts(1);
    await using elsewhere = await testEdge(redis, { mediaUrl: `ws://127.0.0.1:${port}` });
    const report = await look(elsewhere.url);
    expect(marksOf(report)).toMatchObject({ origin: 'ok', upgrade: 'fail' });
    expect(linkOf(report, 'upgrade').text).toMatch(/ECONNREFUSED[\s\S]*MEDIA_URL/);
  });

  test('PUBLIC_URL says something else', async () => {
    await using named = await testEdge(redis, { publicUrl: 'https://rec.example.com/tab' });
    const report = await look(named.url);
    expect(marksOf(report)).toMatchObject({ origin: 'fail' });
    expect(linkOf(report, 'origin').text).toMatch(/believes it is https:\/\/rec\.example\.com\/tab[\s\S]*PUBLIC_URL says so/);
  });

  test('Ctrl-C ends it at once', async () => {
    const server = createServer(() => undefined).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const began = Date.now();
    const { code, err } = await doctor([`http://127.0.0.1:${(server.address() as AddressInfo).port}`], /tcp/);
    expect({ code, err }).toEqual({ code: 130, err: 'tabreel: interrupted\n' });
    expect(Date.now() - began).toBeLessThan(15_000);
  });
});

const sites = ['good', 'proto', 'upgrade', 'expired', 'name', 'port', 'host', 'prefix', 'upstream', 'login', 'cut', 'held', 'redirect'] as const;
type Site = (typeof sites)[number];

describe.skipIf(await lacks('nginx', 'openssl')).concurrent('behind an nginx', () => {
  let authority: Authority;
  let directory: string;
  let nginx: RunningProcess | undefined;
  let ports: Record<Site, number>;
  const at = (site: Site, path = '') => look(`https://127.0.0.1:${ports[site]}${path}`, authority.caPath);

  beforeAll(async () => {
    authority = await createAuthority('doctor authority');
    directory = mkdtempSync(join(tmpdir(), 'tabreel-doctor-'));
    const [leaf, expired, other] = await Promise.all([
      authority.issue(['127.0.0.1']),
      authority.issue(['127.0.0.1'], { expired: true }),
      authority.issue(['other.example.com']),
    ]);
    const free = await freePorts(sites.length + 1);
    ports = Object.fromEntries(sites.map((site, i) => [site, free[i]])) as typeof ports;
    const dead = free.at(-1);
    const headers = {
      host: 'proxy_set_header Host $http_host;',
      proto: 'proxy_set_header X-Forwarded-Proto $scheme;',
      upgrade: 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $way;',
    };
    const all = Object.values(headers).join('\n');
    const pass = `proxy_pass ${edge.url};`;
    const site = (name: Site, body: string, certificate = leaf) => `server {
      listen 127.0.0.1:${ports[name]} ssl;
      ssl_certificate ${certificate.certPath};
      ssl_certificate_key ${certificate.keyPath};
      ${body}
    }`;
    const root = (body: string) => `location / { ${body} }`;
    await mkdir(join(directory, 'logs'), { recursive: true });
    await writeFile(
      join(directory, 'nginx.conf'),
      `daemon off;
${process.getuid?.() === 0 ? 'user root;' : ''}
worker_processes 1;
pid ${directory}/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${directory}/${kind};`).join('\n')}
  map $http_upgrade $way { default upgrade; '' close; }
  ${site('good', root(`${pass}${all}`))}
  ${site('proto', root(`${pass}${headers.host}${headers.upgrade}`))}
  ${site('upgrade', root(`${pass}${headers.host}${headers.proto}`))}
  ${site('expired', root(`${pass}${all}`), expired)}
  ${site('name', root(`${pass}${all}`), other)}
  ${site('port', root(`${pass}${all.replace('$http_host', '$host')}`))}
  ${site('host', root(`${pass}${headers.proto}${headers.upgrade}proxy_set_header Host 127.0.0.2:${ports.host};`))}
  ${site('prefix', `location /rec/ { proxy_pass ${edge.url}/; ${all} } location /kept/ { ${pass} ${all} }`)}
  ${site('upstream', root(`proxy_pass http://127.0.0.1:${dead};${all}`))}
  ${site('login', root('return 401;'))}
  ${site('cut', `${root(`${pass}${all}`)} location ~ /events$ { ${pass} ${all} proxy_read_timeout 400ms; }`)}
  ${site('held', root(`${pass}${all} proxy_ignore_headers X-Accel-Buffering; proxy_buffers 8 64k; proxy_buffer_size 64k;`))}
  ${site('redirect', root('return 302 https://login.example.com/sign-in?state=a-secret;'))}
}
`,
    );
    nginx = runProcess(['nginx', '-p', directory, '-c', 'nginx.conf', '-e', 'stderr']);
    await listens(ports.redirect, '127.0.0.1', [nginx]);
  });
  afterAll(async () => {
    await nginx?.[Symbol.asyncDispose]();
    await authority?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });

  test('that is set up right every link holds, TLS among them', async () => {
    const report = await at('good');
    expect(marksOf(report)).toEqual({ dns: 'ok', tcp: 'ok', tls: 'ok', health: 'ok', ready: 'ok', origin: 'ok', upgrade: 'ok' });
    expect(linkOf(report, 'tls').text).toMatch(/TLSv1\.[23], .*127\.0\.0\.1 by doctor authority, until 20\d\d-.*MEDIA_CA/s);
    expect(linkOf(report, 'health').detail).toMatch(/nginx/);
    expect(report.origin).toMatchObject({ scheme: 'https', host: '127.0.0.1', port: ports.good, websocket: `wss://127.0.0.1:${ports.good}` });
  });

  test('whose authority is not known the certificate is refused, and the rest is looked at', async () => {
    const report = await look(`https://127.0.0.1:${ports.good}`);
    expect(marksOf(report)).toMatchObject({ tls: 'fail', health: 'ok', origin: 'ok', upgrade: 'ok' });
    expect(linkOf(report, 'tls').text).toMatch(/--ca FILE[\s\S]*MEDIA_CA/);
  });

  test('that does not say that it ends TLS, X-Forwarded-Proto is asked for, as nginx sets it', async () => {
    const report = await at('proto');
    expect(report.ok).toBe(false);
    expect(marksOf(report)).toMatchObject({ health: 'ok', ready: 'ok', origin: 'fail' });
    const { advice } = linkOf(report, 'origin');
    expect(advice.join('\n')).toContain('nginx: proxy_set_header X-Forwarded-Proto $scheme;');
    // it is known which proxy it is
    expect(advice.join('\n')).not.toContain('HAProxy:');
    expect(advice.join('\n')).toContain('docs/proxies.md');
  });

  test('that drops Upgrade, the upgrade is cut', async () => {
    const report = await at('upgrade');
    expect(marksOf(report)).toMatchObject({ health: 'ok', origin: 'ok', upgrade: 'fail' });
    expect(linkOf(report, 'upgrade').text).toMatch(/Upgrade header was lost[\s\S]*nginx: .*Upgrade \$http_upgrade/);
  });

  test('with an expired certificate', async () => {
    const report = await at('expired');
    expect(marksOf(report)).toMatchObject({ tls: 'fail', health: 'ok', origin: 'ok' });
    expect(linkOf(report, 'tls').text).toMatch(/has expired \(CERT_HAS_EXPIRED\)[\s\S]*Renew/);
  });

  test("with another name's certificate", async () => {
    const report = await at('name');
    expect(linkOf(report, 'tls').text).toMatch(/another name \(ERR_TLS_CERT_ALTNAME_INVALID\)[\s\S]*other\.example\.com[\s\S]*a certificate for 127\.0\.0\.1/);
  });

  test('that loses the port', async () => {
    const report = await at('port');
    expect(marksOf(report)).toMatchObject({ origin: 'fail' });
    expect(linkOf(report, 'origin').text).toMatch(new RegExp(`port: the edge sees none, asked was ${ports.port}[\\s\\S]*Host \\$http_host`));
  });

  test('that puts another name into Host', async () => {
    const report = await at('host');
    expect(linkOf(report, 'origin').text).toMatch(/host: the edge sees 127\.0\.0\.2, asked was 127\.0\.0\.1[\s\S]*Host \$http_host/);
  });

  test('that takes a prefix off and does not say so', async () => {
    const report = await at('prefix', '/rec');
    expect(marksOf(report)).toMatchObject({ health: 'ok', origin: 'fail' });
    expect(linkOf(report, 'origin').text).toMatch(/prefix: the edge sees none, asked was \/rec[\s\S]*X-Forwarded-Prefix \/rec;/);
  });

  test('that leaves a prefix on', async () => {
    const report = await at('prefix', '/kept');
    expect(marksOf(report)).toMatchObject({ health: 'fail', ready: 'skipped', upgrade: 'skipped' });
    expect(linkOf(report, 'health').text).toMatch(/nothing at \/kept\/healthz[\s\S]*X-Forwarded-Prefix \/kept/);
  });

  test('that ends streams of events early or holds them back is found out, and every event is told, once', async () => {
    const [cut, held] = await Promise.all([followed('cut', 5000), followed('held', 500)]);
    const lines = (heard: readonly string[]) => heard.filter((line) => line.startsWith('line'));
    expect(lines(cut.heard)).toEqual(Array.from({ length: 8 }, (_, i) => `line ${i}`));
    expect(cut.now).toMatchObject({ state: 'canceled', heldBack: false });
    expect(cut.now.interruptions).toBeGreaterThan(0);
    expect(lines(held.heard)).toEqual(lines(cut.heard));
    expect(held.now).toMatchObject({ state: 'canceled', heldBack: true, interruptions: 0 });
    // the record tells where the events don't
    for (const { heard } of [cut, held]) expect(heard.filter((line) => /^(recording|canceled)$/.test(line))).toEqual(['recording', 'canceled']);
  });

  /** A recording that ends after two seconds and says something every 250 ms, seen through the proxy. */
  async function followed(name: 'cut' | 'held', heldBackAfter: number) {
    const { id } = await edge.create();
    const self = `https://127.0.0.1:${ports[name]}/v1/recordings/${id}`;
    const access = { ca: [authority.ca], verify: true, timeout: 5000, signal: new AbortController().signal, key: { value: operator.key, origin: new URL(self).origin } };
    const heard: string[] = [];
    const tell = (line: string) => void heard.push(line);
    await using follower = follow({ self, events: `${self}/events`, access, heldBackAfter, onState: tell, onStats: () => undefined, onLog: tell, onWarning: tell });
    await edge.control.run(id);
    for (let i = 0; i < 8; i += 1) {
      // the longest of them is longer than the proxy's patience
      await sleep(i === 4 ? 700 : 200);
      await edge.control.store.log(id, `line ${i}`);
    }
    await edge.control.store.change(id, { from: ['recording'], to: 'canceled' });
    expect(await follower.until(({ state, recording }) => state === 'canceled' && recording?.state === 'canceled', 5000)).toBe(true);
    await sleep(1200);
    return { heard, now: { ...follower.now } };
  }

  test.each([
    ['upstream', /502.*nginx[\s\S]*finds no edge behind it/],
    ['login', /401.*nginx[\s\S]*wants a login/],
    ['redirect', /302.*nginx[\s\S]*redirects to https:\/\/login\.example\.com\/sign-in:/],
  ] as const)('that never gets to the edge: %s', async (site, words) => {
    const report = await at(site);
    expect(marksOf(report)).toMatchObject({ tls: 'ok', health: 'fail', ready: 'skipped' });
    expect(linkOf(report, 'health').text).toMatch(words);
    expect(JSON.stringify(report)).not.toContain('a-secret');
  });
});

describe('what is typed', () => {
  test.each([
    [['--keep', 'http://a'], /^tabreel: --keep and --page are for --record\n$/],
    [['http://name:hunter2@a'], /^tabreel: doctor: the URL must be scheme, host, port and path only\n$/],
  ])('%j is refused in one line', async (args, line) => {
    const { code, out, err } = await doctor(args);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(line);
    expect(err).not.toContain('hunter2');
  });

  test.each([
    ['ftp://a', null, /must begin with http:\/\/ or https:\/\/$/],
    ['a', null, /must begin with http:\/\/ or https:\/\/$/],
    ['https://a/?key=1', null, /must be scheme, host, port and path only$/],
    ['https://a', '/no/such/file', /^--ca \/no\/such\/file: must be a file with a certificate in PEM/],
    ['https://a', program, /must be a file with a certificate in PEM/],
  ])('%s with authority %s is refused', async (url, ca, words) => {
    await expect(look(url, ca)).rejects.toThrow(words);
  });
});

test('what servers say is printed without credentials and control characters', () => {
  expect(plain('see https://u:pass@h/x?token=abc.def&y=1\u001b[2J\n\u202eBearer abc.def-_~ end')).toBe(
    'see https://(hidden)@h/x?token=(hidden)&y=1 [2J Bearer (hidden) end',
  );
  expect(plain('a'.repeat(1000))).toHaveLength(402);
});
