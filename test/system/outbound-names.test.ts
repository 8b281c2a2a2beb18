/** What a page reaches by names, on a machine of its own whose network has a metadata service: names that lie, flip, and are many things at once. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createNamespaces, type Namespaces } from '../helpers/namespaces.ts';
import type { RecorderRunOptions } from '../helpers/recorder.ts';
import { lacks } from '../helpers/service.ts';
import { runProcess, type RunningProcess } from '../proxies/proxy.ts';

const METADATA = '169.254.169.254';
/** Of a public range: it is on an interface of the namespace, and nowhere else that could be met from there. */
const PUBLIC = '93.184.215.14';
const script = (name: string) => fileURLToPath(new URL(name, import.meta.url));

describe.skipIf(await lacks('headless shell', 'network namespaces'))('names that a page asks for', () => {
  let machines: Namespaces;
  let world: RunningProcess;
  let resolverFile = '';
  beforeAll(async () => {
    machines = await createNamespaces();
    const { a, b } = machines;
    const run = (command: readonly string[]) => {
      const { status, stderr } = spawnSync(command[0] as string, command.slice(1), { encoding: 'utf8' });
      if (status !== 0) throw new Error(`${command.join(' ')}: ${stderr}`);
    };
    for (const address of [METADATA, PUBLIC]) run(a.within('ip', 'address', 'add', `${address}/32`, 'dev', 'lo'));
    run(b.within('ip', 'route', 'add', 'default', 'via', a.address));
    // what `ip netns exec` has there in the place of /etc/resolv.conf
    const name = b.within('x')[3] as string;
    resolverFile = `/etc/netns/${name}`;
    mkdirSync(resolverFile, { recursive: true });
    writeFileSync(`${resolverFile}/resolv.conf`, `nameserver ${a.address}\noptions timeout:1 attempts:1\n`);
    world = runProcess(a.within(process.execPath, script('outbound-world.ts'), a.address, PUBLIC, METADATA));
    for (const until = Date.now() + 20_000; !world.output().includes('the world is there'); await sleep(50)) if (Date.now() > until) throw new Error(world.output());
  });
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]();
    await machines?.[Symbol.asyncDispose]();
    if (resolverFile !== '') rmSync(resolverFile, { recursive: true, force: true });
  });

  const record = async (webrtc: 'proxied' | 'direct', ...allow: string[]) => {
    const before = world.output().length;
    // by screenshots: a page on plain http can't capture itself
    const options: RecorderRunOptions = { engine: 'screencast', request: { url: 'http://site.test/', audio: false, maxDuration: 4 }, settings: { outbound: { allow, own: [] } }, webrtc };
    const recorder = runProcess(machines.b.within(process.execPath, script('../helpers/recorder-process.ts'), JSON.stringify(options)));
    for (const until = Date.now() + 60_000; recorder.child.exitCode === null && Date.now() < until; ) await sleep(100);
    const said = recorder.output();
    await recorder[Symbol.asyncDispose]();
    const line = said.split('\n').find((each) => each.startsWith('{"error"'));
    if (line === undefined) throw new Error(said.slice(-3000));
    return { ...(JSON.parse(line) as { error: unknown; frames: number; warnings: string[] }), met: world.output().slice(before).split('\n') };
  };
  const inner = (met: readonly string[]) => met.filter((line) => /^(private|metadata) /.test(line));

  it('are found where they are open: the control', async () => {
    const { error, met } = await record('direct', '10.0.0.0/8', '169.254.0.0/16', '127.0.0.0/8');
    expect(error).toBeNull();
    for (const line of ['metadata /by-meta.test', `metadata /by-${METADATA}`, 'private /by-private.test', `private /by-${machines.a.address}`, 'private /by-mapped.test', 'metadata /socket-meta.test', 'metadata /redirected', 'private datagram', 'metadata datagram']) {
      expect(met).toContain(line);
    }
    expect(met.some((line) => line.startsWith('private /by-flip-'))).toBe(true);
    expect(met.some((line) => line.startsWith('site /by-flip-'))).toBe(true);
    console.log(`open: ${inner(met).length} meetings, ${met.filter((line) => line.endsWith('datagram')).length} of them datagrams`);
  });

  it('lead to public addresses alone where nothing is open, whatever they say the next time', async () => {
    const { error, frames, met, warnings } = await record('proxied');
    expect(error).toBeNull();
    expect(frames).toBeGreaterThan(5);
    expect(inner(met)).toEqual([]);
    // it was asked each time, and had a public answer half of them
    expect(met.filter((line) => line.startsWith('site /by-flip-')).length).toBeGreaterThan(1);
    expect(met.filter((line) => line === 'dns flip.test').length).toBeGreaterThan(6);
    for (const [host, reason] of [['meta.test', "a cloud's metadata service"], ['mixed.test', 'a private address'], ['private.test', 'a private address'], ['local.test', 'a loopback address'], ['mapped.test', 'a private address']]) {
      expect(warnings.join('\n')).toContain(`blocked: ${host}, ${reason}`);
    }
    // nobody but the proxy resolves, and that only what it is to dial
    expect(met).not.toContain('dns prefetched.test');
  });

  it('open no metadata service, though they are open themselves', async () => {
    const { met } = await record('proxied', '*', 'meta.test', '*.test');
    expect(inner(met).filter((line) => line.startsWith('metadata'))).toEqual([]);
    expect(inner(met)).toContain('private /by-private.test');
  });
});
