import { PREFIX, UPSTREAM, ways, innerWays, linesOf, type Proxy, type Sites, type Way } from './proxy.ts';

const map = `map $http_upgrade $connection_upgrade {
    default upgrade;
    ''      '';
}`;

const headers = `proxy_set_header Host $http_host;
proxy_set_header X-Forwarded-Proto $scheme;

# a caller's own are not passed on
proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Host $http_host;
proxy_set_header X-Forwarded-Port "";
proxy_set_header X-Forwarded-Prefix "";
proxy_set_header Forwarded "";`;

const socket = `# the media socket
proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $connection_upgrade;`;

const recommended = `${headers}\n\n${socket}`;

const prefixHeader = `proxy_set_header X-Forwarded-Prefix ${PREFIX};`;
const prefixPass = (upstream: string) => `proxy_pass http://${upstream}/;`;

const pass = `proxy_set_header Host $http_host;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;`;

const append = `proxy_set_header Host $http_host;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Host "$http_x_forwarded_host, $http_host";
proxy_set_header X-Forwarded-Proto "$http_x_forwarded_proto, $scheme";`;

/** Header lines of a way in; nginx sends a header twice that is set twice. */
const lines = linesOf(recommended, {
  'inner-port': recommended.replace('X-Forwarded-Port ""', 'X-Forwarded-Port $server_port'),
  'port-80': recommended.replace('X-Forwarded-Port ""', 'X-Forwarded-Port 80'),
  prefix: recommended.replace('proxy_set_header X-Forwarded-Prefix "";', prefixHeader),
  wss: recommended.replace('X-Forwarded-Proto $scheme', 'X-Forwarded-Proto wss'),
  rename: recommended.replace('Host $http_host', 'Host $proxy_host'),
});
const innerLines = { append: `${append}\n${socket}`, pass: `${pass}\n${socket}`, replace: recommended };

export const nginx: Proxy = {
  name: 'nginx',
  binaries: { nginx: 'nginx' },
  lines: {
    language: 'nginx',
    recommended: `# in http\n${map}\n\n# beside proxy_pass\n${recommended}`,
    prefix: `location ${PREFIX}/ {\n    ${prefixPass(UPSTREAM)}\n    # instead of the one above\n    ${prefixHeader}\n}`,
    inner: `# beside proxy_pass, instead of the lines on X-Forwarded-* above\n${pass}`,
  },
  bareSuffices: false,
  setup: (sites) => ({
    files: { 'nginx.conf': config(sites) },
    commands: [['nginx', '-p', sites.directory, '-c', 'nginx.conf', '-e', 'stderr']],
  }),
};

/**
 * A configuration with this one listener (`address:port`), as recommended.
 * @param beside ports of other servers on 127.0.0.1 that take what is below a path
 */
export function nginxAt(listen: string, { directory, leaf, edge }: Pick<Sites, 'directory' | 'leaf' | 'edge'>, beside: Readonly<Record<string, number>> = {}): string {
  const location = (path: string, upstream: string) => `location ${path} {\n        proxy_pass http://${upstream};\n        ${recommended}\n    }`;
  const others = Object.entries(beside).map(([path, port]) => location(path, `127.0.0.1:${port}`));
  return frame({ directory, leaf, edge }, [server(listen, [location('/', UPSTREAM), ...others].join('\n    '))]);
}

const server = (listen: string, body: string): string => `server {
    listen ${listen} ssl http2;
    ${body}
}`;

function config(sites: Sites): string {
  const { ports, inner, edge } = sites;
  const isChain = (way: Way) => innerWays.some((each) => each === way);
  const outer = ways.map((way) => {
    const upstream = isChain(way) ? `inner_${way}` : way === 'bare-address' ? `127.0.0.1:${edge}` : UPSTREAM;
    const location = way === 'prefix' ? `${PREFIX}/` : '/';
    return server(
      `${way === 'ipv6' ? '[::1]' : '127.0.0.1'}:${ports[way]}`,
      `location ${location} {
        ${way === 'prefix' ? prefixPass(upstream) : `proxy_pass http://${upstream};`}
        ${lines[way]}
    }`,
    );
  });
  const second = innerWays.map((way) => `upstream inner_${way} { server 127.0.0.1:${inner[way]}; }
server {
    listen 127.0.0.1:${inner[way]};
    location / {
        proxy_pass http://${UPSTREAM};
        ${innerLines[way]}
    }
}`);
  return frame(sites, [...outer, ...second]);
}

const frame = ({ directory, leaf, edge }: Pick<Sites, 'directory' | 'leaf' | 'edge'>, servers: readonly string[]): string => `daemon off;
${process.getuid?.() === 0 ? 'user root;' : ''}
worker_processes 1;
pid ${directory}/nginx.pid;
error_log stderr;
events {}
http {
    access_log ${directory}/access.log;
    ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${directory}/${kind};`).join('\n    ')}
    ssl_certificate ${leaf.certPath};
    ssl_certificate_key ${leaf.keyPath};
    ${map}
    upstream ${UPSTREAM} { server 127.0.0.1:${edge}; }
    ${servers.join('\n')}
}
`;
