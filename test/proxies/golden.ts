/**
 * What proxies and platforms send to a server behind them for `https://rec.example.com`, asked for by a client at 203.0.113.7,
 * as their documentation or source says; and what it takes to tell the origin from it.
 */
import type { HeaderLine } from '../../edge/origin/facts.ts';

export type Golden = {
  who: string;
  /** Documentation or source. */
  source: string;
  /** Address that its connections come from. */
  peer: string;
  headers: readonly HeaderLine[];
  /** Lines that a WebSocket upgrade has instead of those of the same name, and beside them; null where it carries none. */
  upgrade: readonly HeaderLine[] | null;
  /** The base of media URLs, or a part of the refusal. */
  expected: `wss://${string}` | { code: string; names: string };
  /** Settings of the edge. */
  settings: { TRUSTED_PROXIES?: string; ALLOWED_HOSTS?: string };
  /** For the operator: settings of the proxy, and what a client can still forge. */
  advice: string;
};

const HOST = 'rec.example.com';
const CLIENT = '203.0.113.7';
const WSS = `wss://${HOST}` as const;
/** None of these is documented to remove what a client wrote there. */
const forgeableHost = '`ALLOWED_HOSTS` (1)';

const lines = (headers: Readonly<Record<string, string>>): HeaderLine[] => Object.entries(headers);
const upgradeLines = lines({ Connection: 'Upgrade', Upgrade: 'websocket' });

