/**
 * The other side of a worker's cable, in a network namespace: a name server, a public site, and canaries on a private address, on the
 * metadata service's and by UDP. Prints a line for each that is met. Started with its own address as argument.
 */
import { createSocket } from 'node:dgram';
import { createServer } from 'node:http';

const [inner = '', publicAddress = '', metadata = ''] = process.argv.slice(2);
const say = (line: string) => process.stdout.write(`${line}\n`);

/** The hostile page: what it meets tells who it was. */
const html = `<!doctype html><html lang="en"><title>Names</title><link rel="icon" href="data:,">
<link rel="dns-prefetch" href="//prefetched.test"><link rel="preconnect" href="http://preconnected.test">
<body style="background:#345"><div id="box" style="width:80px;height:80px;background:#fc6"></div><script>
const ask = (url) => fetch(url, { mode: 'no-cors', cache: 'no-store' }).catch(() => 0);
(async () => {
  for (const name of ['meta.test', 'mixed.test', 'private.test', 'mapped.test', 'nat64.test', 'local.test', '${metadata}', '${inner}']) await ask('http://' + name + '/by-' + name);
  for (let i = 0; i < 8; i += 1) { await ask('http://flip.test/by-flip-' + i); await new Promise((done) => setTimeout(done, 50)); }
  for (const name of ['meta.test', 'private.test', 'flip.test']) new WebSocket('ws://' + name + '/socket-' + name);
  document.body.append(Object.assign(new Image(), { src: 'http://site.test/redirect?to=' + encodeURIComponent('http://meta.test/redirected') }));
  const peer = new RTCPeerConnection({ iceServers: [{ urls: ['stun:${inner}:3478', 'stun:${metadata}:3478', 'stun:private.test:3478'] }, { urls: ['turn:${inner}:3478?transport=udp', 'turn:${inner}:80?transport=tcp'], username: 'a', credential: 'b' }] });
  peer.createDataChannel('x');
  peer.setLocalDescription(await peer.createOffer());
})();
let x = 0;
setInterval(() => { box.style.marginLeft = (x = (x + 5) % 300) + 'px'; }, 50);
</script>`;

const serve = (name: string, address: string, page: string) => {
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://x');
    if (name === 'site' && url.pathname === '/redirect') return void response.writeHead(302, { location: url.searchParams.get('to') ?? '/' }).end();
    if (url.pathname !== '/') say(`${name} ${url.pathname}`);
    response.writeHead(200, { 'content-type': 'text/html', connection: 'close' }).end(page);
  });
  server.on('connection', () => name !== 'site' && say(`${name} connection`));
  server.on('upgrade', (request, socket) => {
    say(`${name} ${request.url}`);
    socket.destroy();
  });
  return new Promise<void>((resolve) => server.listen(80, address, resolve));
};
await Promise.all([serve('site', publicAddress, html), serve('private', inner, ''), serve('metadata', metadata, '')]);
for (const [name, address] of [['private', inner], ['metadata', metadata]] as const) {
  const socket = createSocket('udp4', () => say(`${name} datagram`));
  await new Promise<void>((resolve) => socket.bind(3478, address, resolve));
}

// RFC 1035: one question, whose name is answered by the table
const four = (address: string) => Buffer.from(address.split('.').map(Number));
const six = (groups: readonly number[]) => Buffer.from(groups.flatMap((group) => [group >> 8, group & 255]));
const embedded = (address: string): [number, number] => {
  const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number);
  return [a * 256 + b, c * 256 + d];
};
let flips = 0;
const names: Readonly<Record<string, (type: number) => Buffer[]>> = {
  'site.test': (type) => (type === 1 ? [four(publicAddress)] : []),
  'meta.test': (type) => (type === 1 ? [four(metadata)] : []),
  'private.test': (type) => (type === 1 ? [four(inner)] : []),
  'local.test': (type) => (type === 1 ? [four('127.0.0.1')] : []),
  'mixed.test': (type) => (type === 1 ? [four(publicAddress), four(inner)] : []),
  'mapped.test': (type) => (type === 28 ? [six([0, 0, 0, 0, 0, 0xffff, ...embedded(inner)])] : []),
  'nat64.test': (type) => (type === 28 ? [six([0x64, 0xff9b, 0, 0, 0, 0, ...embedded(metadata)])] : []),
  // another answer for each question
  'flip.test': (type) => (type === 1 ? [four((flips += 1) % 2 === 1 ? publicAddress : inner)] : []),
};
const resolver = createSocket('udp4');
resolver.on('message', (query, { port, address }) => {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  const name = labels.join('.').toLowerCase();
  const type = query.readUInt16BE(at + 1);
  const found = names[name]?.(type);
  say(`dns ${name}`);
  const head = Buffer.from(query.subarray(0, 12));
  head.writeUInt16BE(found === undefined ? 0x8583 : 0x8580, 2);
  head.writeUInt16BE(found?.length ?? 0, 6);
  head.writeUInt32BE(0, 8);
  const answers = (found ?? []).map((data) => Buffer.concat([Buffer.from([0xc0, 12, 0, type, 0, 1, 0, 0, 0, 0, 0, data.length]), data]));
  resolver.send(Buffer.concat([head, query.subarray(12, at + 5), ...answers]), port, address);
});
await new Promise<void>((resolve) => resolver.bind(53, inner, resolve));
say('the world is there');
