/**
 * The origin behind real proxies: https requests through each, as an operator would set it up, to a real edge.
 * `UPDATE_DOCS=1` writes what came out, and the lines of configuration that it came out with, to docs/proxies.md.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseTrust } from '../../edge/origin/trust.ts';
import { testEdge, type TestEdge } from '../edge/harness.ts';
import { createAuthority, hasOpenssl, type Authority, type Leaf } from '../helpers/certificates.ts';
import { startRedis, type TestRedis } from '../helpers/redis.ts';
import { apache } from './apache.ts';
import { caddy } from './caddy.ts';
import { ask, dialMedia, type Answer, type Options, type Target } from './client.ts';
import { docsAreCurrent, type Results } from './document.ts';
import { haproxy } from './haproxy.ts';
import { nginx } from './nginx.ts';
import { PREFIX, missingPackages, startProxy, type RunningProxy, type Way } from './proxy.ts';
import { varnish } from './varnish.ts';

const proxies = [nginx, haproxy, caddy, apache, varnish];
const NAME = 'rec.example.com';
/** RFC 3849's, and no loopback address: that would be another matter. */
const ADDRESS = '2001:db8::7';
const page = { url: 'https://example.com/standup' };

/** What a caller may write itself, alone and together. */
const forgeries: Readonly<Record<string, string>>[] = [
  { 'x-forwarded-host': 'evil.example' },
  { 'x-forwarded-proto': 'http' },
  { 'x-forwarded-port': '1' },
  { 'x-forwarded-prefix': '/evil' },
  { 'x-forwarded-for': '127.0.0.1, 127.0.0.1' },
  { forwarded: 'for=127.0.0.1;host=evil.example;proto=http' },
  { 'x-forwarded-ssl': 'off', 'x-forwarded-scheme': 'http', 'x-scheme': 'http', 'front-end-https': 'off', 'x-forwarded-protocol': 'http' },
  { 'x-original-host': 'evil.example', 'x-original-proto': 'http', 'x-forwarded_host': 'evil.example', x_forwarded_proto: 'http' },
  { 'x-forwarded-for': '10.0.0.1', 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'http', 'x-forwarded-port': '80', forwarded: 'host=evil.example;proto=http' },
];
/** Headers named in Connection are for the next hop only: a proxy may drop its own by that. */
const hopByHop = { connection: 'close, x-forwarded-proto, x-forwarded-host, x-forwarded-for' };

const results: Results = new Map();
const note = (proxy: string, row: string, outcome: string) => {
  const rows = results.get(row) ?? new Map<string, string>();
  const before = rows.get(proxy) ?? outcome;
  results.set(row, rows.set(proxy, before === outcome ? outcome : `${before} or ${outcome}`));
};

if (!hasOpenssl) console.warn('Tests are skipped for want of openssl: apt-get install openssl');

/** TRUSTED_PROXIES: the proxies' own addresses, so that callers come from elsewhere; and the default, with callers among them. */
const trusts = { 'its address trusted': ['127.0.0.1', '::1'], 'its callers trusted too': ['loopback', 'private'] };

