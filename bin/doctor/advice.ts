/** What to set where: the lines of configuration that mend a link, for the proxies that people run. */

/** What a proxy has to do. */
export type Topic = 'proto' | 'host' | 'port' | 'prefix' | 'upgrade' | 'buffering';

/** Where all of it is written down. */
export const PROXIES_DOC = 'docs/proxies.md';

type ProxyName = 'nginx' | 'ingress-nginx' | 'HAProxy' | 'Caddy' | 'Apache' | 'Traefik' | 'Envoy, Istio' | 'AWS ALB';

const settings: Readonly<Record<Topic, Partial<Record<ProxyName, string>>>> = {
  proto: {
    nginx: 'proxy_set_header X-Forwarded-Proto $scheme;',
    'ingress-nginx': 'sends it; behind another load balancer that ends TLS: ConfigMap use-forwarded-headers: "true"',
    HAProxy: 'http-request set-header X-Forwarded-Proto https if { ssl_fc }',
    Caddy: 'sends it; behind another proxy that ends TLS: servers { trusted_proxies static private_ranges }',
    Apache: 'RequestHeader set X-Forwarded-Proto expr=%{REQUEST_SCHEME}',
    Traefik: 'sends it; behind another proxy that ends TLS: --entryPoints.web.forwardedHeaders.trustedIPs=<its CIDR>',
    'Envoy, Istio': 'sends x-forwarded-proto; behind another proxy that ends TLS: xff_num_trusted_hops / numTrustedProxies: 1',
    'AWS ALB': 'sends it, from an HTTPS listener',
  },
  host: {
    nginx: 'proxy_set_header Host $http_host;',
    'ingress-nginx': 'keeps it, unless nginx.ingress.kubernetes.io/upstream-vhost is set',
    HAProxy: 'keeps it, unless a rule sets it (http-request set-header Host ...)',
    Caddy: 'header_up Host {http.request.hostport}',
    Apache: 'ProxyPreserveHost On',
    Traefik: 'passHostHeader: true on the service',
    'Envoy, Istio': 'no host_rewrite / rewrite.authority on the route',
    'AWS ALB': 'keeps it',
  },
  port: {
    nginx: 'proxy_set_header Host $http_host;    ($host has no port)',
    HAProxy: 'http-request set-header X-Forwarded-Port %[dst_port]',
    Apache: 'ProxyPreserveHost On',
  },
  prefix: {
    nginx: 'location <prefix>/ { proxy_pass http://edge:8080/; proxy_set_header X-Forwarded-Prefix <prefix>; }',
    'ingress-nginx': 'nginx.ingress.kubernetes.io/x-forwarded-prefix: "<prefix>" beside rewrite-target',
    HAProxy: 'http-request set-header X-Forwarded-Prefix <prefix>, then http-request replace-path <prefix>(/.*) \\1',
    Caddy: 'handle_path <prefix>/* { reverse_proxy edge:8080 { header_up X-Forwarded-Prefix <prefix> } }',
    Apache: 'RequestHeader set X-Forwarded-Prefix "<prefix>"',
    Traefik: 'the StripPrefix middleware, which sends X-Forwarded-Prefix itself',
  },
  upgrade: {
    nginx: 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";',
    'ingress-nginx': 'passes upgrades; nginx.ingress.kubernetes.io/proxy-read-timeout: "3600" keeps them open',
    HAProxy: 'mode http passes upgrades; timeout tunnel 1h keeps them open',
    Caddy: 'reverse_proxy passes upgrades; no header_up rule may remove Upgrade or Connection',
    Apache: 'ProxyPass "/" "http://edge:8080/" upgrade=websocket    (2.4.47 or newer)',
    Traefik: 'passes upgrades; no headers middleware may remove Upgrade or Connection',
    'Envoy, Istio': 'upgrade_configs: [{ upgrade_type: websocket }] (Istio has it)',
    'AWS ALB': 'passes upgrades to target groups of protocol version HTTP1, not HTTP2 or gRPC',
  },
  buffering: {
    nginx: 'proxy_buffering off;    (or leave X-Accel-Buffering to the edge: no proxy_ignore_headers)',
    'ingress-nginx': 'nginx.ingress.kubernetes.io/proxy-buffering: "off"',
    Caddy: 'flush_interval -1',
    Apache: 'SetEnv proxy-sendchunked 1; no mod_deflate on text/event-stream',
  },
};

/** Who says what in Server or Via. */
const signs: readonly (readonly [RegExp, readonly ProxyName[]])[] = [
  [/nginx|openresty/i, ['nginx', 'ingress-nginx']],
  [/caddy/i, ['Caddy']],
  [/apache|httpd/i, ['Apache']],
  [/envoy|istio/i, ['Envoy, Istio']],
  [/awselb|elb/i, ['AWS ALB']],
  [/traefik/i, ['Traefik']],
  [/haproxy/i, ['HAProxy']],
];

/**
 * A line for each proxy that it may be.
 *
 * @param server what the proxy says it is; null where it doesn't say
 * @param prefix put in the place of `<prefix>`
 */
export function proxyAdvice(topic: Topic, server: string | null, prefix = '/prefix'): string[] {
  const known = Object.entries(settings[topic]);
  const likely = signs.find(([pattern]) => server !== null && pattern.test(server))?.[1];
  const fitting = known.filter(([name]) => likely?.includes(name as ProxyName));
  const chosen = fitting.length > 0 ? fitting : known;
  return [...chosen.map(([name, line]) => `  ${name}: ${line.replaceAll('<prefix>', prefix)}`), `  more in ${PROXIES_DOC}`];
}

/** What to do about a certificate that a client refuses, by the code that Node gives. */
export function certificateAdvice(code: string, host: string): string[] {
  switch (code) {
    case 'CERT_HAS_EXPIRED':
    case 'CERT_NOT_YET_VALID':
      return ['Renew the certificate where TLS ends, and look at the clocks of both machines. A worker refuses it for media too.'];
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return [`Let the proxy use a certificate for ${host}, or ask by a name that the certificate has. A default certificate shows up where no host matches.`];
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_GET_ISSUER_CERT':
      return [
        'Let the proxy send the whole chain (nginx: ssl_certificate with the intermediate certificates behind the own one).',
        'If the authority is your own: doctor --ca FILE, and MEDIA_CA=FILE on every worker.',
      ];
    default:
      return ['If the authority is your own: doctor --ca FILE, and MEDIA_CA=FILE on every worker. Else get a certificate of a public one.'];
  }
}
