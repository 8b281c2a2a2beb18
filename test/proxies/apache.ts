import { PREFIX, UPSTREAM, innerWays, linesOf, ways, type InnerWay, type Proxy, type Sites } from './proxy.ts';

const headers = `ProxyPreserveHost On
RequestHeader set X-Forwarded-Proto "expr=%{REQUEST_SCHEME}"

# a caller's own are not passed on: mod_proxy appends to these
RequestHeader unset X-Forwarded-For
RequestHeader unset X-Forwarded-Host
RequestHeader unset X-Forwarded-Port
RequestHeader unset X-Forwarded-Prefix
RequestHeader unset Forwarded`;

const pass = (upstream: string, path = '/') => `ProxyPass "${path}" "http://${upstream}/" upgrade=websocket`;

const prefixHeader = `RequestHeader set X-Forwarded-Prefix ${PREFIX}`;

const innerPass = `ProxyPreserveHost On
ProxyAddHeaders Off`;

const lines = linesOf(headers, {
  'inner-port': `${headers}\nRequestHeader set X-Forwarded-Port "expr=%{SERVER_PORT}"`,
  'port-80': `${headers}\nRequestHeader set X-Forwarded-Port 80`,
  prefix: `${headers}\n${prefixHeader}`,
  wss: `${headers}\nRequestHeader set X-Forwarded-Proto wss`,
  rename: headers.replace('ProxyPreserveHost On', 'ProxyPreserveHost Off'),
});
const innerLines: Readonly<Record<InnerWay, string>> = {
  append: 'ProxyPreserveHost On\nRequestHeader append X-Forwarded-Proto http',
  pass: innerPass,
  replace: headers,
};

export const apache: Proxy = {
  name: 'Apache',
  binaries: { apache2: 'apache2-bin' },
  lines: {
    language: 'apache',
    recommended: `# modules: proxy, proxy_http, proxy_wstunnel, headers, ssl\n${headers}\n\n# the media socket too\n${pass(`${UPSTREAM}:8080`)}`,
    prefix: `# after the header lines above\n${prefixHeader}\n\n# instead of the one above\n${pass(`${UPSTREAM}:8080`, `${PREFIX}/`)}`,
    inner: `# instead of the header lines above\n${innerPass}`,
  },
  bareSuffices: false,
  setup: (sites) => ({
    files: { 'httpd.conf': config(sites) },
    commands: [['apache2', '-d', sites.directory, '-f', 'httpd.conf', '-D', 'FOREGROUND']],
  }),
};

const modules = [
  'mpm_event', 'authz_core', 'headers', 'proxy', 'proxy_http', 'proxy_wstunnel', 'socache_shmcb', 'ssl', 'http2', 'setenvif',
];

function config({ directory, leaf, edge, ports, inner }: Sites): string {
  const outer = ways.map((way) => {
    const next = innerWays.find((each) => each === way);
    const upstream = `127.0.0.1:${next === undefined ? edge : inner[next]}`;
    const address = way === 'ipv6' ? '[::1]' : '127.0.0.1';
    return `Listen ${address}:${ports[way]} https
<VirtualHost ${address}:${ports[way]}>
ServerName localhost
SSLEngine on
SSLCertificateFile ${leaf.certPath}
SSLCertificateKeyFile ${leaf.keyPath}
Protocols h2 http/1.1
${lines[way]}
${pass(upstream, way === 'prefix' ? `${PREFIX}/` : '/')}
</VirtualHost>`;
  });
  const second = innerWays.map((way) => `Listen 127.0.0.1:${inner[way]}
<VirtualHost 127.0.0.1:${inner[way]}>
${innerLines[way]}
${pass(`127.0.0.1:${edge}`)}
</VirtualHost>`);
  return `${modules.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join('\n')}
ServerName localhost
PidFile ${directory}/httpd.pid
DefaultRuntimeDir ${directory}
ErrorLog ${directory}/error.log
Mutex file:${directory} default
${process.getuid?.() === 0 ? 'User www-data\nGroup www-data' : ''}
StartServers 1
ServerLimit 2
ThreadsPerChild 16
ThreadLimit 16
MaxRequestWorkers 32
${[...outer, ...second].join('\n')}
`;
}