describe.skipIf(!hasOpenssl).each(Object.entries(trusts))('behind a real proxy that ends TLS, %s', (_name, trust) => {
  let authority: Authority;
  let leaf: Leaf;
  let redis: TestRedis;
  let edge: TestEdge;
  beforeAll(async () => {
    authority = await createAuthority();
    leaf = await authority.issue([NAME, ADDRESS]);
    redis = await startRedis();
    edge = await testEdge(redis, { trust: parseTrust(trust) }, { workerPresent: false, keyed: true });
  });
  afterAll(async () => {
    await edge?.[Symbol.asyncDispose]();
    await redis?.[Symbol.asyncDispose]();
    await authority?.[Symbol.asyncDispose]();
  });

  for (const proxy of proxies) {
    const missing = missingPackages(proxy);
    if (missing.length > 0) console.warn(`Tests behind ${proxy.name} are skipped: apt-get install ${missing.join(' ')}`);

    describe.skipIf(missing.length > 0)(proxy.name, () => {
      let running: RunningProxy;
      beforeAll(async () => {
        running = await startProxy(proxy, leaf, Number(new URL(edge.url).port));
      }, 20_000);
      afterAll(() => running?.[Symbol.asyncDispose]());

      const target = (way: Way, name = NAME, port: number | null = running.ports[way]): Target => ({
        port: running.ports[way],
        authority: port === null ? name : `${name}:${port}`,
        ca: authority.ca,
      });
      const origin = (to: Target, options?: Options, prefix = ''): Promise<Answer> => ask(to, `${prefix}/v1/origin`, options);

      /** So is where a push goes that names no URL: a server behind the same name, and not below our path. In the answer and in the job. */
      async function isPushedTo(row: string, to: Target, prefix = '') {
        const { status, body } = await ask(to, `${prefix}/v1/recordings`, { body: { ...page, push: [{ type: 'antmedia' }] } });
        expect(status, JSON.stringify(body)).toBe(202);
        queued += 1;
        const url = `wss://${to.authority}/LiveApp/websocket`;
        expect(body.push).toMatchObject([{ url }]);
        expect((await edge.control.recordQueue.getJob(body.id))?.data.spec.push).toMatchObject([{ url }]);
        note(proxy.name, row, 'wss');
      }

      /** The answer is `wss://<what the caller asked for>` and nothing else. */
      async function isWss(row: string, to: Target, options?: Options, prefix = '') {
        const { status, body } = await origin(to, options, prefix);
        expect({ status, websocket: body.websocket }, JSON.stringify(body)).toEqual({ status: 200, websocket: `wss://${to.authority}${prefix}` });
        note(proxy.name, row, 'wss');
      }

      /** No URL is made up, nothing is queued, and the operator is told which header is missing. */
      async function isRefused(row: string, to: Target, header: RegExp) {
        const pushed = { ...page, record: false, push: [{ type: 'antmedia' }] };
        for (const { status, body } of [await origin(to), await ask(to, '/v1/recordings', { body: page }), await ask(to, '/v1/recordings', { body: pushed })]) {
          expect(status, JSON.stringify(body)).toBe(421);
          expect(body.remedy, JSON.stringify(body)).toMatch(header);
          expect(body).not.toHaveProperty('websocket');
        }
        expect(await edge.control.recordQueue.getJobCountByTypes('waiting', 'delayed', 'prioritized')).toBe(queued);
        note(proxy.name, row, 'refused');
      }

      let queued = 0;
      beforeAll(async () => {
        queued = await edge.control.recordQueue.getJobCountByTypes('waiting', 'delayed', 'prioritized');
      });

      /** A recording asked for here has its media URL here, in the answer and in the job, and the URL leads to the ingest. */
      async function takesMedia(row: string, to: Target, prefix = '') {
        const { status, body } = await ask(to, `${prefix}/v1/recordings`, { body: page });
        expect(status, JSON.stringify(body)).toBe(202);
        queued += 1;
        const mediaUrl = `wss://${to.authority}${prefix}/v1/recordings/${body.id}/media`;
        expect(body.mediaUrl).toBe(mediaUrl);
        expect(body.links.self).toBe(`https://${to.authority}${prefix}/v1/recordings/${body.id}`);
        const jobs = await edge.control.recordQueue.getJobs(['waiting', 'prioritized']);
        const job = jobs.find(({ data }) => data.recordingId === body.id);
        expect(job?.data.mediaUrl).toBe(mediaUrl);
        const attempt = await edge.control.run(body.id);
        const first = await dialMedia({ port: to.port, ca: authority.ca }, mediaUrl, await edge.control.credential(body.id), attempt);
        expect(first).toMatchObject({ type: 'welcome', acked: 0 });
        note(proxy.name, row, 'wss');
      }

      it('one proxy', () => isWss('one proxy', target('single')));
      it('HTTP/2 in front', () => isWss('HTTP/2 in front', target('single'), { http2: true }));
      it('an inner proxy that appends', () => isWss('a second proxy that appends to the lists', target('append')));
      it('an inner proxy that passes on', () => isWss('a second proxy that passes on what the first said', target('pass')));
      it('an inner proxy that only knows http', () =>
        isRefused('a second proxy that puts its own http in place', target('replace'), /X-Forwarded-Proto/));
      it('another port inside', () => isWss('another port outside (8443)', target('single', NAME, 8443)));
      it('another port inside, which leaks', () => isWss('the same, the inner port in X-Forwarded-Port', target('inner-port', NAME, 8443)));
      it('port 443 outside, 80 leaks', () => isWss('port 443 outside, 80 in X-Forwarded-Port', target('port-80', NAME, null)));
      it('a path prefix', () => isWss('a path prefix', target('prefix'), {}, PREFIX));
      it('IPv6', () => isWss('an IPv6 address as host', target('ipv6', `[${ADDRESS}]`)));
      it('a Host that is not the caller’s', () => isWss("Host is the upstream's name", target('rename')));
      it('the media socket', () => takesMedia('the media socket', target('single')));
      it('the media socket behind a prefix', () => takesMedia('the media socket behind a prefix', target('prefix'), PREFIX));
      it('the media socket behind two proxies', () => takesMedia('the media socket behind two proxies', target('append')));
      it('a scheme that is wss', () => takesMedia('X-Forwarded-Proto: wss', target('wss')));

      it('a push without a URL', async () => {
        await isPushedTo('a push without a URL', target('single'));
        await isPushedTo('a push without a URL', target('append'));
        await isPushedTo('a push without a URL', target('pass'));
        await isPushedTo('a push without a URL, another port outside', target('inner-port', NAME, 8443));
        await isPushedTo('a push without a URL, another port outside', target('port-80', NAME, null));
        await isPushedTo('a push without a URL behind a prefix', target('prefix'), PREFIX);
        await isPushedTo('a push without a URL, an IPv6 address as host', target('ipv6', `[${ADDRESS}]`));
        await isPushedTo("a push without a URL, Host is the upstream's name", target('rename'));
      });

      it('forged headers', async () => {
        for (const headers of forgeries) {
          await isWss('forged headers', target('single'), { headers });
          await isWss('forged headers, port 443 outside', target('single', NAME, null), { headers });
          await isWss('forged headers, HTTP/2', target('single'), { headers, http2: true });
          await isWss('forged headers, two proxies', target('append'), { headers });
          await isWss('forged headers, two proxies', target('pass'), { headers });
        }
        const { body } = await ask(target('single'), '/v1/recordings', { body: page, headers: forgeries.at(-1) ?? {} });
        expect(body.mediaUrl).toBe(`wss://${target('single').authority}/v1/recordings/${body.id}/media`);
        queued += 1;
      });

      it('headers that the caller declares hop by hop', async () => {
        const { status, body } = await origin(target('single'), { headers: hopByHop });
        // a proxy may turn this down, or lose its own header by it: the forger's own request fails, and nothing else
        if (status === 200) expect(body.websocket).toBe(`wss://${target('single').authority}`);
        else expect([400, 421]).toContain(status);
        note(proxy.name, 'its headers named in Connection', status === 200 ? 'wss' : 'refused');
      });

      for (const way of ['bare', 'bare-address'] as const) {
        const row = way === 'bare' ? 'default configuration' : 'default configuration, the edge by its address';
        it(row, () => (proxy.bareSuffices ? isWss(row, target(way)) : isRefused(row, target(way), /X-Forwarded-Proto/)));
      }
    });
  }
});

it.skipIf(!hasOpenssl || proxies.some((proxy) => missingPackages(proxy).length > 0))('docs/proxies.md says what came out', () => docsAreCurrent(proxies, results));
