import { PREFIX, UPSTREAM, innerWays, linesOf, ways, type InnerWay, type Proxy, type Sites } from './proxy.ts';

const headers = `if (proxy.is_ssl()) {
    set req.http.X-Forwarded-Proto = "https";
} else {
    set req.http.X-Forwarded-Proto = "http";
}

# a caller's own are not passed on
set req.http.X-Forwarded-For = client.ip;
set req.http.X-Forwarded-Host = req.http.Host;
unset req.http.X-Forwarded-Port;
unset req.http.X-Forwarded-Prefix;
unset req.http.Forwarded;`;

const socket = `# the media socket
if (req.http.Upgrade ~ "(?i)^websocket$") {
    return (pipe);
}`;

const pipe = `sub vcl_pipe {
    if (req.http.Upgrade) {
        set bereq.http.Upgrade = req.http.Upgrade;
        set bereq.http.Connection = req.http.Connection;
    }
}`;

const prefix = `set req.http.X-Forwarded-Prefix = "${PREFIX}";
set req.url = regsub(req.url, "^${PREFIX}/", "/");`;

const pass = '# nothing but the part on the media socket: Varnish appends to X-Forwarded-For by itself and leaves the others as they are';

const lines = linesOf(headers, {
  'inner-port': `${headers}\nset req.http.X-Forwarded-Port = std.port(local.ip);`,
  'port-80': `${headers}\nset req.http.X-Forwarded-Port = "80";`,
  prefix: `${headers}\n${prefix}`,
  wss: `${headers}\nset req.http.X-Forwarded-Proto = "wss";`,
  rename: `${headers}\nset req.http.Host = "${UPSTREAM}";`,
});
const innerLines: Readonly<Record<InnerWay, string>> = {
  append: `set req.http.X-Forwarded-Host = req.http.X-Forwarded-Host + ", " + req.http.Host;
set req.http.X-Forwarded-Proto = req.http.X-Forwarded-Proto + ", http";`,
  pass: '',
  replace: headers,
};

export const varnish: Proxy = {
  name: 'Varnish',
  binaries: { varnishd: 'varnish', haproxy: 'haproxy' },
  lines: {
    language: 'vcl',
    recommended: `import proxy;

sub vcl_recv {
    ${`${headers}\n\n${socket}`.replaceAll('\n', '\n    ').replaceAll(/^ +$/gm, '')}
    return (pass);
}

${pipe}`,
    prefix: `# after the header lines above\n${prefix}`,
    inner: pass,
  },
  bareSuffices: false,
  setup: (sites) => ({
    files: { 'default.vcl': vcl(sites), 'terminator.cfg': terminator(sites) },
    commands: [
      [
        'varnishd', '-F', '-j', 'none', '-n', `${sites.directory}/varnish`, '-f', `${sites.directory}/default.vcl`, '-s', 'malloc,16m', '-T', 'none',
        '-p', 'feature=+http2', '-p', 'thread_pool_min=10', '-p', 'thread_pools=1',
        '-a', `tls=127.0.0.1:${sites.spare[0]},PROXY`,
        ...innerWays.flatMap((way) => ['-a', `${way}=127.0.0.1:${sites.inner[way]}`]),
      ],
      ['haproxy', '-db', '-f', 'terminator.cfg'],
    ],
  }),
};

/** HAProxy ends TLS and says so in the PROXY protocol alone, as hitch does; it does not look into HTTP. */
const terminator = ({ leaf, ports, spare }: Sites) => `defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
${ways.map((way) => `listen ${way}
    bind ${way === 'ipv6' ? '[::1]' : '127.0.0.1'}:${ports[way]} ssl crt ${leaf.bundlePath} alpn h2,http/1.1
    server varnish 127.0.0.1:${spare[0]} send-proxy-v2-ssl proxy-v2-options ssl`).join('\n')}
`;

function vcl({ edge, ports, inner }: Sites): string {
  const backend = (name: string, port: number) => `backend ${name} { .host = "127.0.0.1"; .port = "${port}"; }`;
  const branch = (condition: string, body: string, target: string) => `if (${condition}) {\n${body}\nset req.backend_hint = ${target};\n}`;
  // through the PROXY protocol the listener's port is in server.ip
  const outer = ways.map((way) =>
    branch(`local.socket == "tls" && std.port(server.ip) == ${ports[way]}`, lines[way], innerWays.some((each) => each === way) ? `to_${way}` : UPSTREAM),
  );
  const second = innerWays.map((way) => branch(`local.socket == "${way}"`, innerLines[way], UPSTREAM));
  return `vcl 4.1;
import proxy;
import std;
${backend(UPSTREAM, edge)}
${innerWays.map((way) => backend(`to_${way}`, inner[way])).join('\n')}
sub vcl_recv {
${[...outer, ...second].join('\n')}
${socket}
return (pass);
}
${pipe}
`;
}