export const golden: readonly Golden[] = [
  {
    who: 'Traefik',
    source: 'https://github.com/traefik/traefik/blob/master/pkg/middlewares/forwardedheaders/forwarded_header.go',
    peer: '10.42.0.9',
    headers: lines({
      Host: HOST, 'X-Forwarded-For': CLIENT, 'X-Forwarded-Host': HOST, 'X-Forwarded-Port': '443', 'X-Forwarded-Proto': 'https',
      'X-Forwarded-Server': 'traefik-7d9c', 'X-Real-Ip': CLIENT,
    }),
    upgrade: lines({ 'X-Forwarded-Proto': 'wss' }),
    expected: WSS,
    settings: {},
    advice: '',
  },
  {
    who: 'Traefik, entry point on 8443',
    source: 'https://github.com/traefik/traefik/blob/master/pkg/middlewares/forwardedheaders/forwarded_header.go',
    peer: '10.42.0.9',
    headers: lines({
      Host: `${HOST}:8443`, 'X-Forwarded-For': CLIENT, 'X-Forwarded-Host': `${HOST}:8443`, 'X-Forwarded-Port': '8443', 'X-Forwarded-Proto': 'https',
      'X-Forwarded-Server': 'traefik-7d9c', 'X-Real-Ip': CLIENT,
    }),
    upgrade: lines({ 'X-Forwarded-Proto': 'wss' }),
    expected: `${WSS}:8443`,
    settings: {},
    advice: '',
  },
  {
    who: 'ingress-nginx',
    source: 'https://github.com/kubernetes/ingress-nginx/blob/main/rootfs/etc/nginx/template/nginx.tmpl',
    peer: '10.42.0.9',
    headers: lines({
      Host: HOST, 'X-Request-ID': '2f1b', 'X-Real-IP': CLIENT, 'X-Forwarded-For': CLIENT, 'X-Forwarded-Host': HOST, 'X-Forwarded-Port': '443',
      'X-Forwarded-Proto': 'https', 'X-Forwarded-Scheme': 'https', 'X-Scheme': 'https',
    }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: 'behind another proxy: its `use-forwarded-headers`',
  },
  {
    who: 'OpenShift router',
    source: 'https://github.com/openshift/router/blob/master/images/router/haproxy/conf/haproxy-config.template',
    peer: '10.128.0.2',
    headers: lines({
      Host: HOST, 'X-Forwarded-Host': HOST, 'X-Forwarded-Port': '443', 'X-Forwarded-Proto': 'https', 'X-Forwarded-Proto-Version': 'h2',
      Forwarded: `for=${CLIENT};host=${HOST};proto=https`, 'X-Forwarded-For': CLIENT,
    }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: 'the route annotation `haproxy.router.openshift.io/set-forwarded-headers: replace` drops what clients wrote; by default it is appended to',
  },
  {
    who: 'OpenShift router, IPv6 client, another port',
    source: 'https://github.com/openshift/router/blob/master/images/router/haproxy/conf/haproxy-config.template',
    peer: '10.128.0.2',
    headers: lines({
      Host: `${HOST}:8443`, 'X-Forwarded-Host': `${HOST}:8443`, 'X-Forwarded-Port': '443', 'X-Forwarded-Proto': 'https',
      Forwarded: `for="[2001:db8::7]";host=${HOST}:8443;proto=https`, 'X-Forwarded-For': '2001:db8::7',
    }),
    upgrade: [],
    expected: `${WSS}:8443`,
    settings: {},
    advice: '',
  },
  {
    who: 'OpenShift router, a client that forges',
    source: 'https://github.com/openshift/router/blob/master/images/router/haproxy/conf/haproxy-config.template',
    peer: '10.128.0.2',
    headers: [
      ['Host', HOST],
      ['X-Forwarded-For', '10.0.0.1'], ['X-Forwarded-Host', 'evil.example'], ['X-Forwarded-Port', '80'], ['X-Forwarded-Proto', 'http'], ['Forwarded', 'host=evil.example;proto=http'],
      ['X-Forwarded-For', CLIENT], ['X-Forwarded-Host', HOST], ['X-Forwarded-Port', '443'], ['X-Forwarded-Proto', 'https'],
      ['Forwarded', `for=${CLIENT};host=${HOST};proto=https`],
    ],
    upgrade: null,
    expected: WSS,
    settings: {},
    advice: '',
  },
  {
    who: 'Envoy, Istio gateway',
    source: 'https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-proto',
    peer: '10.42.0.9',
    headers: lines({
      Host: HOST, 'x-forwarded-for': CLIENT, 'x-forwarded-proto': 'https', 'x-envoy-external-address': CLIENT, 'x-request-id': '2f1b',
    }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: forgeableHost,
  },
  {
    who: 'Cloud Foundry Gorouter, behind a load balancer',
    source: 'https://docs.cloudfoundry.org/concepts/http-routing.html',
    peer: '10.0.16.5',
    headers: lines({ Host: HOST, 'X-Forwarded-For': `${CLIENT}, 10.0.0.4`, 'X-Forwarded-Proto': 'https,https', 'X-Vcap-Request-Id': '2f1b' }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: forgeableHost,
  },
  {
    who: 'AWS Application Load Balancer',
    source: 'https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html',
    peer: '172.31.4.10',
    headers: lines({ Host: HOST, 'X-Forwarded-For': CLIENT, 'X-Forwarded-Proto': 'https', 'X-Forwarded-Port': '443', 'X-Amzn-Trace-Id': 'Root=1-67' }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: forgeableHost,
  },
  {
    who: 'AWS Application Load Balancer, listener on 8443',
    source: 'https://repost.aws/questions/QUbdKVqaj4TKSZJdPWPZG1Ow/launch-announcement-new-alb-enhancements-provide-options-to-specify-how-to-process-host-header-and-x-forwarded-for-header',
    peer: '172.31.4.10',
    headers: lines({ Host: `${HOST}:8443`, 'X-Forwarded-For': CLIENT, 'X-Forwarded-Proto': 'https', 'X-Forwarded-Port': '8443', 'X-Amzn-Trace-Id': 'Root=1-67' }),
    upgrade: [],
    expected: `${WSS}:8443`,
    settings: {},
    advice: forgeableHost,
  },
  {
    who: 'Amazon CloudFront, default policies',
    source: 'https://docs.aws.amazon.com/mediatailor/latest/ug/cloudfront-host-header-config.html',
    peer: '130.176.1.20',
    headers: lines({ Host: 'origin.internal.example', 'X-Forwarded-For': CLIENT, Via: '2.0 1a2b.cloudfront.net (CloudFront)', 'X-Amz-Cf-Id': 'x==' }),
    upgrade: [],
    expected: { code: 'origin_insecure', names: 'X-Forwarded-Proto' },
    settings: { TRUSTED_PROXIES: '130.176.0.0/16' },
    advice: 'what the next line says',
  },
  {
    who: 'Amazon CloudFront',
    source: 'https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/adding-cloudfront-headers.html',
    peer: '130.176.1.20',
    headers: lines({
      Host: HOST, 'X-Forwarded-For': CLIENT, 'CloudFront-Forwarded-Proto': 'https', Via: '2.0 1a2b.cloudfront.net (CloudFront)', 'X-Amz-Cf-Id': 'x==',
    }),
    upgrade: [],
    expected: WSS,
    settings: { TRUSTED_PROXIES: '130.176.0.0/16' },
    advice: 'an origin request policy with Host and CloudFront-Forwarded-Proto; `TRUSTED_PROXIES` with its origin-facing addresses; ' + forgeableHost,
  },
  {
    who: 'Google Cloud external Application Load Balancer',
    source: 'https://cloud.google.com/load-balancing/docs/https',
    peer: '35.191.10.3',
    headers: lines({
      Host: HOST, 'X-Forwarded-For': `${CLIENT},34.120.9.9`, 'X-Forwarded-Proto': 'https', Via: '1.1 google', 'X-Cloud-Trace-Context': '2f/1;o=1',
    }),
    upgrade: [],
    expected: WSS,
    settings: { TRUSTED_PROXIES: '35.191.0.0/16,130.211.0.0/22' },
    advice: '`TRUSTED_PROXIES` with `35.191.0.0/16,130.211.0.0/22`; a backend timeout of hours, since its 30 s end media sockets too; ' + forgeableHost,
  },
  {
    who: 'Azure Application Gateway',
    source: 'https://learn.microsoft.com/azure/application-gateway/how-application-gateway-works#modifications-to-the-request',
    peer: '10.1.0.4',
    headers: lines({
      Host: HOST, 'X-Forwarded-For': `${CLIENT}:51234`, 'X-Forwarded-Proto': 'https', 'X-Forwarded-Port': '443', 'X-Original-Host': HOST,
      'X-Original-Url': '/v1/recordings', 'X-AppGW-Trace-Id': '2f1b',
    }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: forgeableHost,
  },
  {
    who: 'Azure Application Gateway that overrides the host',
    source: 'https://learn.microsoft.com/azure/application-gateway/how-application-gateway-works#modifications-to-the-request',
    peer: '10.1.0.4',
    headers: lines({
      Host: 'edge.internal', 'X-Forwarded-For': `${CLIENT}:51234`, 'X-Forwarded-Proto': 'https', 'X-Forwarded-Port': '443', 'X-Original-Host': HOST,
      'X-Original-Url': '/v1/recordings', 'X-AppGW-Trace-Id': '2f1b',
    }),
    upgrade: [],
    expected: { code: 'origin_host_not_allowed', names: 'edge.internal' },
    settings: { ALLOWED_HOSTS: HOST },
    advice: 'leave the host as it is in the backend settings, or let a rewrite set X-Forwarded-Host; with `ALLOWED_HOSTS` the inner name is refused',
  },
  {
    who: 'Azure App Service',
    source: 'https://github.com/aspnet/IISIntegration/issues/140',
    peer: '169.254.129.1',
    headers: lines({
      Host: HOST, 'X-Forwarded-For': `${CLIENT}:51234`, 'X-ARR-SSL': '2048|256|CN=Microsoft TLS G2|CN=*.azurewebsites.net', 'X-ARR-LOG-ID': '2f1b',
      'DISGUISED-HOST': HOST, 'CLIENT-IP': `${CLIENT}:51234`, 'X-Forwarded-Proto': 'https', 'X-Original-URL': '/v1/recordings',
    }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: forgeableHost,
  },
  {
    who: 'Azure App Service, without X-Forwarded-Proto',
    source: 'https://gist.github.com/freshlogic/6348417',
    peer: '169.254.129.1',
    headers: lines({
      Host: HOST, 'X-Forwarded-For': `${CLIENT}:51234`, 'X-ARR-SSL': '2048|256|CN=Microsoft TLS G2|CN=*.azurewebsites.net', 'X-ARR-LOG-ID': '2f1b',
      'DISGUISED-HOST': HOST,
    }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: forgeableHost,
  },
  {
    who: 'Azure Front Door',
    source: 'https://learn.microsoft.com/azure/frontdoor/front-door-http-headers-protocol',
    peer: '147.243.12.8',
    headers: lines({
      Host: 'origin.internal.example', Via: '1.1 Azure', 'X-Azure-ClientIP': CLIENT, 'X-Azure-SocketIP': CLIENT, 'X-Azure-Ref': '0z', 'X-Azure-RequestChain': 'hops=1',
      'X-Azure-FDID': 'a0a0', 'X-Forwarded-For': CLIENT, 'X-Forwarded-Host': HOST, 'X-Forwarded-Proto': 'https',
    }),
    upgrade: [],
    expected: WSS,
    settings: { TRUSTED_PROXIES: '147.243.0.0/16' },
    advice: '`TRUSTED_PROXIES` with the addresses of the service tag AzureFrontDoor.Backend',
  },
  {
    who: 'Cloudflare',
    source: 'https://developers.cloudflare.com/fundamentals/reference/http-headers/',
    peer: '173.245.48.9',
    headers: lines({
      Host: HOST, 'CF-Connecting-IP': CLIENT, 'CF-IPCountry': 'DE', 'CF-RAY': '2f1b-FRA', 'CF-Visitor': '{"scheme":"https"}', 'CDN-Loop': 'cloudflare; loops=1',
      'X-Forwarded-For': CLIENT, 'X-Forwarded-Proto': 'https',
    }),
    upgrade: [],
    expected: WSS,
    settings: { TRUSTED_PROXIES: '173.245.48.0/20' },
    advice: '`TRUSTED_PROXIES` with <https://www.cloudflare.com/ips/>; ' + forgeableHost,
  },
  {
    who: 'Cloudflare Tunnel (cloudflared beside the edge)',
    source: 'https://github.com/cloudflare/cloudflared/blob/master/proxy/proxy.go',
    peer: '127.0.0.1',
    headers: lines({
      Host: HOST, 'Cf-Connecting-Ip': CLIENT, 'Cf-Ray': '2f1b-FRA', 'Cf-Visitor': '{"scheme":"https"}', 'Cdn-Loop': 'cloudflare; loops=1',
      'X-Forwarded-For': CLIENT, 'X-Forwarded-Proto': 'https',
    }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: forgeableHost,
  },
  {
    who: 'Fly.io',
    source: 'https://fly.io/docs/networking/request-headers/',
    peer: '172.19.2.1',
    headers: lines({
      Host: HOST, 'Fly-Client-IP': CLIENT, 'Fly-Forwarded-Port': '443', 'Fly-Region': 'fra', 'X-Forwarded-For': `${CLIENT}, 66.241.125.9`, 'X-Forwarded-Proto': 'https',
      'X-Forwarded-Port': '443', 'X-Forwarded-Ssl': 'on', Via: '2 fly.io',
    }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: forgeableHost,
  },
  {
    who: 'Fastly, as it is',
    source: 'https://www.fastly.com/documentation/reference/http/http-headers/X-Forwarded-Host',
    peer: '151.101.2.3',
    headers: lines({
      Host: HOST, 'X-Forwarded-For': `${CLIENT}, 151.101.9.9`, 'X-Forwarded-Host': `${HOST}, ${HOST}`, 'X-Forwarded-Server': 'cache-fra1, cache-fra2', 'Fastly-SSL': '1',
      'Fastly-Client-IP': CLIENT, 'Fastly-Client': '1',
    }),
    upgrade: null,
    expected: { code: 'origin_insecure', names: 'X-Forwarded-Proto' },
    settings: { TRUSTED_PROXIES: '151.101.0.0/16' },
    advice: 'what the next line says: Fastly-SSL is not believed, since clients can write it',
  },
  {
    who: 'Fastly',
    source: 'https://fastly.com/documentation/reference/http/http-headers/Fastly-SSL',
    peer: '151.101.2.3',
    headers: lines({
      Host: HOST, 'X-Forwarded-For': `${CLIENT}, 151.101.9.9`, 'X-Forwarded-Host': `${HOST}, ${HOST}`, 'X-Forwarded-Server': 'cache-fra1, cache-fra2', 'Fastly-SSL': '1',
      'Fastly-Client-IP': CLIENT, 'Fastly-Client': '1', 'X-Forwarded-Proto': 'https',
    }),
    upgrade: null,
    expected: WSS,
    settings: { TRUSTED_PROXIES: '151.101.0.0/16' },
    advice: 'in VCL: `set bereq.http.X-Forwarded-Proto = if(fastly_info.edge.is_tls, "https", "http");`; `TRUSTED_PROXIES` with <https://api.fastly.com/public-ip-list>; media needs `MEDIA_URL` elsewhere or Fastly’s WebSocket passthrough',
  },
  {
    who: 'Heroku',
    source: 'https://devcenter.heroku.com/articles/http-routing#heroku-headers',
    peer: '10.1.44.2',
    headers: lines({
      Host: HOST, 'X-Forwarded-For': CLIENT, 'X-Forwarded-Proto': 'https', 'X-Forwarded-Port': '443', 'X-Request-Id': '2f1b', 'X-Request-Start': '1795383041350', Via: '1.1 heroku-router',
    }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: forgeableHost,
  },
  {
    who: 'Google App Engine',
    source: 'https://docs.cloud.google.com/appengine/docs/standard/reference/request-headers',
    peer: '169.254.1.1',
    headers: lines({
      Host: HOST, 'X-Appengine-Https': 'on', 'X-Appengine-Country': 'DE', 'X-Appengine-User-Ip': CLIENT, 'X-Forwarded-For': `${CLIENT}, 169.254.1.1`, 'X-Forwarded-Proto': 'https',
      'X-Cloud-Trace-Context': '2f/1;o=1',
    }),
    upgrade: null,
    expected: WSS,
    settings: {},
    advice: '`MEDIA_URL`, since the standard environment carries no WebSockets; ' + forgeableHost,
  },
  {
    who: 'Vercel',
    source: 'https://vercel.com/docs/headers/request-headers',
    peer: '127.0.0.1',
    headers: lines({
      Host: HOST, 'x-forwarded-host': HOST, 'x-forwarded-proto': 'https', 'x-forwarded-for': CLIENT, 'x-real-ip': CLIENT, 'x-vercel-id': 'fra1::iad1::2f1b', 'x-vercel-forwarded-for': CLIENT,
    }),
    upgrade: null,
    expected: WSS,
    settings: {},
    advice: '`MEDIA_URL`, since functions hold no WebSockets',
  },
  {
    who: 'ngrok (agent beside the edge)',
    source: 'https://ngrok.com/docs/universal-gateway/http-s/upstream-headers',
    peer: '127.0.0.1',
    headers: lines({ Host: HOST, 'X-Forwarded-For': CLIENT, 'X-Forwarded-Host': HOST, 'X-Forwarded-Proto': 'https' }),
    upgrade: [],
    expected: WSS,
    settings: {},
    advice: forgeableHost,
  },
];

/** The lines of a WebSocket upgrade. */
export function upgradeOf({ headers, upgrade }: Golden): HeaderLine[] {
  const changed = new Set((upgrade ?? []).map(([name]) => name.toLowerCase()));
  return [...headers.filter(([name]) => !changed.has(name.toLowerCase())), ...(upgrade ?? []), ...upgradeLines];
}
