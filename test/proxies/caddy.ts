import { PREFIX, UPSTREAM, innerWays, linesOf, ways, type InnerWay, type Proxy, type Sites } from './proxy.ts';

const headers = `# a caller's own are not passed on
header_up -X-Forwarded-Port
header_up -X-Forwarded-Prefix
header_up -Forwarded`;

const prefixHeader = `header_up X-Forwarded-Prefix ${PREFIX}`;

const pass = 'trusted_proxies 127.0.0.1/32';

const lines = linesOf(headers, {
  'inner-port': headers.replace('-X-Forwarded-Port', 'X-Forwarded-Port {http.request.port}'),
  'port-80': headers.replace('-X-Forwarded-Port', 'X-Forwarded-Port 80'),
  prefix: headers.replace('header_up -X-Forwarded-Prefix', prefixHeader),
  wss: `${headers}\nheader_up X-Forwarded-Proto wss`,
  rename: `${headers}\nheader_up Host ${UPSTREAM}`,
});
const innerLines: Readonly<Record<InnerWay, string>> = {
  append: `${pass}\nheader_up +X-Forwarded-Host {http.request.hostport}\nheader_up +X-Forwarded-Proto http`,
  pass,
  replace: headers,
};

export const caddy: Proxy = {
  name: 'Caddy',
  binaries: { caddy: 'caddy' },
  lines: {
    language: 'caddy',
    recommended: `# in reverse_proxy\n${headers}`,
    prefix: `handle_path ${PREFIX}/* {
    reverse_proxy ${UPSTREAM}:8080 {
        # instead of the one above
        ${prefixHeader}
    }
}`,
    inner: `# in reverse_proxy: the address of the proxy before it\n${pass}`,
  },
  bareSuffices: true,
  setup: (sites) => ({
    files: { Caddyfile: config(sites) },
    commands: [['caddy', 'run', '--config', 'Caddyfile', '--adapter', 'caddyfile']],
    environment: { XDG_DATA_HOME: sites.directory, XDG_CONFIG_HOME: sites.directory },
  }),
};

function config({ leaf, edge, ports, inner }: Sites): string {
  const block = (upstream: number, body: string) => `reverse_proxy 127.0.0.1:${upstream} {\n${body}\n}`;
  const outer = ways.map((way) => {
    const next = innerWays.find((each) => each === way);
    const upstream = next === undefined ? edge : inner[next];
    let proxied = block(upstream, lines[way]);
    if (way === 'prefix') proxied = `handle_path ${PREFIX}/* {\n${proxied}\n}`;
    return `https://:${ports[way]} {
bind ${way === 'ipv6' ? '[::1]' : '127.0.0.1'}
tls ${leaf.certPath} ${leaf.keyPath}
${proxied}
}`;
  });
  const second = innerWays.map((way) => `http://:${inner[way]} {\nbind 127.0.0.1\n${block(edge, innerLines[way])}\n}`);
  return `{
admin off
auto_https off
servers {
protocols h1 h2
}
}
${[...outer, ...second].join('\n')}
`;
}
