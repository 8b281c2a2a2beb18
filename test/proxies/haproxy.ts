import { PREFIX, UPSTREAM, innerWays, linesOf, ways, type InnerWay, type Proxy, type Sites, type Way } from './proxy.ts';

const headers = `http-request set-header X-Forwarded-Proto https if { ssl_fc }
http-request set-header X-Forwarded-Proto http unless { ssl_fc }

# a caller's own are not passed on
http-request set-header X-Forwarded-For %[src]
http-request set-header X-Forwarded-Host %[req.hdr(Host)]
http-request del-header X-Forwarded-Port
http-request del-header X-Forwarded-Prefix
http-request del-header Forwarded`;

const prefix = `http-request set-header X-Forwarded-Prefix ${PREFIX}
http-request replace-path ^${PREFIX}/(.*) /\\1`;

const pass = 'option forwardfor';

const lines = linesOf(headers, {
  'inner-port': `${headers}\nhttp-request set-header X-Forwarded-Port %[dst_port]`,
  'port-80': `${headers}\nhttp-request set-header X-Forwarded-Port 80`,
  prefix: `${headers}\n${prefix}`,
  wss: `${headers}\nhttp-request set-header X-Forwarded-Proto wss`,
  rename: `${headers}\nhttp-request set-header Host ${UPSTREAM}`,
});
const innerLines: Readonly<Record<InnerWay, string>> = {
  append: `option forwardfor
http-request add-header X-Forwarded-Host %[req.hdr(Host)]
http-request add-header X-Forwarded-Proto http`,
  pass,
  replace: headers,
};

export const haproxy: Proxy = {
  name: 'HAProxy',
  binaries: { haproxy: 'haproxy' },
  lines: {
    language: 'haproxy',
    recommended: `# in the frontend\n${headers}`,
    prefix: `# after the lines above\n${prefix}`,
    inner: `# instead of the lines above\n${pass}`,
  },
  bareSuffices: false,
  setup: (sites) => ({
    files: { 'haproxy.cfg': config(sites) },
    commands: [['haproxy', '-db', '-f', 'haproxy.cfg']],
  }),
};

const indent = (text: string) => text.replaceAll('\n', '\n    ');

function config({ leaf, edge, ports, inner }: Sites): string {
  const isInner = (way: Way) => innerWays.some((each) => each === way);
  const outer = ways.map((way) => `frontend ${way}
    bind ${way === 'ipv6' ? '[::1]' : '127.0.0.1'}:${ports[way]} ssl crt ${leaf.bundlePath} alpn h2,http/1.1
    ${indent(lines[way])}
    default_backend ${isInner(way) ? `to-${way}` : UPSTREAM}`);
  const second = innerWays.map((way) => `backend to-${way}
    server next 127.0.0.1:${inner[way]}
frontend inner-${way}
    bind 127.0.0.1:${inner[way]}
    ${indent(innerLines[way])}
    default_backend ${UPSTREAM}`);
  return `global
    maxconn 200
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
backend ${UPSTREAM}
    server edge 127.0.0.1:${edge}
${[...outer, ...second].join('\n')}
`;
}
